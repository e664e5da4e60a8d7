"""Judgments against a replay of the history, vote by vote."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.curate.judgments import ANONYMOUS_MOST, DAY_S, judgments
from rag_flywheel.records import Judgment, Verdict
from rag_flywheel.store.event_types import VoteEvent
from thorough import thorough

QUERIES = (b"q" * 16, b"r" * 16)
Spoken = tuple[int, int, str | None, Verdict]
# retrieval -> what it was about; two retrievals ask the same query, two tenants share a query
RETRIEVALS: dict[int, tuple[bytes, str | None]] = {
    1: (QUERIES[0], None),
    2: (QUERIES[0], None),
    3: (QUERIES[0], '"acme"'),
    4: (QUERIES[1], None),
}


def event(
    seq: int, verdict: Verdict, *, retrieval: int = 1, lineage: int = 5, user_id: str | None = "ann"
) -> VoteEvent:
    query, tenant = RETRIEVALS[retrieval]
    return VoteEvent(seq, retrieval, query, tenant, lineage, verdict, user_id, at=float(seq))


def judgment(
    helpful: float,
    harmful: float,
    votes: tuple[int, ...],
    *,
    retrieval: int = 1,
    lineage: int = 5,
    chosen: float = 0.0,
) -> Judgment:
    query, tenant = RETRIEVALS[retrieval]
    return Judgment(
        query, tenant, lineage, helpful, harmful, votes, retrieval, named=0.0, chosen=chosen
    )


def test_the_last_verdict_of_a_user_counts() -> None:
    found = judgments([event(1, "harmful"), event(2, "helpful"), event(3, "helpful")])
    assert found == [judgment(1.0, 0.0, (3,))]


def test_a_retraction_leaves_nothing_and_a_vote_after_it_counts() -> None:
    assert judgments([event(1, "helpful"), event(2, "retract")]) == []
    assert judgments([event(1, "retract")]) == []
    found = judgments([event(1, "helpful"), event(2, "retract"), event(3, "harmful")])
    assert found == [judgment(0.0, 1.0, (3,))]


def test_a_retraction_takes_back_no_other_users_vote() -> None:
    votes = [event(1, "helpful"), event(2, "helpful", user_id="bob"), event(3, "retract")]
    assert judgments(votes) == [judgment(1.0, 0.0, (2,))]


def test_votes_without_a_user_on_one_hit_are_one_voice() -> None:
    votes = [event(n, "helpful", user_id=None) for n in (1, 2, 3)]
    assert judgments(votes) == [judgment(1.0, 0.0, (3,))]


def test_users_and_retrievals_of_the_same_query_add_up() -> None:
    votes = [
        event(1, "helpful"),
        event(2, "harmful", user_id="bob"),
        event(3, "helpful", user_id=None),
        event(4, "helpful", retrieval=2),  # ann again, whose last word counts
        event(5, "helpful", retrieval=2, user_id=None),  # another asking: another voice
    ]
    assert judgments(votes) == [judgment(3.0, 1.0, (2, 3, 4, 5))]


def test_a_user_is_one_voice_on_a_question_however_often_it_is_asked() -> None:
    votes = [event(n, "helpful", retrieval=n % 2 + 1) for n in range(50)]
    assert judgments(votes) == [judgment(1.0, 0.0, (49,), retrieval=2)]
    votes.append(event(50, "harmful", retrieval=1))  # a change of mind at the next asking
    assert judgments(votes) == [judgment(0.0, 1.0, (50,), retrieval=1)]
    votes.append(event(51, "retract", retrieval=2))
    assert judgments(votes) == []


def test_votes_without_a_user_are_one_voice_a_session_and_together_a_few_people() -> None:
    one = [event(n, "helpful", retrieval=n % 2 + 1, user_id=None) for n in range(6)]
    same = [replace(vote, session="s") for vote in one]
    assert [j.helpful for j in judgments(same)] == [1.0]
    assert [j.helpful for j in judgments(one)] == [2.0]  # two askings
    many = [replace(one[0], seq=n, session=f"s{n}") for n in range(40)]
    assert [j.helpful for j in judgments(many)] == [ANONYMOUS_MOST]
    against = [replace(vote, verdict="harmful", seq=100 + vote.seq) for vote in many]
    ann = event(999, "helpful")
    assert [(j.helpful, j.harmful) for j in judgments([*against, ann])] == [(1.0, ANONYMOUS_MOST)]


def test_tenants_queries_and_passages_are_kept_apart_in_the_order_of_their_first_vote() -> None:
    votes = [
        event(1, "helpful", retrieval=4),
        event(2, "helpful", retrieval=3),
        event(3, "helpful", lineage=9),
        event(4, "helpful", lineage=5),
        event(5, "helpful", user_id="bob", lineage=9),
    ]
    assert judgments(votes) == [
        judgment(1.0, 0.0, (1,), retrieval=4),
        judgment(1.0, 0.0, (2,), retrieval=3),
        judgment(2.0, 0.0, (3, 5), lineage=9),
        judgment(1.0, 0.0, (4,)),
    ]


def test_the_retrieval_is_that_of_the_first_vote_that_stands() -> None:
    bob = {"retrieval": 2, "user_id": "bob"}
    votes = [event(1, "helpful", **bob), event(2, "harmful", retrieval=1)]
    assert [j.retrieval for j in judgments(votes)] == [2]
    votes.append(event(3, "retract", **bob))
    assert [j.retrieval for j in judgments(votes)] == [1]
    votes.append(event(4, "helpful", **bob))
    assert [j.retrieval for j in judgments(votes)] == [1]


def test_no_votes_no_judgments() -> None:
    assert judgments([]) == []
    assert judgments([], half_life_days=1.0, now=9.0) == []


def aged(seq: int, verdict: Verdict, days: float, user_id: str) -> VoteEvent:
    """A vote that was cast so many days before day 100."""
    at = (100.0 - days) * DAY_S
    return VoteEvent(seq, 1, QUERIES[0], None, 5, verdict, user_id, at)


NOW = 100.0 * DAY_S


@pytest.mark.parametrize(
    ("days", "weight"),
    [(0.0, 1.0), (30.0, 0.5), (60.0, 0.25), (90.0, 0.125), (15.0, 0.7071067811865476), (-5.0, 1.0)],
    ids=["new", "a half-life", "two", "three", "half of one", "a clock that was ahead"],
)
def test_a_vote_weighs_half_after_each_half_life(days: float, weight: float) -> None:
    for verdict in ("helpful", "harmful"):
        found = judgments([aged(1, verdict, days, "ann")], half_life_days=30.0, now=NOW)
        sums = (weight, 0.0) if verdict == "helpful" else (0.0, weight)
        assert [(j.helpful, j.harmful) for j in found] == [pytest.approx(sums)]


def test_weights_of_all_who_voted_add_up() -> None:
    votes = [
        aged(1, "helpful", 60.0, "ann"),
        aged(2, "harmful", 30.0, "bob"),
        aged(3, "helpful", 30.0, "cat"),
        aged(4, "helpful", 0.0, "dan"),
        aged(5, "retract", 0.0, "eve"),
    ]
    found = judgments(votes, half_life_days=30.0, now=NOW)
    assert found == [judgment(0.25 + 0.5 + 1.0, 0.5, (1, 2, 3, 4))]
    assert judgments(votes, now=NOW) == [judgment(3.0, 1.0, (1, 2, 3, 4))]


def test_voting_again_makes_a_vote_new() -> None:
    votes = [aged(1, "helpful", 60.0, "ann"), aged(2, "helpful", 0.0, "ann")]
    assert judgments(votes, half_life_days=30.0, now=NOW) == [judgment(1.0, 0.0, (2,))]


def test_a_very_old_vote_weighs_nothing_but_stands() -> None:
    found = judgments([aged(1, "harmful", 1e9, "ann")], half_life_days=0.001, now=NOW)
    assert found == [judgment(0.0, 0.0, (1,))]


spoken = st.tuples(
    st.sampled_from(sorted(RETRIEVALS)),
    st.integers(5, 7),
    st.sampled_from([None, "ann", "bob"]),
    st.sampled_from(["helpful", "harmful", "retract"]),
)


def replay(history: list[VoteEvent]) -> dict[tuple[bytes, str | None, int], list[VoteEvent]]:
    """What stands after each vote in turn has replaced, or taken back, the one before it."""
    standing: list[VoteEvent] = []
    for vote in history:
        standing = [
            old
            for old in standing
            if not (
                (old.query, old.tenant) == (vote.query, vote.tenant)
                and old.lineage == vote.lineage
                and old.voice == vote.voice
            )
        ]
        if vote.verdict in ("helpful", "harmful"):
            standing.append(vote)
    groups: dict[tuple[bytes, str | None, int], list[VoteEvent]] = {}
    for vote in standing:
        groups.setdefault((vote.query, vote.tenant, vote.lineage), []).append(vote)
    return groups


def weight(votes: list[VoteEvent], verdict: Verdict) -> float:
    users = [v.user_id is not None for v in votes if v.verdict == verdict]
    return sum(users) + min(float(users.count(False)), ANONYMOUS_MOST)


@thorough(40, few=10)
@given(st.lists(spoken, max_size=60))
def test_judgments_equal_a_replay(history: list[Spoken]) -> None:
    events = [
        event(seq, verdict, retrieval=retrieval, lineage=lineage, user_id=user)
        for seq, (retrieval, lineage, user, verdict) in enumerate(history, 10)
    ]
    expected = [
        Judgment(
            query,
            tenant,
            lineage,
            helpful=weight(votes, "helpful"),
            harmful=weight(votes, "harmful"),
            votes=tuple(v.seq for v in votes),
            retrieval=votes[0].retrieval,
        )
        for (query, tenant, lineage), votes in replay(events).items()
    ]
    assert judgments(iter(events)) == expected


@thorough(40, few=10)
@given(st.lists(spoken, max_size=40), st.sampled_from(QUERIES))
def test_a_query_can_be_judged_on_its_own(history: list[Spoken], query: bytes) -> None:
    events = [
        event(seq, verdict, retrieval=retrieval, lineage=lineage, user_id=user)
        for seq, (retrieval, lineage, user, verdict) in enumerate(history)
    ]
    alone = judgments([vote for vote in events if vote.query == query])
    assert alone == [j for j in judgments(events) if j.query == query]


@thorough(40, few=10)
@given(st.lists(spoken, max_size=40), st.floats(0.1, 100.0), st.floats(0.0, 100.0))
def test_a_half_life_changes_weights_alone(
    history: list[Spoken], half_life: float, days: float
) -> None:
    events = [
        event(seq, verdict, retrieval=retrieval, lineage=lineage, user_id=user)
        for seq, (retrieval, lineage, user, verdict) in enumerate(history)
    ]
    plain = judgments(events)
    found = judgments(events, half_life_days=half_life, now=days * DAY_S)
    cast = {vote.seq: vote for vote in events}
    for old, new in zip(plain, found, strict=True):
        sums = {"helpful": 0.0, "harmful": 0.0}
        for seq in new.votes:
            age = max(0.0, days - cast[seq].at / DAY_S)
            sums[cast[seq].verdict] += 2.0 ** (-age / half_life)
        assert (new.helpful, new.harmful) == pytest.approx(tuple(sums.values()), rel=1e-9)
        assert replace(new, helpful=old.helpful, harmful=old.harmful) == old


def shared(seq: int, verdict: Verdict, credit: float, **more: Any) -> VoteEvent:
    """What was said of a whole answer, for one hit of it."""
    return replace(event(seq, verdict, **more), credit=credit, kind="answer")


def test_what_is_said_of_the_answer_counts_by_its_part() -> None:
    votes = [shared(1, "helpful", 0.6), shared(1, "helpful", 0.25, lineage=6)]
    assert judgments(votes) == [
        judgment(0.6, 0.0, (1,), chosen=0.6),
        judgment(0.25, 0.0, (1,), lineage=6, chosen=0.25),
    ]


def test_how_much_a_passage_was_chosen_and_named_is_told_beside_what_it_got() -> None:
    """Chosen is its largest part in an answer, which other answers do not add to; a passage that
    users vote on or name was chosen by nobody, and naming has its own sum, as old as the rest."""
    votes = [
        shared(1, "helpful", 0.6),
        shared(2, "harmful", 0.9, user_id="bob"),
        event(3, "helpful", user_id="cid"),
        replace(event(4, "helpful", user_id="dan"), kind="correction"),
        replace(event(5, "helpful", user_id="eve"), kind="correction"),
    ]
    (found,) = judgments(votes)
    assert (found.chosen, found.named) == (0.9, 4.0)
    assert (found.helpful, found.harmful) == (pytest.approx(0.6 + 1.0 + 4.0), 0.9)
    (found,) = judgments(votes[2:4])
    assert (found.chosen, found.named) == (0.0, 2.0)
    old = [replace(vote, at=0.0) for vote in votes[2:4]]
    (found,) = judgments(old, half_life_days=1.0, now=DAY_S)
    assert (found.helpful, found.named) == (1.5, 1.0)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_users_vote_on_the_hit_outranks_theirs_on_the_answer(order: tuple[int, int]) -> None:
    kinds = [shared, lambda seq, verdict, credit: event(seq, verdict)]
    said = zip(order, ("harmful", "helpful"), strict=True)
    votes = [kinds[k](seq, verdict, 0.9) for seq, (k, verdict) in enumerate(said)]
    explicit = votes[order.index(1)]
    (found,) = judgments([*votes, shared(9, "harmful", 0.5, user_id="bob")])
    assert found.votes == (explicit.seq, 9)
    assert found.helpful == (explicit.verdict == "helpful")
    assert found.harmful == 0.5 + (explicit.verdict == "harmful")


def test_what_was_said_of_the_answer_counts_again_when_the_vote_on_the_hit_is_retracted() -> None:
    votes = [shared(1, "helpful", 0.5), event(2, "harmful"), event(3, "retract")]
    assert judgments(votes) == [judgment(0.5, 0.0, (1,), chosen=0.5)]
    assert judgments([*votes, shared(4, "retract", 0.0)]) == []


def test_the_last_vote_on_an_answer_stands_on_all_its_hits() -> None:
    votes = [shared(1, "helpful", 0.5), shared(2, "harmful", 0.0)]
    votes += [shared(2, "harmful", 0.7, lineage=6)]
    assert judgments(votes) == [judgment(0.0, 0.7, (2,), lineage=6, chosen=0.7)]


said = st.tuples(
    st.sampled_from(["vote", "answer"]),
    st.sampled_from([1, 2]),
    st.sampled_from([5, 6]),
    st.sampled_from(["ann", "bob", None]),
    st.sampled_from(["helpful", "harmful", "retract"]),
    st.floats(0.0, 1.0),
)


@thorough(200, few=50)
@given(st.lists(said, max_size=12))
def test_of_each_user_one_event_counts_on_a_hit_and_the_explicit_one_wins(
    history: list[tuple[str, int, int, str | None, Verdict, float]],
) -> None:
    votes = [
        replace(
            event(seq, verdict, retrieval=retrieval, lineage=lineage, user_id=user),
            kind=kind,
            credit=credit if kind == "answer" else 1.0,
        )
        for seq, (kind, retrieval, lineage, user, verdict, credit) in enumerate(history)
    ]
    counted = {(j.lineage, seq) for j in judgments(votes) for seq in j.votes}
    for voice, lineage in product({v.voice for v in votes}, (5, 6)):
        mine = [v for v in votes if (v.lineage, v.voice) == (lineage, voice)]
        last = {v.kind: v for v in mine}
        left = [v for v in last.values() if v.verdict != "retract" and v.credit > 0.0]
        winner = min(left, key=lambda v: v.kind != "vote", default=None)
        expected = set() if winner is None else {(lineage, winner.seq)}
        assert counted & {(lineage, v.seq) for v in mine} == expected
    for found in judgments(votes):
        assert found.helpful + found.harmful <= len(found.votes)
