"""Judgments against a replay of the history, vote by vote."""

from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.curate.judgments import judgments
from rag_flywheel.records import Judgment, Verdict, VoteEvent

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


def test_the_last_verdict_of_a_user_counts() -> None:
    found = judgments([event(1, "harmful"), event(2, "helpful"), event(3, "helpful")])
    assert found == [Judgment(QUERIES[0], None, 5, helpful=1.0, harmful=0.0, votes=(3,))]


def test_a_retraction_leaves_nothing_and_a_vote_after_it_counts() -> None:
    assert judgments([event(1, "helpful"), event(2, "retract")]) == []
    assert judgments([event(1, "retract")]) == []
    found = judgments([event(1, "helpful"), event(2, "retract"), event(3, "harmful")])
    assert found == [Judgment(QUERIES[0], None, 5, helpful=0.0, harmful=1.0, votes=(3,))]


def test_a_retraction_takes_back_no_other_users_vote() -> None:
    votes = [event(1, "helpful"), event(2, "helpful", user_id="bob"), event(3, "retract")]
    assert judgments(votes) == [Judgment(QUERIES[0], None, 5, 1.0, 0.0, (2,))]


def test_votes_without_a_user_on_one_hit_are_one_voice() -> None:
    votes = [event(n, "helpful", user_id=None) for n in (1, 2, 3)]
    assert judgments(votes) == [Judgment(QUERIES[0], None, 5, 1.0, 0.0, (3,))]


def test_users_and_retrievals_of_the_same_query_add_up() -> None:
    votes = [
        event(1, "helpful"),
        event(2, "harmful", user_id="bob"),
        event(3, "helpful", user_id=None),
        event(4, "helpful", retrieval=2),
    ]
    assert judgments(votes) == [Judgment(QUERIES[0], None, 5, 3.0, 1.0, (1, 2, 3, 4))]


def test_tenants_queries_and_passages_are_kept_apart_in_the_order_of_their_first_vote() -> None:
    votes = [
        event(1, "helpful", retrieval=4),
        event(2, "helpful", retrieval=3),
        event(3, "helpful", lineage=9),
        event(4, "helpful", lineage=5),
        event(5, "helpful", user_id="bob", lineage=9),
    ]
    assert judgments(votes) == [
        Judgment(QUERIES[1], None, 5, 1.0, 0.0, (1,)),
        Judgment(QUERIES[0], '"acme"', 5, 1.0, 0.0, (2,)),
        Judgment(QUERIES[0], None, 9, 2.0, 0.0, (3, 5)),
        Judgment(QUERIES[0], None, 5, 1.0, 0.0, (4,)),
    ]


def test_no_votes_no_judgments() -> None:
    assert judgments([]) == []


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
                old.retrieval == vote.retrieval
                and old.lineage == vote.lineage
                and old.user_id == vote.user_id
            )
        ]
        if vote.verdict in ("helpful", "harmful"):
            standing.append(vote)
    groups: dict[tuple[bytes, str | None, int], list[VoteEvent]] = {}
    for vote in standing:
        groups.setdefault((vote.query, vote.tenant, vote.lineage), []).append(vote)
    return groups


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
            helpful=float(len([v for v in votes if v.verdict == "helpful"])),
            harmful=float(len([v for v in votes if v.verdict == "harmful"])),
            votes=tuple(v.seq for v in votes),
        )
        for (query, tenant, lineage), votes in replay(events).items()
    ]
    assert judgments(iter(events)) == expected


@given(st.lists(spoken, max_size=40), st.sampled_from(QUERIES))
def test_a_query_can_be_judged_on_its_own(history: list[Spoken], query: bytes) -> None:
    events = [
        event(seq, verdict, retrieval=retrieval, lineage=lineage, user_id=user)
        for seq, (retrieval, lineage, user, verdict) in enumerate(history)
    ]
    alone = judgments([vote for vote in events if vote.query == query])
    assert alone == [j for j in judgments(events) if j.query == query]
