"""The public API: what votes do to the answers that follow, and what undoes it."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakes import WordEncoder
from plain_model import KERNEL, ids, scored, scores, shared_out, spellings
from rag_flywheel import Candidate, Config, Flywheel, Passage, Vote
from rag_flywheel.errors import InputError

QUERY, SIMILAR, UNRELATED = "reset password", "reset my password", "kittens sleep"
OPEN = "account password"  # a query with two likely answers: reset and secret


def evidence(fw: Flywheel, query: str, passage_id: str) -> float:
    found = fw.retrieve(query, k=1000, record=False)
    return {h.passage_id: h.explanation.evidence for h in found.hits}[passage_id]


def vote(
    fw: Flywheel, query: str, passage_id: str, verdict: str = "helpful", n: int = 1, times: int = 1
) -> None:
    """n users say the same, on each of so many past queries that look like this one."""
    for shown in fw.retrieve_many(spellings(query, times), k=1000):
        fw.feedback_many(
            Vote(shown.id, passage_id, verdict, f"user {i}")  # type: ignore[arg-type]
            for i in range(n)
        )


def test_votes_act_on_the_next_answer_and_their_retraction_undoes_them_exactly(
    fw: Flywheel, help_desk: list[Passage]
) -> None:
    fw.add(help_desk)
    before = fw.retrieve(QUERY)
    assert ids(before)[0] == "reset"
    shown = fw.retrieve(QUERY)
    for i in range(6):
        fw.feedback(shown.id, "secret", "helpful", user_id=f"user {i}", reason="the right page")
    after = fw.retrieve(QUERY)
    assert ids(after) == ["secret", *(p for p in ids(before) if p != "secret")]
    expected = scored(shared_out(scores(before)), [], KERNEL.n0, {"secret": 6})
    assert scores(after) == pytest.approx(expected, abs=1e-5)
    for hit in after.hits:
        parts = hit.explanation.intercept + sum(hit.explanation.terms.values())
        assert parts + hit.explanation.evidence == pytest.approx(hit.score, abs=1e-6)
        assert (hit.explanation.evidence > 0) == (hit.passage_id == "secret")
    with closing(sqlite3.connect(Path(fw.status().path) / "flywheel.db")) as conn:
        cast = [r[0] for r in conn.execute("SELECT seq FROM votes")]
    assert sorted(after.hits[0].explanation.votes) == cast
    assert [h.explanation.votes for h in after.hits[1:]] == [()] * 3
    for i in range(6):
        fw.feedback(shown.id, "secret", "retract", user_id=f"user {i}")
    undone = fw.retrieve(QUERY)
    assert [(h.passage_id, h.score, h.explanation) for h in undone.hits] == [
        (h.passage_id, h.score, h.explanation) for h in before.hits
    ]


def test_who_says_what_how_often(fw: Flywheel, help_desk: list[Passage]) -> None:
    fw.add(help_desk)
    shown = fw.retrieve(OPEN)
    prior = shared_out(scores(shown))

    def say(verdict: str, user: str | None) -> dict[str, float]:
        fw.feedback(shown.id, "secret", verdict, user_id=user)  # type: ignore[arg-type]
        return scores(fw.retrieve(OPEN, record=False))

    steps = [
        (("helpful", "ann"), 1),
        (("helpful", "ann"), 1),  # the same user again
        (("harmful", "ann"), -1),  # the last verdict counts
        (("helpful", "bob"), 0),
        (("helpful", "ann"), 2),  # two users add up
        (("helpful", None), 3),
        (("helpful", None), 3),  # votes without a user are one voice
        (("retract", "carol"), 3),  # she never voted
        (("retract", "bob"), 2),
        (("retract", None), 1),
        (("harmful", None), 0),
    ]
    for said, net in steps:
        expected = scored(prior, [], KERNEL.n0, {"secret": net})
        assert say(*said) == pytest.approx(expected, abs=1e-5), said


def test_a_harmful_vote_lowers_its_passage_against_the_others(
    fw: Flywheel, help_desk: list[Passage]
) -> None:
    fw.add(help_desk)
    before = fw.retrieve(OPEN)
    assert ids(before)[:2] == ["reset", "secret"]
    fw.feedback(before.id, "reset", "harmful")
    once = fw.retrieve(OPEN)
    assert scores(once)["reset"] < scores(before)["reset"]
    assert scores(once)["secret"] > scores(before)["secret"]
    vote(fw, OPEN, "reset", "harmful", n=20)
    after = fw.retrieve(OPEN)
    assert ids(after) == [*(p for p in ids(before) if p != "reset"), "reset"]
    assert [h.explanation.evidence < 0 for h in after.hits] == [False] * 3 + [True]


def test_votes_count_for_similar_queries_and_only_for_them(
    fw: Flywheel, encoder: WordEncoder, help_desk: list[Passage]
) -> None:
    fw.add(help_desk)
    queries = [QUERY, SIMILAR, UNRELATED]
    before = fw.retrieve_many(queries, record=False)
    vote(fw, QUERY, "secret", n=3)
    vote(fw, QUERY, "reset", "harmful", n=2)
    same, similar, unrelated = fw.retrieve_many(queries, record=False)
    own = {"secret": 3, "reset": -2}
    expected = scored(shared_out(scores(before[0])), [], KERNEL.n0, own)
    assert scores(same) == pytest.approx(expected, abs=1e-5)
    assert scores(similar)["secret"] > scores(before[1])["secret"] + 0.3
    assert scores(similar)["secret"] < scores(same)["secret"] - 0.3
    assert [(h.passage_id, h.score) for h in unrelated.hits] == list(scores(before[2]).items())


LETTERS = [chr(97 + i // 10) + chr(97 + i % 10) for i in range(40)]
WORDS = [f"word{letters}" for letters in LETTERS]


def with_changes(n: int, salt: str = "new") -> Passage:
    """A text of 40 words of which the first n are others."""
    return Passage("a", " ".join([salt + letters for letters in LETTERS[:n]] + WORDS[n:]))


def test_a_passage_with_helpful_votes_is_ranked_though_no_search_finds_it(
    tmp_path: Path, encoder: WordEncoder
) -> None:
    config = Config(encoder="", n_candidates=1)
    with Flywheel.open(tmp_path / "kb", encoder=encoder, config=config) as fw:
        fw.add([Passage(f"p{i}", f"reset password {i}", "", {"n": i}) for i in range(50)])
        fw.add([with_changes(0)])
        fw.refresh()
        vote(fw, QUERY, "a", n=20, times=12)
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
    fw.add([with_changes(0), Passage("b", f"{WORDS[0]} of another")])
    if refreshed:
        fw.refresh()
    vote(fw, f"{WORDS[0]} {WORDS[39]}", "a")
    full = evidence(fw, f"{WORDS[0]} {WORDS[39]}", "a")
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
        assert (evidence(fw, f"{WORDS[0]} {WORDS[39]}", "a") > 0) == kept, n
    fw.remove(["a"])
    fw.add([with_changes(0)])
    assert evidence(fw, f"{WORDS[0]} {WORDS[39]}", "a") == pytest.approx(full, abs=1e-4)


def test_votes_do_not_drift_over_many_small_edits(fw: Flywheel) -> None:
    fw.add([with_changes(0)])
    vote(fw, WORDS[39], "a")
    for n in range(1, 15):
        fw.add([with_changes(n)])
        assert (evidence(fw, WORDS[39], "a") > 0) == (n <= 2), n
    fw.add([with_changes(0)])
    assert evidence(fw, WORDS[39], "a") > 0


def test_votes_come_back_with_the_text_after_any_number_of_edits(fw: Flywheel) -> None:
    fw.add([with_changes(0)])
    vote(fw, WORDS[39], "a")
    for i in range(25):
        fw.add([with_changes(30, salt=f"edit{i}-")])
    fw.add([with_changes(0)])
    assert evidence(fw, WORDS[39], "a") > 0


def test_tenants_do_not_hear_each_others_votes(tmp_path: Path, encoder: WordEncoder) -> None:
    config = Config(encoder="", tenant_key="team", tenant_required=False)
    given = [Candidate("x", "first text", 2.0), Candidate("y", "second text", 1.0)]
    ours, theirs = {"team": "ours"}, {"team": "theirs"}
    with Flywheel.open(tmp_path / "kb", encoder=encoder, config=config) as fw:
        fw.add([Passage(p, f"reset {p} it", "", ours) for p in ("a", "b")])
        fw.add([Passage("c", "reset password", "", theirs)])
        before = fw.rerank(QUERY, given, where=ours)
        retrieved = fw.retrieve(UNRELATED, where=ours)
        everyone = fw.retrieve_many([QUERY, UNRELATED], record=False)
        for query in spellings(QUERY, 8):
            shown = fw.rerank(query, given, where=ours)
            fw.feedback_many([Vote(shown.id, "y", "helpful", f"user {i}") for i in range(9)])
        fw.feedback(retrieved.id, "a", "helpful")
        for _ in range(2):
            assert ids(fw.rerank(QUERY, given, where=ours)) == ["y", "x"]
            for where in (theirs, None, {"team": 1}):
                assert scores(fw.rerank(QUERY, given, where=where)) == scores(before)
            found = fw.retrieve(UNRELATED, where=ours, record=False)
            assert sorted(ids(found)) == ["a", "b"]
            assert scores(found)["a"] > scores(retrieved)["a"]
            again = fw.retrieve_many([QUERY, UNRELATED], record=False)
            for old, new in zip(everyone, again, strict=True):
                assert scores(new) == pytest.approx(scores(old), abs=1e-5)
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
    vote(fw, QUERY, "cats", n=50, times=3)
    fw.refresh()
    vote(fw, SIMILAR, "refund", "harmful", n=9)
    newest = answers(fw)
    assert newest != then
    assert fw.rollback(first.version if named else None) == first.version
    assert answers(fw) == then
    held_back = fw.retrieve(QUERY)
    votes = [Vote(held_back.id, "refund", "helpful", f"user {i}") for i in range(50)]
    fw.feedback_many(votes)
    assert answers(fw) == then
    assert fw.status().frozen_at is not None
    assert fw.refresh().outcome == "promoted"
    assert answers(fw) == then
    vote(fw, UNRELATED, "refund", n=50)
    assert answers(fw) == then
    fw.feedback_many(replace(v, verdict="retract") for v in votes)
    assert answers(fw) == then
    assert fw.release()
    for thawed, before in zip(answers(fw)[:2], newest[:2], strict=True):
        assert dict(thawed) == pytest.approx(dict(before), abs=1e-5)
    assert dict(answers(fw)[2])["refund"] > dict(newest[2])["refund"]
    assert (fw.release(), fw.status().frozen_at) == (False, None)
    assert fw.verify() == []


def test_a_held_version_stays_live_until_release(fw: Flywheel, help_desk: list[Passage]) -> None:
    fw.add(help_desk)
    first = fw.refresh().version
    vote(fw, QUERY, "cats", n=5)
    fw.refresh()
    assert fw.rollback(hold=True) == first
    assert fw.status().held
    vote(fw, QUERY, "refund", n=5)
    fw.remove(["reset"])
    report = fw.refresh()
    assert (report.outcome, report.version) == ("unchanged", first)
    assert "held live until release" in report.reason
    assert "reset" not in ids(fw.retrieve(QUERY))  # removals still act at once
    assert fw.release()
    assert not fw.status().held
    assert fw.refresh().outcome == "promoted"


def test_release_lets_refreshes_go_on_where_no_vote_was_held_back(
    fw: Flywheel, help_desk: list[Passage]
) -> None:
    fw.add(help_desk)
    live = fw.refresh().version
    fw.rollback(live, hold=True)
    assert fw.release()
    assert not fw.release()


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


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 6))]
)
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


@pytest.mark.parametrize("refreshed", [False, True])
def test_the_very_last_vote_counts_for_who_opens_the_index_after_it(
    fw: Flywheel, help_desk: list[Passage], refreshed: bool
) -> None:
    fw.add(help_desk)
    if refreshed:
        fw.refresh()
    shown = fw.retrieve(OPEN)
    fw.feedback(shown.id, "secret", "helpful", user_id="ann")
    with Flywheel.open(fw.status().path, encoder=WordEncoder()) as other:
        heard = evidence(other, OPEN, "secret")
        assert heard == pytest.approx(evidence(fw, OPEN, "secret"), abs=1e-9)
        assert heard > 0
