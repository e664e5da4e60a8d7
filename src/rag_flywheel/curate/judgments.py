"""Votes become judgments: what counts of what was said.

The last verdict of a user on a hit counts, and a retraction undoes it. This module must not know
where votes are stored nor how judgments are used.
"""

from collections import defaultdict
from collections.abc import Iterable

from rag_flywheel.records import Judgment, VoteEvent


def judgments(votes: Iterable[VoteEvent]) -> list[Judgment]:
    """The judgments that these votes, in the order of their event numbers, add up to.

    One judgment for each (past query, tenant, passage text) that a verdict stands on, ordered by
    its first vote. Votes without a user id on the same hit are one voice: the last counts.
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
            helpful=float(sum(v.verdict == "helpful" for v in found)),
            harmful=float(sum(v.verdict == "harmful" for v in found)),
            votes=tuple(v.seq for v in found),
        )
        for (query, tenant, lineage), found in standing.items()
    ]
