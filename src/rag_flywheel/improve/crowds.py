"""Finds voters who look like one crowd, which how they agree with others cannot show.

Either newcomers, each with votes on a single question, who within an hour call the same unlikely
passage helpful, while hardly anybody who votes on the question then does not; or voters most of whose
helpful votes, over several questions, are on one and the same unlikely passage.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rag_flywheel.improve.examples import Floats, Ints
from rag_flywheel.improve.raters import Ballots

NEWCOMERS = 10  # who at least make a crowd
WITHIN_S = 3_600.0
PUSHERS = 2
_NEEDS = 3  # on which a voter pushes a passage, at least
_MOST_OF = 2.0 / 3.0  # of a voter's helpful votes
UNLIKELY = 0.2
TOGETHER = 3.0  # what a crowd weighs at most where others contradict it
_OTHERS = 2  # voters who contradict it, at least


def crowds_of(ballots: Ballots, need: Ints, text: Ints, at: Floats) -> list[Ints]:
    """The crowds, as voters, the largest first; nobody is in two.

    ballots.chances: as they are after calibration. need, text int64 (k,): the question and the passage
    text of each of the ballots' passages; at (n,): when each vote was cast, in seconds.
    """
    unlikely = ballots.helpful & (ballots.chances[ballots.passage] < UNLIKELY)
    found = [*_newcomers(ballots, need, at, unlikely), *_pushers(ballots, need, text, unlikely)]
    taken: set[int] = set()
    alone = []
    for members in sorted(found, key=lambda some: (-len(some), some)):
        own = [voter for voter in members if voter not in taken]
        if len(own) >= PUSHERS:
            taken.update(own)
            alone.append(np.array(own, dtype=np.int64))
    return alone


def contradicted(ballots: Ballots, members: Ints, need: Ints) -> bool:
    """Whether at least two others, who vote on several questions, vote otherwise on one of the crowd's: call
    its passages harmful, or another one helpful; and more of them than agree."""
    own = np.isin(ballots.voter, members) | (_n_needs(ballots, need) < 2)[ballots.voter]
    pushing = np.isin(ballots.voter, members) & ballots.helpful
    passages = np.unique(ballots.passage[pushing])
    on_needs = np.isin(need[ballots.passage], np.unique(need[passages])) & ~own
    pushed = np.isin(ballots.passage, passages)
    against = on_needs & (pushed != ballots.helpful)
    supports = on_needs & pushed & ballots.helpful
    n_against = len(np.unique(ballots.voter[against]))
    return n_against >= _OTHERS and n_against > len(np.unique(ballots.voter[supports]))


def _newcomers(
    ballots: Ballots, need: Ints, at: Floats, unlikely: npt.NDArray[np.bool_]
) -> list[list[int]]:
    n_needs = _n_needs(ballots, need)
    by_passage: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for i in np.flatnonzero(unlikely & (n_needs[ballots.voter] == 1)).tolist():
        by_passage[int(ballots.passage[i])].append((float(at[i]), int(ballots.voter[i])))
    found = []
    for passage, votes in by_passage.items():
        members = _burst(sorted(votes))
        if len(members) < NEWCOMERS:
            continue
        times = [when for when, voter in votes if voter in set(members)]
        meanwhile = (at >= min(times)) & (at <= max(times))
        voters = ballots.voter[meanwhile & (need[ballots.passage] == need[passage])]
        if len(members) >= _MOST_OF * len(np.unique(voters)):
            found.append(members)
    return found


def _n_needs(ballots: Ballots, need: Ints) -> Ints:
    """On how many questions each voter voted, (m,)."""
    n = int(ballots.voter.max(initial=-1)) + 1
    pairs = np.unique(np.stack([ballots.voter, need[ballots.passage]]), axis=1)
    return np.bincount(pairs[0], minlength=n)


def _burst(votes: Sequence[tuple[float, int]]) -> list[int]:
    """The voters, in the order of time, who are one of ten within an hour."""
    times = np.array([when for when, _ in votes])
    kept = np.zeros(len(votes), dtype=np.bool_)
    for first in range(len(votes) - NEWCOMERS + 1):
        last = first + NEWCOMERS - 1
        if times[last] - times[first] <= WITHIN_S:
            kept[first : last + 1] = True
    return sorted({votes[i][1] for i in np.flatnonzero(kept).tolist()})


def _pushers(
    ballots: Ballots, need: Ints, text: Ints, unlikely: npt.NDArray[np.bool_]
) -> list[list[int]]:
    helpful: dict[int, int] = defaultdict(int)
    for voter in ballots.voter[ballots.helpful].tolist():
        helpful[voter] += 1
    needs: dict[tuple[int, int], set[int]] = defaultdict(set)
    for i in np.flatnonzero(unlikely).tolist():
        passage = int(ballots.passage[i])
        needs[int(text[passage]), int(ballots.voter[i])].add(int(need[passage]))
    by_text: dict[int, list[int]] = defaultdict(list)
    for (pushed, voter), some in needs.items():
        if len(some) >= max(_NEEDS, _MOST_OF * helpful[voter]):
            by_text[pushed].append(voter)
    return [sorted(members) for members in by_text.values() if len(members) >= PUSHERS]
