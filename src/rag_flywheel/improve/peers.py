"""Finds the peers of a voter: those who ask where the voter asks, apart from what others ask.

Users who want other answers and say so in their questions, by words of their own, ask questions that lie
close to each other. Then the questions around one member's are mostly those of the other members.
Whoever attacks what others ask has questions around theirs as anybody has.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from rag_flywheel.improve.examples import Floats, Ints

if TYPE_CHECKING:
    from scipy.sparse import csr_array

AROUND = 30  # questions that count as around one; fewer where there are few
_LEAST_AROUND, _SHARE_AROUND = 5, 0.1
_MORE_OFTEN = 1.5  # than around the questions of all voters
_ROUNDS = 4


@dataclass(frozen=True)
class Asking:
    """Who asks which of n questions, and which are around which.

    by: (m voters, n), 1 where a voter voted on the question; around: (n, n), 1 where a column's question
    is around a row's.
    """

    by: "csr_array"
    around: "csr_array"

    @classmethod
    def of(cls, voter: Ints, question: Ints, nearest: Ints) -> "Asking":
        """voter, question int64 (v,): of each vote; nearest int64 (n, k): the questions nearest to each of
        the n, of any tenant and itself among them; those without votes do not count."""
        from scipy.sparse import csr_array  # as in raters.py

        n, m = len(nearest), int(voter.max(initial=-1)) + 1
        pairs = np.unique(np.stack([voter, question]), axis=1)
        by = csr_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=(m, n))
        asked = by.sum(axis=0) > 0
        k = max(min(AROUND, int(_SHARE_AROUND * asked.sum())), _LEAST_AROUND)
        kept = asked[nearest] & (nearest != np.arange(n)[:, None]) & asked[:, None]
        kept &= np.cumsum(kept, axis=1) <= k
        row = np.nonzero(kept)[0]
        around = csr_array((np.ones(len(row)), (row, nearest[kept])), shape=(n, n))
        return cls(by, around)

    def peers(self, voter: int) -> Ints:
        """The voters whom one finds around the questions of this one, who is among them, and then around
        those of all of them, half as often again as around everybody's; empty: there is no such group."""
        group = np.zeros(self.by.shape[0])
        group[voter] = 1.0
        for _ in range(_ROUNDS):
            found = self._found_around(group)
            new = (found > _MORE_OFTEN * self._everywhere).astype(np.float64)
            if np.array_equal(new, group):
                break
            group = new
        return np.flatnonzero(group) if group[voter] else np.empty(0, dtype=np.int64)

    def apart(self, group: Ints) -> float:
        """The share of a group's own among the questions around theirs: those of which most voters are
        in it."""
        own = np.zeros(self.by.shape[0])
        own[group] = 1.0
        theirs = 2.0 * (own @ self.by) > self.by.sum(axis=0)
        n_around = self.around.sum(axis=1)
        asked = theirs & (n_around > 0)
        if not asked.any():
            return 0.0
        n_theirs = self.around @ theirs.astype(np.float64)
        return float((n_theirs[asked] / n_around[asked]).mean())

    @cached_property
    def _everywhere(self) -> Floats:
        return self._found_around(np.ones(self.by.shape[0]))

    def _found_around(self, group: Floats) -> Floats:
        """Each voter's share of those who ask around the questions of a group, (m,)."""
        found: Floats = self.by @ ((group @ self.by) @ self.around)
        return found / max(float(found.sum()), 1.0)
