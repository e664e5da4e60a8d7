"""Which rows have a number, where rows of numbers are added all the time: texts as their words, or
words as their n-grams.

The newest rows are looked through one by one. The others are in parts that are sorted by number; parts
of like size are merged, so that there are few of them and an entry is sorted few times.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.growing import GrowingArray
from rag_flywheel.index.spans import places_of

Ints = npt.NDArray[np.int64]
Ints32 = npt.NDArray[np.int32]
_UNSORTED = 16_384  # entries of the newest rows
_LARGEST_PART = 4_000_000  # entries that are sorted at a time


@dataclass(frozen=True)
class Found:
    """Pairs of a number that was asked for and a row that has it, each once: (k,) each.

    which: the place of the number among those asked for; count: how often the row has it. For each row
    the places ascend.
    """

    which: Ints
    row: Ints
    count: Ints


@dataclass(frozen=True)
class _Part:
    """Rows first to end - 1 by number: those with numbers[i] are rows[starts[i]:starts[i + 1]]."""

    first: int
    end: int
    n_entries: int
    numbers: Ints32
    starts: Ints
    rows: Ints32
    counts: Ints32

    @classmethod
    def of(cls, ids: Ints32, lengths: Ints, first: int) -> "_Part":
        """From rows that have so many numbers each, one after the other."""
        from scipy import sparse

        n_numbers = int(ids.max(initial=-1)) + 1
        starts = np.append(0, np.cumsum(lengths))
        once = np.ones(len(ids), dtype=np.int32)
        shape = len(lengths), n_numbers
        sorted_ = sparse.csr_matrix((once, ids, starts), shape=shape).tocsc()
        sorted_.sum_duplicates()
        numbers = np.flatnonzero(np.diff(sorted_.indptr))
        ends = sorted_.indptr[np.append(numbers, n_numbers)].astype(np.int64)
        rows = (sorted_.indices + first).astype(np.int32)
        end, counts = first + len(lengths), sorted_.data.astype(np.int32)
        return cls(first, end, len(ids), numbers.astype(np.int32), ends, rows, counts)

    def having(self, numbers: Ints) -> tuple[Ints, npt.NDArray[Any], npt.NDArray[Any]]:
        """Place of the number, row and count of each pair."""
        if not len(self.numbers):
            none = np.empty(0, dtype=np.int32)
            return np.empty(0, dtype=np.int64), none, none
        at = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
        there = np.flatnonzero(self.numbers[at] == numbers)
        starts = self.starts[at[there]]
        lengths = self.starts[at[there] + 1] - starts
        places = places_of(starts, lengths)
        return np.repeat(there, lengths), self.rows[places], self.counts[places]


class _Room:
    """The append-only arrays that successive postings share; each reads below its own lengths."""

    def __init__(self) -> None:
        self.ids = GrowingArray(np.int32)
        self.starts = GrowingArray(np.int64)  # one more than there are rows
        self.starts.append([0])


@dataclass(frozen=True, eq=False)
class Postings:
    """The first n rows of a room. Postings never change; `with_rows` makes the next."""

    n: int
    _parts: tuple[_Part, ...]
    _room: _Room

    @classmethod
    def empty(cls) -> "Postings":
        """No rows."""
        return cls(0, (), _Room())

    def with_rows(self, ids: Ints32, lengths: Ints) -> "Postings":
        """These and further rows, of so many numbers each, one row after the other.

        Raises ValueError when other rows were added to the same postings before.
        """
        room = self._room
        if room.starts.n != self.n + 1:
            raise ValueError("other rows were added to these postings before")
        start = room.ids.n
        room.ids.append(ids)
        room.starts.append(start + np.cumsum(lengths))
        return Postings(self.n + len(lengths), self._parts, room)._sorted()

    def _sorted(self) -> "Postings":
        """The same rows, the newest of them sorted when they are many."""
        first = self._parts[-1].end if self._parts else 0
        if int(self._starts[self.n] - self._starts[first]) <= _UNSORTED:
            return self
        parts = [*self._parts, self._part(first, self.n)]
        while len(parts) > 1 and parts[-2].n_entries <= 2 * parts[-1].n_entries:
            if parts[-2].n_entries + parts[-1].n_entries > _LARGEST_PART:
                break
            parts[-2:] = [self._part(parts[-2].first, parts[-1].end)]
        return Postings(self.n, tuple(parts), self._room)

    def _part(self, first: int, end: int) -> _Part:
        starts = self._starts
        ids = self.ids[starts[first] : starts[end]]
        return _Part.of(ids, np.diff(starts[first : end + 1]), first)

    @property
    def ids(self) -> Ints32:
        """The numbers of all rows, one row after the other."""
        ids: Ints32 = self._room.ids.first(int(self._starts[self.n]))
        return ids

    @property
    def _starts(self) -> Ints:
        starts: Ints = self._room.starts.first(self.n + 1)
        return starts

    def lengths(self) -> Ints:
        """How many numbers each row has, (n,)."""
        lengths: Ints = np.diff(self._starts)
        return lengths

    def at(self, rows: Ints) -> tuple[Ints32, Ints]:
        """The numbers of these rows, one row after the other; and how many each has."""
        starts = self._starts[rows]
        lengths = self._starts[rows + 1] - starts
        return self.ids[places_of(starts, lengths)], lengths

    def having(self, numbers: Sequence[int]) -> Found:
        """The rows that have any of these numbers, which are distinct."""
        wanted = np.array(numbers, dtype=np.int64)
        found = [part.having(wanted) for part in self._parts]
        found.append(self._unsorted_having(wanted))
        which, row, count = (np.concatenate(each) for each in zip(*found, strict=True))
        return Found(which, row.astype(np.int64), count.astype(np.int64))

    def _unsorted_having(self, numbers: Ints) -> tuple[Ints, Ints, Ints]:
        first = self._parts[-1].end if self._parts else 0
        starts, m = self._starts[first:], len(numbers)
        ids = self.ids[starts[0] :]
        n_rows = self.n - first
        if not len(ids) or not m:
            none = np.empty(0, dtype=np.int64)
            return none, none, none
        place = np.zeros(max(int(ids.max()), int(numbers.max())) + 1, dtype=np.int32)
        place[numbers] = np.arange(1, m + 1)
        number = place[ids]
        hits = np.flatnonzero(number)
        row = np.searchsorted(starts, starts[0] + hits, side="right") - 1
        counts = np.bincount((number[hits] - 1) * np.int64(n_rows) + row, minlength=m * n_rows)
        cells = np.flatnonzero(counts)
        return cells // n_rows, cells % n_rows + first, counts[cells]

    def n_rows_with(self, n_numbers: int) -> Ints:
        """int64 (n_numbers,): how many rows have each number."""
        found = np.zeros(n_numbers, dtype=np.int64)
        for part in self._parts:
            found[part.numbers] += np.diff(part.starts)
        first = self._parts[-1].end if self._parts else 0
        found += n_rows_with(*self.at(np.arange(first, self.n)), n_numbers)
        return found


def n_rows_with(ids: Ints32, lengths: Ints, n_numbers: int) -> Ints:
    """int64 (n_numbers,): how many of these rows have each number."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    pairs = np.unique(row * max(n_numbers, 1) + ids)
    return np.bincount(pairs % max(n_numbers, 1), minlength=n_numbers).astype(np.int64)
