"""The public API: what votes do to the answers that follow, and what undoes it."""

import math
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fakes import WordEncoder
from rag_flywheel import Candidate, Config, Flywheel, Passage, Retrieval, Vote
from rag_flywheel.errors import InputError
from rag_flywheel.rank.parameters import Parameters

QUERY, SIMILAR, UNRELATED = "reset password", "reset my password", "kittens sleep"
KERNEL = Parameters().kernel  # below 64 past queries a refresh keeps it


def ids(found: Retrieval) -> list[str]:
    return [hit.passage_id for hit in found.hits]


def scores(found: Retrieval) -> dict[str, float]:
    return {hit.passage_id: hit.score for hit in found.hits}


def evidence(fw: Flywheel, query: str, passage_id: str) -> float:
    found = fw.retrieve(query, k=1000, record=False)
    return {h.passage_id: h.explanation.evidence for h in found.hits}[passage_id]


def shift(score: float, helpful: float = 0.0, harmful: float = 0.0) -> float:
    """How far votes move a passage whose score without them is this."""
    prior = 1.0 / (1.0 + math.exp(-score))
    p = (KERNEL.n0 * prior + helpful) / (KERNEL.n0 + helpful + harmful)
    return math.log(p / (1.0 - p)) - score


def vote(fw: Flywheel, query: str, passage_id: str, verdict: str = "helpful", n: int = 1) -> None:
    """n users say the same."""
    shown = fw.retrieve(query, k=1000)
    assert shown.id is not None
    fw.feedback_many(
        Vote(shown.id, passage_id, verdict, f"user {i}")  # type: ignore[arg-type]
        for i in range(n)
    )


def test_a_vote_acts_on_the_next_answer_and_its_retraction_undoes_it_exactly(
    fw: Flywheel, help_desk: list[Passage]
) -> None:
    fw.add(help_desk)
    before = fw.retrieve(QUERY)
    assert ids(before)[0] == "reset"
    for i in range(60):
        fw.feedback(before.id, "secret", "helpful", user_id=f"user {i}", reason="the right page")
    after = fw.retrieve(QUERY)
    assert ids(after) == ["secret", *(p for p in ids(before) if p != "secret")]
    hit, old = after.hits[0], scores(before)["secret"]
    assert hit.explanation.evidence == pytest.approx(shift(old, helpful=60.0), abs=1e-5)
    parts = hit.explanation.intercept + sum(hit.explanation.terms.values())
    assert parts + hit.explanation.evidence == pytest.approx(hit.score, abs=1e-6)
    assert {p: s for p, s in scores(after).items() if p != "secret"} == {
        p: s for p, s in scores(before).items() if p != "secret"
    }
    with closing(sqlite3.connect(Path(fw.status().path) / "flywheel.db")) as conn:
        assert hit.explanation.votes == tuple(r[0] for r in conn.execute("SELECT seq FROM votes"))
    for i in range(60):
        fw.feedback(before.id, "secret", "retract", user_id=f"user {i}")
    undone = fw.retrieve(QUERY)
    assert [(h.passage_id, h.score, h.explanation) for h in undone.hits] == [
        (h.passage_id, h.score, h.explanation) for h in before.hits
    ]


def test_who_says_what_how_often(fw: Flywheel, help_desk: list[Passage]) -> None:
    fw.add(help_desk)
    shown = fw.retrieve(QUERY)
    old = scores(shown)["secret"]

    def say(verdict: str, user: str | None) -> float:
        fw.feedback(shown.id, "secret", verdict, user_id=user)  # type: ignore[arg-type]
        return evidence(fw, QUERY, "secret")

    steps = [
        (("helpful", "ann"), (1.0, 0.0)),
        (("helpful", "ann"), (1.0, 0.0)),  # the same user again
        (("harmful", "ann"), (0.0, 1.0)),  # the last verdict counts
        (("helpful", "bob"), (1.0, 1.0)),
        (("helpful", "ann"), (2.0, 0.0)),  # two users add up
        (("helpful", None), (3.0, 0.0)),
        (("helpful", None), (3.0, 0.0)),  # votes without a user are one voice
        (("retract", "carol"), (3.0, 0.0)),  # she never voted
        (("retract", "bob"), (2.0, 0.0)),
        (("retract", None), (1.0, 0.0)),
        (("harmful", None), (1.0, 1.0)),
    ]
    for said, (helpful, harmful) in steps:
        assert say(*said) == pytest.approx(shift(old, helpful, harmful), abs=1e-5), said


