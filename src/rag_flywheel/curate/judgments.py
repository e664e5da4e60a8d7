"""Turns votes into judgments.

A user is one voice on a passage as the answer of a question, however often the question is asked: the
last verdict counts, and a retraction undoes it. A verdict on the hit itself outranks one on the whole
answer. Of votes without a user id, those of a session are one voice, and without a session those of
one asking are; together they weigh no more than a few users.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from rag_flywheel.curate.weights import EXPLICIT, SAID, WEIGHTS
from rag_flywheel.records import Judgment
from rag_flywheel.store.event_types import VoteEvent

DAY_S = 86_400.0
NO_WEIGHTS: Mapping[str, float] = MappingProxyType({})
_NOT_CHOSEN = EXPLICIT | {"judge"}  # that nobody wrote the answer from
ANONYMOUS_MOST = 3.0  # what all votes without a user id weigh at most, for a passage or against it


def judgments(
    votes: Iterable[VoteEvent],
    weights: Mapping[str, float] = NO_WEIGHTS,
    *,
    half_life_days: float | None = None,
    now: float = 0.0,
) -> list[Judgment]:
    """The judgments that these votes, in the order of their event numbers, add up to.

    Where some were imported, the last word of a voice is that of the latest time.

    One judgment for each (past query, tenant, passage text) that a verdict stands on, ordered by
    its first vote.
    weights: of users, by their hashes; that of all others is 1. Votes of weight 0 are left out.
    half_life_days: a vote cast so long before `now` (seconds since 1970) weighs a half, and one
    twice as old a quarter; with None, age does not matter.
    """
    standing: dict[tuple[bytes, str | None, int], list[VoteEvent]] = defaultdict(list)
    for vote in standing_votes(votes):
        if vote.user_id is None or weights.get(vote.user_id, 1.0) > 0.0:
            standing[vote.query, vote.tenant, vote.lineage].append(vote)

    def summed(some: Iterable[VoteEvent]) -> tuple[float, float]:
        return _sums(some, weights, half_life_days, now)

    return [
        Judgment(
            *key,
            *summed(found),
            tuple(v.seq for v in found),
            found[0].retrieval,
            summed(v for v in found if v.kind == "correction")[0],
            max((v.credit for v in found if v.kind not in _NOT_CHOSEN), default=0.0),
        )
        for key, found in standing.items()
    ]


def standing_votes(votes: Iterable[VoteEvent]) -> list[VoteEvent]:
    """The one event of each voice that stands on each passage text for each question, by event number.

    Of each kind it is the last, unless that is a retraction or gives the hit no credit. A verdict
    on the hit outranks one on the answer, which outranks signals, of which the heaviest stands.
    """
    last: dict[tuple[_Voice, str], VoteEvent] = {}
    for vote in in_order(votes):
        place = _voice(vote), vote.kind
        last[place] = _with_copies(vote, last.get(place))
    standing: dict[_Voice, VoteEvent] = {}
    for (voice, _), vote in last.items():
        if vote.verdict != "retract" and _weight(vote) > 0.0:
            before = standing.get(voice)
            if before is None or _outranks(vote, before):
                standing[voice] = vote
    return sorted(standing.values(), key=lambda v: (v.seq, v.lineage))


def in_order(votes: Iterable[VoteEvent]) -> list[VoteEvent]:
    """Votes, given by their numbers, as they were cast: by their numbers, and where one of them was imported,
    by their times."""
    every = list(votes)
    if any(vote.imported for vote in every):
        every.sort(key=lambda vote: vote.at)
    return every


def superseded_elsewhere(
    votes: Iterable[VoteEvent], standing: Collection[tuple[int, int]], retrievals: Collection[int]
) -> set[tuple[int, int]]:
    """The events on other retrievals that do not stand because of events of the same voice on these.

    standing: (event number, lineage) of those that stand; an event stands on no passage where the last
    word on it was a retraction.
    """
    by_voice: dict[_Voice, list[VoteEvent]] = defaultdict(list)
    for vote in in_order(votes):
        by_voice[_voice(vote)].append(vote)
    found = set()
    for said in by_voice.values():
        last = {vote.kind: vote.retrieval in retrievals for vote in said}
        outranked = any(
            (vote.seq, vote.lineage) in standing and vote.retrieval in retrievals for vote in said
        )
        found |= {
            (vote.seq, vote.lineage)
            for vote in said
            if (outranked or last[vote.kind]) and vote.retrieval not in retrievals
        }
    return found - set(standing)


_Voice = tuple[bytes, str | None, int, str]
"""A question, its tenant, a passage text, and whose word on it."""


def _voice(vote: VoteEvent) -> _Voice:
    return vote.query, vote.tenant, vote.lineage, vote.voice


def _with_copies(vote: VoteEvent, before: VoteEvent | None) -> VoteEvent:
    """A vote on an answer that showed copies of a passage: it gives the text what it gives to both."""
    if before is None or before.seq != vote.seq:
        return vote
    return replace(vote, credit=min(1.0, vote.credit + before.credit))


def _weight(vote: VoteEvent) -> float:
    return WEIGHTS[vote.kind] * vote.credit * vote.trust


def _outranks(vote: VoteEvent, other: VoteEvent) -> bool:
    """Whether a vote stands, and not another of the same voice that is of another kind."""
    ours, theirs = _rank(vote), _rank(other)
    if ours != theirs:
        return ours > theirs
    if vote.imported or other.imported:
        return (vote.at, vote.seq) > (other.at, other.seq)
    return vote.seq > other.seq


def _rank(vote: VoteEvent) -> tuple[bool, bool, float]:
    signal = vote.kind not in SAID
    return vote.kind in EXPLICIT, not signal, _weight(vote) if signal else 0.0


def _sums(
    votes: Iterable[VoteEvent],
    weights: Mapping[str, float],
    half_life_days: float | None,
    now: float,
) -> tuple[float, float]:
    """The summed weights of the (helpful, harmful) votes."""
    sums, anonymous = {"helpful": 0.0, "harmful": 0.0}, {"helpful": 0.0, "harmful": 0.0}
    for vote in votes:
        weight = _weight(vote)
        if vote.user_id is not None:
            weight *= weights.get(vote.user_id, 1.0)
        if half_life_days is not None:
            weight *= 0.5 ** (max(0.0, now - vote.at) / (half_life_days * DAY_S))
        of = anonymous if vote.user_id is None else sums
        of[vote.verdict] += weight
    helpful, harmful = (
        sums[verdict] + min(anonymous[verdict], ANONYMOUS_MOST)
        for verdict in ("helpful", "harmful")
    )
    return helpful, harmful
