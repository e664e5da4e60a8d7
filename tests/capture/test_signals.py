"""What users do with answers: weak evidence, believed as far as votes beside it say."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.curate.judgments import judgments
from rag_flywheel.curate.trust import MOST, trusts
from rag_flywheel.curate.weights import SAID, WEIGHTS
from rag_flywheel.records import Judgment, Signal
from rag_flywheel.store import votes
from rag_flywheel.store.event_types import VoteEvent
from thorough import thorough

QUERY = "how do I change my password"
DESK = [
    Passage("reset", "open settings and press reset to change the password"),
    Passage("secret", "the account page changes the login secret of my account"),
    Passage("refund", "how refunds are paid within thirty days"),
]


@pytest.fixture
def desk(fw: Flywheel) -> Flywheel:
    fw.add(DESK)
    return fw


def judged(fw: Flywheel) -> list[Judgment]:
    with closing(sqlite3.connect(Path(fw.status().path) / "flywheel.db")) as conn:
        return judgments(votes.votes_until(conn, 2**62))


def net(fw: Flywheel) -> float:
    """What is said of the first passage, helpful less harmful."""
    return sum(j.helpful - j.harmful for j in judged(fw) if j.lineage == 1)


SIGNALS: list[tuple[str, Any, float]] = [
    ("copied", None, 0.4),
    ("accepted", None, 0.5),
    ("regenerated", None, -0.3),
    ("abandoned", None, -0.1),
    ("rephrased", None, -0.3),
    ("escalated", None, -0.5),
    ("task_done", None, 0.6),
    ("task_done", True, 0.6),
    ("task_done", False, -0.6),
    ("rating", 5, 0.6),
    ("rating", 4, 0.3),
    ("rating", 3, 0.0),
    ("rating", 1, -0.6),
    ("rating", 4.5, 0.45),
    ("rating", 1.0, 0.6),
    ("rating", 0.0, -0.6),
    ("rating", 0.25, -0.3),
    ("edited", "one two three four", 0.4),
    ("edited", "nothing of it stayed", -0.4),
    ("edited", "one two other words", 0.0),
]


@pytest.mark.parametrize(("kind", "value", "weight"), SIGNALS)
def test_each_signal_weighs_what_the_table_says(
    desk: Flywheel, kind: Any, value: object, weight: float
) -> None:
    shown = desk.retrieve(QUERY)
    desk.answer(str(shown.id), "one two three four")
    desk.signal(shown.id, kind, value, passage_id="reset", user_id="ann")
    assert net(desk) == pytest.approx(weight)


def test_every_signal_is_in_the_code_and_the_docs_with_the_same_weight() -> None:
    assert (
        set(WEIGHTS) - SAID - {"adopted", "judge"}
        == set(get_args(Signal))
        == {kind for kind, _, _ in SIGNALS}
    )
    assert all(0 < WEIGHTS[kind] < 1 for kind in get_args(Signal))
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "feedback.md").read_text(
        encoding="utf-8"
    )
    documented = re.findall(r"^\| `(\w+)` \|.*\| ±?−?(0\.\d) \|$", text, flags=re.MULTILINE)
    assert {kind: float(w) for kind, w in documented} == {
        kind: WEIGHTS[kind] for kind in get_args(Signal)
    }


def test_without_a_passage_it_is_shared_and_weighs_less_than_its_weight(desk: Flywheel) -> None:
    shown = desk.retrieve(QUERY)
    desk.signal(shown.id, "accepted", user_id="ann")
    found = judged(desk)
    assert len(found) > 1
    assert sum(j.helpful for j in found) <= 0.5 + 1e-9
    desk.answer(str(shown.id), "The account page changes the login secret.")
    desk.signal(shown.id, "accepted", user_id="ann")
    best = max(judged(desk), key=lambda j: j.helpful)
    assert (best.lineage, best.helpful > 0.4) == (2, True)


def test_what_the_user_says_outranks_what_they_did(desk: Flywheel) -> None:
    shown = desk.retrieve(QUERY)
    desk.signal(shown.id, "accepted", passage_id="reset", user_id="ann")
    desk.answer_feedback(shown.id, "harmful", cited=["reset"], user_id="ann")
    desk.signal(shown.id, "copied", passage_id="reset", user_id="ann")
    assert net(desk) == -1.0
    desk.feedback(shown.id, "reset", "helpful", user_id="ann")
    assert net(desk) == 1.0
    desk.signal(shown.id, "copied", passage_id="reset", user_id="bob")
    assert net(desk) == pytest.approx(1.4)


def test_of_several_signals_of_a_user_the_weightiest_counts(desk: Flywheel) -> None:
    shown = desk.retrieve(QUERY)
    for kind in ("copied", "accepted", "abandoned"):
        desk.signal(shown.id, kind, passage_id="reset", user_id="ann")  # type: ignore[arg-type]
    assert net(desk) == pytest.approx(0.5)


def test_no_signal_is_not_a_bad_signal(desk: Flywheel) -> None:
    desk.retrieve(QUERY, user_id="ann", session_id="s")
    assert judged(desk) == []


def test_signals_make_no_answer_known_and_act_in_every_process(desk: Flywheel) -> None:
    shown = desk.retrieve(QUERY)
    with Flywheel.open(desk.status().path, encoder=WordEncoder()) as other:
        before = {h.passage_id: h.score for h in other.retrieve(QUERY, record=False).hits}
        for user in ("ann", "bob", "cid", "dan"):
            desk.signal(shown.id, "task_done", passage_id="secret", user_id=user)
        after = {h.passage_id: h.score for h in other.retrieve(QUERY, record=False).hits}
    assert after["secret"] > before["secret"]
    assert desk.golden.items() == []
    hit = desk.retrieve(QUERY, record=False).hits[0]
    assert [v.shared for v in desk.votes_behind(hit)] == [pytest.approx(2.4)]
    assert desk.verify() == []


def test_nothing_is_kept_of_who_opted_out_nor_of_a_final_text(desk: Flywheel) -> None:
    shown = desk.retrieve(QUERY)
    desk.answer(str(shown.id), "some words")
    desk.signal(shown.id, "edited", "some particular words", user_id="bob")
    desk.opt_out("ann")
    desk.signal(shown.id, "copied", user_id="ann")
    assert desk.status().n_votes == 1
    root = Path(desk.status().path)
    assert not any(b"particular" in p.read_bytes() for p in root.rglob("*") if p.is_file())


def rephrased(fw: Flywheel, *queries: str, session: str | None = "s") -> int:
    for query in queries:
        fw.retrieve(query, session_id=session, user_id="ann")
    return fw.status().n_votes


ALIKE = "how do I change password"


def test_a_question_in_other_words_blames_the_answer_before_it(desk: Flywheel) -> None:
    assert rephrased(desk, QUERY, ALIKE) == 1
    found = judged(desk)
    assert found and all(j.helpful == 0 < j.harmful < 0.3 for j in found)
    assert {j.retrieval for j in found} == {1}


@pytest.mark.parametrize(
    ("queries", "session"),
    [((QUERY, QUERY), "s"), ((QUERY, "kittens sleep"), "s"), ((QUERY, ALIKE), None)],
)
def test_the_same_or_another_question_or_none_of_a_session_blames_nobody(
    desk: Flywheel, queries: tuple[str, str], session: str | None
) -> None:
    assert rephrased(desk, *queries, session=session) == 0


def test_rephrasing_can_be_switched_off_and_takes_its_time(tmp_path: Path) -> None:
    for within in (0.0, 1e-9):
        config = Config(encoder="", rephrased_within_s=within)
        with Flywheel.open(tmp_path / str(within), encoder=WordEncoder(), config=config) as fw:
            fw.add(DESK)
            assert rephrased(fw, QUERY, ALIKE) == 0


def test_another_user_or_session_blames_nobody(desk: Flywheel) -> None:
    desk.retrieve(QUERY, session_id="s", user_id="ann")
    desk.retrieve(ALIKE, session_id="s", user_id="bob")
    desk.retrieve(ALIKE, session_id="t", user_id="ann")
    assert desk.status().n_votes == 0


def pairs(kind: Any, agree: int, disagree: int) -> list[VoteEvent]:
    """Signals for a passage, each with a vote of the same user on it."""
    found = []
    for n in range(agree + disagree):
        hit = (n, b"q" * 16, None, 5)
        said: Any = "helpful" if n < agree else "harmful"
        found.append(VoteEvent(2 * n, *hit, "helpful", "ann", 0.0, 1.0, kind))
        found.append(VoteEvent(2 * n + 1, *hit, said, "ann", 0.0))
    return found


def test_trust_is_the_default_without_votes_and_follows_them() -> None:
    assert trusts([]) == {}
    assert trusts(pairs("copied", 10, 0)[::2]) == {}  # nothing to compare with
    # by hand: p = (20 * 0.7 + 60) / (20 + 80) = 0.74, weight 0.48
    assert trusts(pairs("copied", 60, 20)) == {"copied": pytest.approx(0.48 / 0.4)}
    assert trusts(pairs("copied", 14, 6)) == {"copied": pytest.approx(1.0)}
    assert trusts(pairs("copied", 0, 100)) == {"copied": 0.0}
    assert trusts(pairs("copied", 10_000, 0)) == {"copied": pytest.approx(MOST / 0.4)}


@given(st.sampled_from(get_args(Signal)), st.integers(0, 60), st.integers(0, 60))
def test_a_signal_never_turns_round_nor_weighs_as_much_as_a_vote(
    kind: Any, agree: int, disagree: int
) -> None:
    for found, trust in trusts(pairs(kind, agree, disagree)).items():
        assert 0.0 <= WEIGHTS[found] * trust < 1.0


SIGNAL = st.tuples(
    st.sampled_from(get_args(Signal)),
    st.sampled_from(["helpful", "harmful"]),
    st.floats(0.0, 1.0),
    st.integers(0, 200),
)


@thorough(100, few=15)
@given(st.lists(SIGNAL, max_size=12), st.sampled_from(["helpful", "harmful"]), st.integers(0, 12))
def test_signals_never_outweigh_an_explicit_vote_on_the_same_hit(
    signals: list[tuple[Any, Any, float, int]], verdict: Any, at: int
) -> None:
    """Not before it nor after it, however many a user sends and however much they are trusted; and
    those of another user weigh less than it."""
    hit = (1, b"q" * 16, None, 5)
    trust = {kind: trusts(pairs(kind, n, 0)).get(kind, 1.0) for kind, _, _, n in signals}

    def events(user: str) -> list[VoteEvent]:
        return [
            VoteEvent(seq, *hit, way, user, 0.0, credit, kind, trust[kind])
            for seq, (kind, way, credit, _) in enumerate(signals)
        ]

    vote = VoteEvent(min(at, len(signals)), *hit, verdict, "ann", 0.0)
    mine = events("ann")
    mine.insert(vote.seq, vote)
    (judgment,) = judgments(mine)
    alone = (1.0, 0.0) if verdict == "helpful" else (0.0, 1.0)
    assert (judgment.helpful, judgment.harmful) == alone
    (judgment,) = judgments([*events("bob"), vote])
    assert (judgment.helpful > judgment.harmful) == (verdict == "helpful")


def test_a_refresh_learns_whom_to_believe_and_applies_it_everywhere(desk: Flywheel) -> None:
    for n in range(12):
        shown = desk.retrieve(f"{QUERY} {n}")
        desk.signal(shown.id, "copied", passage_id="reset", user_id="ann")
        desk.feedback(shown.id, "reset", "harmful", user_id="ann")
    shown = desk.retrieve("another password")
    desk.signal(shown.id, "copied", passage_id="reset", user_id="bob")
    assert judged(desk)[-1].helpful == pytest.approx(0.4)
    desk.refresh()
    weight = 2 * 14 / 32 - 1  # p = (20 * 0.7 + 0) / (20 + 12)
    assert weight < 0  # so they are believed no more
    assert [j for j in judged(desk) if j.helpful] == []
    with Flywheel.open(desk.status().path, encoder=WordEncoder()) as other:
        one, two = (
            {h.passage_id: h.score for h in fw.retrieve("another password", record=False).hits}
            for fw in (desk, other)
        )
        assert one == pytest.approx(two, abs=1e-6)
    assert desk.verify() == []


def test_trust_that_rests_on_no_vote_any_more_ends_with_the_next_refresh(desk: Flywheel) -> None:
    shown = [desk.retrieve(f"{QUERY} {n}") for n in range(12)]
    for each in shown:
        desk.signal(each.id, "copied", passage_id="reset", user_id="ann")
        desk.feedback(each.id, "reset", "harmful", user_id="ann")
    desk.refresh()
    other = desk.retrieve("another password")
    desk.signal(other.id, "copied", passage_id="reset", user_id="bob")
    assert [j for j in judged(desk) if j.helpful] == []
    for each in shown:
        desk.feedback(each.id, "reset", "retract", user_id="ann")
    desk.refresh()
    assert judged(desk)[-1].helpful == pytest.approx(0.4)


def test_whether_an_answer_was_used_weighs_less_than_a_vote_on_it(desk: Flywheel) -> None:
    shown = desk.retrieve(QUERY)
    desk.answer(str(shown.id), DESK[1].text)
    desk.adopted(shown.id, used=False, why="too long", user_id="ann")
    (worst,) = [j for j in judged(desk) if j.lineage == 2]
    assert 0.5 < worst.harmful <= 0.7
    desk.adopted(shown.id, used=True, user_id="ann")
    (best,) = [j for j in judged(desk) if j.lineage == 2]
    assert (best.harmful, best.helpful) == (0.0, worst.harmful)
    desk.answer_feedback(shown.id, "harmful", cited=["secret"], user_id="ann")
    assert [(j.helpful, j.harmful) for j in judged(desk) if j.lineage == 2] == [(0.0, 1.0)]
    assert desk.verify() == []


def test_an_answer_that_was_used_credits_the_passages_that_it_was_made_of(desk: Flywheel) -> None:
    shown = desk.retrieve(QUERY)
    desk.adopted(shown.id, used=True, cited=["secret"], user_id="ann")
    assert {j.lineage: (j.helpful, j.harmful) for j in judged(desk)} == {2: (0.7, 0.0)}
    desk.adopted(shown.id, used=True, cited=["reset", "secret"], user_id="ann")
    assert {j.lineage: j.helpful for j in judged(desk)} == {1: 0.35, 2: 0.35}
    desk.adopted(shown.id, used=True, cited=[], user_id="ann")
    assert [j for j in judged(desk) if j.helpful or j.harmful] == []


def test_relevance_judges_hits_at_once_and_leaves_the_others_alone(desk: Flywheel) -> None:
    shown = desk.retrieve(QUERY)
    assert desk.relevance(shown.id, {"reset": True, "refund": False}, user_id="ann") == 2
    found = {j.lineage: (j.helpful, j.harmful) for j in judged(desk)}
    assert found == {1: (1.0, 0.0), 3: (0.0, 1.0)}
    assert desk.relevance(shown.id, {}) == 0
    desk.opt_out("bob")
    assert desk.relevance(shown.id, {"reset": False}, user_id="bob") == 0
    desk.adopted(shown.id, used=False, why="particular reasons", user_id="bob")
    assert desk.status().n_votes == 2
