"""The public API: an application's own candidates, in its order until votes move them."""

from pathlib import Path

import pytest

from fakes import WordEncoder
from plain_model import KERNEL, NOISE, after_votes, ids, scored, scores, shared_out, spellings
from rag_flywheel import Candidate, Flywheel, Passage, Vote

QUERY, UNRELATED = "reset password", "kittens sleep"


def test_rerank_keeps_the_given_order_until_votes_move_it(
    tmp_path: Path, encoder: WordEncoder
) -> None:
    given = [
        Candidate("x", "first text", 9.0),
        Candidate("y", "second text", 3.0),
        Candidate("z", "third text", 6.0),
    ]
    with Flywheel.open(tmp_path / "kb", encoder=encoder) as fw:
        before = fw.rerank(QUERY, given)
        prior = shared_out({"x": 0.0, "z": -1.5, "y": -3.0})
        assert scores(before) == pytest.approx(scored(prior, [], KERNEL.n0))
        assert ids(before) == ["x", "z", "y"]
        assert ids(fw.rerank(QUERY, given, k=2)) == ["x", "z"]
        assert fw.rerank(QUERY, []).hits == ()
        asked = [before, *(fw.rerank(q, given) for q in spellings(QUERY, 8)[1:])]
        fw.feedback_many([Vote(a.id, "y", "helpful", f"user {i}") for a in asked for i in range(9)])
        fw.refresh()
        after = fw.rerank(QUERY, given)
        assert ids(after) == ["y", "x", "z"]
        said = after_votes(prior, {"y": 9}, NOISE)
        assert scores(after) == pytest.approx(scored(prior, [(1.0, said)] * 8, KERNEL.n0), abs=1e-6)
        assert [(h.passage_id, h.score) for h in fw.rerank(UNRELATED, given).hits] == [
            (h.passage_id, h.score) for h in before.hits
        ]
        other = [*given[:1], Candidate("y", "quite another text", 3.0), *given[2:]]
        assert ids(fw.rerank(QUERY, other, record=False)) == ["x", "z", "y"]
        assert fw.retrieve(QUERY).hits == ()  # own candidates are no passages of the index
    with Flywheel.open(tmp_path / "kb", encoder=encoder) as fw:
        assert scores(fw.rerank(QUERY, given, record=False)) == scores(after)
        assert ids(fw.rerank(QUERY, given[::-1], record=False)) == ["y", "x", "z"]


def test_votes_on_a_passage_of_the_index_move_it_among_own_candidates(
    fw: Flywheel, help_desk: list[Passage]
) -> None:
    given = [Candidate(p.id, p.text, float(-i)) for i, p in enumerate(help_desk)]
    fw.rerank(QUERY, given)  # known as own candidates first
    fw.add(help_desk)
    for shown in fw.retrieve_many(spellings(QUERY, 8)):
        fw.feedback_many(Vote(shown.id, "cats", "helpful", f"user {i}") for i in range(20))
    assert ids(fw.rerank(QUERY, given)) == ["cats", "reset", "secret", "refund"]