def test_votes_count_for_similar_queries_and_only_for_them(
    fw: Flywheel, encoder: WordEncoder, help_desk: list[Passage]
) -> None:
    fw.add(help_desk)
    queries = [QUERY, SIMILAR, UNRELATED]
    before = fw.retrieve_many(queries, record=False)
    vote(fw, QUERY, "secret", n=3)
    vote(fw, QUERY, "reset", "harmful", n=2)
    vectors = encoder.encode_queries(queries)
    for query, vector, old in zip(queries, vectors, before, strict=True):
        cosine = min(float(vector @ vectors[0]), 1.0)
        weight = max(0.0, (cosine - KERNEL.theta) / (1.0 - KERNEL.theta)) ** KERNEL.gamma
        assert (weight > 0.1) == (query != UNRELATED)
        new = fw.retrieve(query, record=False)
        was = scores(old)
        if query == UNRELATED:
            assert [(h.passage_id, h.score) for h in new.hits] == list(was.items())
        expected = was | {
            "secret": was["secret"] + shift(was["secret"], helpful=3 * weight),
            "reset": was["reset"] + shift(was["reset"], harmful=2 * weight),
        }
        assert scores(new) == pytest.approx(expected, abs=1e-5)


WORDS = [f"word{i}" for i in range(40)]


def with_changes(n: int, salt: str = "new") -> Passage:
    """A text of 40 words of which the first n are others."""
    return Passage("a", " ".join([f"{salt}{i}" for i in range(n)] + WORDS[n:]))


def test_a_passage_with_helpful_votes_is_ranked_though_no_search_finds_it(
    tmp_path: Path, encoder: WordEncoder
) -> None:
    config = Config(encoder="", n_candidates=1)
    with Flywheel.open(tmp_path / "kb", encoder=encoder, config=config) as fw:
        fw.add([Passage(f"p{i}", f"reset password {i}", "", {"n": i}) for i in range(50)])
        fw.add([with_changes(0)])
        fw.refresh()
        vote(fw, QUERY, "a", n=2000)
        assert ids(fw.retrieve(QUERY, k=1)) == ["a"]
        assert "a" not in ids(fw.retrieve(QUERY, where={"n": {"gte": 0}}))
        fw.add([with_changes(1)])  # inherits the votes
        for _ in range(2):
            assert ids(fw.retrieve(QUERY, k=1)) == ["a"]
            fw.refresh()


@pytest.mark.parametrize("refreshed", [False, True])
def test_votes_survive_small_edits_and_not_real_ones_and_come_back_with_the_text(
    fw: Flywheel, refreshed: bool
) -> None:
    fw.add([with_changes(0), Passage("b", "word0 of another")])
    if refreshed:
        fw.refresh()
    vote(fw, "word0 word39", "a")
    full = evidence(fw, "word0 word39", "a")
    assert full > 0.1
    for n, kept in [
        (1, True),
        (2, True),
        (3, False),
        (20, False),
        (0, True),
        (40, False),
        (2, True),
    ]:
        fw.add([with_changes(n)])  # 38 of 40 words in place are 0.95, the shipped least
        assert (evidence(fw, "word0 word39", "a") > 0) == kept, n
    fw.remove(["a"])
    fw.add([with_changes(0)])
    assert evidence(fw, "word0 word39", "a") == pytest.approx(full, abs=1e-4)


def test_votes_do_not_drift_over_many_small_edits(fw: Flywheel) -> None:
    fw.add([with_changes(0)])
    vote(fw, "word39", "a")
    for n in range(1, 15):
        fw.add([with_changes(n)])
        assert (evidence(fw, "word39", "a") > 0) == (n <= 2), n
    fw.add([with_changes(0)])
    assert evidence(fw, "word39", "a") > 0


def test_votes_come_back_with_the_text_after_any_number_of_edits(fw: Flywheel) -> None:
    fw.add([with_changes(0)])
    vote(fw, "word39", "a")
    for i in range(25):
        fw.add([with_changes(30, salt=f"edit{i}-")])
    fw.add([with_changes(0)])
    assert evidence(fw, "word39", "a") > 0


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
        assert scores(before) == pytest.approx({"x": 0.0, "z": -1.5, "y": -3.0})
        assert ids(before) == ["x", "z", "y"]
        assert ids(fw.rerank(QUERY, given, k=2)) == ["x", "z"]
        assert fw.rerank(QUERY, []).hits == ()
        assert before.id is not None
        fw.feedback_many([Vote(before.id, "y", "helpful", f"user {i}") for i in range(60)])
        fw.refresh()
        after = fw.rerank(QUERY, given)
        assert ids(after) == ["y", "x", "z"]
        moved = {"x": 0.0, "z": -1.5, "y": -3.0 + shift(-3.0, helpful=60.0)}
        assert scores(after) == pytest.approx(moved)
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
    vote(fw, QUERY, "cats", n=200)
    assert ids(fw.rerank(QUERY, given)) == ["cats", "reset", "secret", "refund"]


