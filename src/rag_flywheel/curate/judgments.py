"""Votes become judgments: what counts of what was said.

The last verdict of a user on a hit counts, and a retraction undoes it. This module must not know
where votes are stored nor how judgments are used.
"""

from collections import defaultdict
from collections.abc import Iterable

from rag_flywheel.records import Judgment, VoteEvent

DAY_S = 86_400.0


def judgments(
    votes: Iterable[VoteEvent], *, half_life_days: float | None = None, now: float = 0.0
) -> list[Judgment]:
    """The judgments that these votes, in the order of their event numbers, add up to.

    One judgment for each (past query, tenant, passage text) that a verdict stands on, ordered by
    its first vote. Votes without a user id on the same hit are one voice: the last counts.
    half_life_days: a vote cast so long before `now` (seconds since 1970) weighs a half, and one
    twice as old a quarter; None: all weigh 1.
    """
    last: dict[tuple[int, int, str | None], VoteEvent] = {}
    for vote in votes:
        last[(vote.retrieval, vote.lineage, vote.user_id)] = vote
    standing: dict[tuple[bytes, str | None, int], list[VoteEvent]] = defaultdict(list)
    for vote in sorted(last.values(), key=lambda v: v.seq):
        if vote.verdict != "retract":
            standing[(vote.query, vote.tenant, vote.lineage)].append(vote)
    return [
        Judgment(
            query,
            tenant,
            lineage,
            helpful=_weight(found, "helpful", half_life_days, now),
            harmful=_weight(found, "harmful", half_life_days, now),
            votes=tuple(v.seq for v in found),
            retrieval=found[0].retrieval,
        )
        for (query, tenant, lineage), found in standing.items()
    ]


def _weight(
    votes: Iterable[VoteEvent], verdict: str, half_life_days: float | None, now: float
) -> float:
    cast = [v.at for v in votes if v.verdict == verdict]
    if half_life_days is None:
        return float(len(cast))
    ages = [max(0.0, now - at) / (half_life_days * DAY_S) for at in cast]
    return float(sum(0.5**age for age in ages))
