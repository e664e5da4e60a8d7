"""What each kind of feedback weighs on a passage, before it is shared out: the one table of it.

docs/feedback.md shows the same table. It must not know how events are stored or counted.
"""

from collections.abc import Iterable, Mapping

from rag_flywheel.rank.posterior import NAMING
from rag_flywheel.store.event_types import Kind, VoteEvent

WEIGHTS: Mapping[Kind, float] = {
    "correction": NAMING,
    "vote": 1.0,
    "answer": 1.0,
    "adopted": 0.7,
    "task_done": 0.6,
    "rating": 0.6,
    "accepted": 0.5,
    "escalated": 0.5,
    "copied": 0.4,
    "edited": 0.4,
    "regenerated": 0.3,
    "rephrased": 0.3,
    "abandoned": 0.1,
}
EXPLICIT: frozenset[Kind] = frozenset({"correction", "vote"})
"""Kinds that are said of the passage itself: of these a user's last one stands."""
SAID: frozenset[Kind] = EXPLICIT | {"answer"}
"""Kinds that a user says; the others are signals, which only tell what a user did."""
MOST = 0.95  # that a signal weighs, however much it is trusted
_PRIOR = 20.0  # made-up comparisons that agree as often as the default weight says


def trusts(events: Iterable[VoteEvent]) -> dict[Kind, float]:
    """The factor for each kind of signal that can be compared with votes, {kind: 0 or more}.

    A signal is compared with the vote of the same user on the same hit, when both stand. It agrees
    with probability p, whose prior is Beta with mean (1 + w) / 2 at the default weight w and the
    weight of 20 comparisons; the weight after them is 2 p - 1, from 0 to 0.95.
    """
    last: dict[tuple[int, int, str | None], dict[Kind, VoteEvent]] = {}
    for event in events:
        last.setdefault((event.retrieval, event.lineage, event.user_id), {})[event.kind] = event
    counts: dict[Kind, list[float]] = {}
    for by_kind in last.values():
        vote = by_kind.get("vote")
        if vote is None or vote.verdict == "retract":
            continue
        for kind, event in by_kind.items():
            if kind not in SAID and event.credit > 0.0:
                agreed = event.verdict == vote.verdict
                counts.setdefault(kind, [0.0, 0.0])[not agreed] += event.credit
    return {kind: _trust(WEIGHTS[kind], *n) for kind, n in sorted(counts.items())}


def _trust(weight: float, agree: float, disagree: float) -> float:
    p = (_PRIOR * 0.5 * (1.0 + weight) + agree) / (_PRIOR + agree + disagree)
    return min(max(2.0 * p - 1.0, 0.0), MOST) / weight