def test_tenants_do_not_hear_each_others_votes(tmp_path: Path, encoder: WordEncoder) -> None:
    config = Config(encoder="", tenant_key="team")
    given = [Candidate("x", "first text", 2.0), Candidate("y", "second text", 1.0)]
    ours, theirs = {"team": "ours"}, {"team": "theirs"}
    with Flywheel.open(tmp_path / "kb", encoder=encoder, config=config) as fw:
        fw.add([Passage("a", "reset it", "", ours), Passage("b", "reset password", "", theirs)])
        before = fw.rerank(QUERY, given, where=ours)
        retrieved = fw.retrieve(QUERY, where=ours)
        everyone = scores(fw.retrieve(QUERY))
        assert before.id and retrieved.id
        fw.feedback_many([Vote(before.id, "y", "helpful", f"user {i}") for i in range(60)])
        fw.feedback(retrieved.id, "a", "helpful")
        for _ in range(2):
            assert ids(fw.rerank(QUERY, given, where=ours)) == ["y", "x"]
            for where in (theirs, None, {"team": 1}):
                assert scores(fw.rerank(QUERY, given, where=where)) == scores(before)
            assert ids(fw.retrieve(QUERY, where=ours)) == ["a"]
            assert fw.retrieve(QUERY, where=ours).hits[0].score > retrieved.hits[0].score
            assert scores(fw.retrieve(QUERY)) == pytest.approx(everyone, abs=1e-5)
            fw.refresh()
        with pytest.raises(InputError, match="a string or whole number"):
            fw.retrieve(QUERY, where={"team": {"in": ["ours", "theirs"]}})


def answers(fw: Flywheel) -> list[list[tuple[str, float]]]:
    found = fw.retrieve_many([QUERY, SIMILAR, UNRELATED], k=100, record=False)
    return [[(h.passage_id, h.score) for h in one.hits] for one in found]


@pytest.mark.parametrize("named", [False, True])
def test_rollback_freezes_votes_and_release_thaws_them(
    fw: Flywheel, help_desk: list[Passage], named: bool
) -> None:
    fw.add(help_desk)
    vote(fw, QUERY, "secret", n=5)
    first = fw.refresh()
    then = answers(fw)
    vote(fw, QUERY, "cats", n=50)
    fw.refresh()
    vote(fw, SIMILAR, "refund", "harmful", n=9)
    newest = answers(fw)
    assert newest != then
    assert fw.rollback(first.version if named else None) == first.version
    assert answers(fw) == then
    vote(fw, QUERY, "refund", n=50)
    assert answers(fw) == then
    assert fw.status().frozen_at is not None
    assert fw.refresh().outcome == "promoted"
    assert answers(fw) == then
    vote(fw, UNRELATED, "refund", n=50)
    assert answers(fw) == then
    assert fw.release()
    thawed = dict(answers(fw)[0])
    assert thawed["cats"] == pytest.approx(dict(newest[0])["cats"], abs=1e-5)
    assert thawed["refund"] > dict(newest[0])["refund"]
    assert answers(fw)[2] != then[2]
    assert (fw.release(), fw.status().frozen_at) == (False, None)
    assert fw.verify() == []


def test_removal_wins_over_rollback_and_additions_stay(
    fw: Flywheel, help_desk: list[Passage]
) -> None:
    fw.add(help_desk)
    first = fw.refresh().version
    fw.remove(["reset"])
    fw.add([Passage("added", "password reset by mail"), Passage("cats", "puppies run about")])
    fw.refresh()
    fw.rollback(first)
    for _ in range(2):
        found = fw.retrieve(QUERY)
        assert sorted(ids(found)) == ["added", "cats", "refund", "secret"]
        assert {h.text for h in found.hits if h.passage_id == "cats"} == {"puppies run about"}
        fw.refresh()


@pytest.mark.parametrize("seed", range(6))
def test_an_index_that_stayed_open_answers_as_one_opened_anew(
    tmp_path: Path, encoder: WordEncoder, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    words = [*QUERY.split(), *UNRELATED.split(), "my", "account", "page"]
    root = tmp_path / "kb"
    with Flywheel.open(root, encoder=encoder) as fw:
        for step in range(60):
            some = [f"p{i}" for i in rng.integers(0, 12, 3)]
            text = " ".join(rng.choice(words, rng.integers(1, 8)))
            present = {h.passage_id for h in fw.retrieve(QUERY, k=100).hits}
            match int(rng.integers(0, 12)):
                case 0 | 1 | 2:
                    fw.add([Passage(p, f"{p} {text}") for p in dict.fromkeys(some)])
                case 3:
                    fw.remove([p for p in some if p in present])
                case 4:
                    fw.refresh()
                case 5 if step % 3 == 0 and len(fw.versions()) > 2:
                    fw.rollback(fw.versions()[1].id)
                case 6:
                    fw.release()
                case _:
                    shown = fw.retrieve(text, k=100)
                    for hit in shown.hits[:2]:
                        verdict = rng.choice(["helpful", "harmful", "retract"])
                        fw.feedback(
                            shown.id, hit.passage_id, verdict, user_id=rng.choice(["a", "b"])
                        )
                        fw.feedback(shown.id, hit.passage_id, verdict)
            if step % 10 == 9:
                with Flywheel.open(root, encoder=encoder) as new:
                    for mine, fresh in zip(answers(fw), answers(new), strict=True):
                        assert dict(mine) == pytest.approx(dict(fresh), abs=1e-9)
