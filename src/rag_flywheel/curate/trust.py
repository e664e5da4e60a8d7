"""Estimates the trust in each kind of signal, and in language models, from votes on the same hits, at a
refresh."""

from collections.abc import Iterable

from rag_flywheel.curate.source import Source
from rag_flywheel.curate.weights import SAID, WEIGHTS
from rag_flywheel.store import votes
from rag_flywheel.store.database import Database
from rag_flywheel.store.event_types import Kind, VoteEvent
from rag_flywheel.store.votes import has_signals, replace_trusts

MOST = 0.95  # the largest weight of a signal
_PRIOR = 20.0  # made-up comparisons that agree as often as the default weight says


def calibrate(database: Database, source: Source, *, until: int) -> None:
    """Estimate the trust in each kind of signal from events up to a number, and store it.

    source: how the index reads events.
    """
    with database.snapshot() as conn:
        if not has_signals(conn):
            return
        estimated = trusts(source.heard(votes.votes_until(conn, until)))
    with database.transaction() as conn:
        replace_trusts(conn, {str(kind): trust for kind, trust in estimated.items()})


def trusts(events: Iterable[VoteEvent]) -> dict[Kind, float]:
    """The factor for each kind of signal that can be compared with votes, {kind: 0 or more}.

    A signal is compared with the vote of the same user on the same hit, when both stand, and a language
    model's verdict with the votes of all users on it. It agrees
    with probability p, whose prior is Beta with mean (1 + w) / 2 at the default weight w and the
    weight of 20 comparisons; the weight after them is 2 p - 1, from 0 to 0.95.
    """
    last: dict[tuple[int, int, str | None], dict[Kind, VoteEvent]] = {}
    for event in events:
        last.setdefault((event.retrieval, event.lineage, event.user_id), {})[event.kind] = event
    counts: dict[Kind, list[float]] = {}
    by_users: dict[tuple[int, int], list[VoteEvent]] = {}
    for (retrieval, lineage, _), by_kind in last.items():
        vote = by_kind.get("vote")
        if vote is None or vote.verdict == "retract":
            continue
        by_users.setdefault((retrieval, lineage), []).append(vote)
        for kind, event in by_kind.items():
            if kind not in SAID and kind != "judge" and event.credit > 0.0:
                agreed = event.verdict == vote.verdict
                counts.setdefault(kind, [0.0, 0.0])[not agreed] += event.credit
    for (retrieval, lineage, _), by_kind in last.items():
        judged = by_kind.get("judge")
        if judged is not None and judged.credit > 0.0 and judged.verdict != "retract":
            for vote in by_users.get((retrieval, lineage), ()):
                agreed = judged.verdict == vote.verdict
                counts.setdefault("judge", [0.0, 0.0])[not agreed] += judged.credit
    return {kind: _trust(WEIGHTS[kind], *n) for kind, n in sorted(counts.items())}


def _trust(weight: float, agree: float, disagree: float) -> float:
    p = (_PRIOR * 0.5 * (1.0 + weight) + agree) / (_PRIOR + agree + disagree)
    return min(max(2.0 * p - 1.0, 0.0), MOST) / weight
