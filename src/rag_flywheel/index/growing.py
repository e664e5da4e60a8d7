"""Arrays that grow at their end, by one writer at a time. What was read of one stays as it was."""

from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.records import Vectors

_FIRST = 64  # entries that there is room for at first
_BLOCK = 8_192  # rows


class GrowingArray:
    """A one-dimensional array with room at its end; `n` entries are in use."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._entries: npt.NDArray[Any] = np.empty(_FIRST, dtype=dtype)
        self.n = 0

    def append(self, entries: npt.ArrayLike) -> None:
        """Add entries at the end."""
        more = np.asarray(entries)
        n = self.n + len(more)
        if n > len(self._entries):
            larger = np.empty(max(n, 2 * len(self._entries)), dtype=self._entries.dtype)
            larger[: self.n] = self._entries[: self.n]
            self._entries = larger
        self._entries[self.n : n] = more
        self.n = n

    def first(self, n: int) -> npt.NDArray[Any]:
        """The first n entries, which are never changed."""
        return self._entries[:n]


class GrowingRows:
    """Vectors float32 in blocks, so that none of them moves when more come."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._blocks: list[Vectors] = []
        self.n = 0

    def append(self, rows: Vectors) -> None:
        """Add rows float32 (m, dim) at the end."""
        start = 0
        while start < len(rows):
            block, used = self._last_block(len(rows) - start)
            many = min(len(block) - used, len(rows) - start)
            block[used : used + many] = rows[start : start + many]
            start += many
            self.n += many

    def _last_block(self, wanted: int) -> tuple[Vectors, int]:
        """A block with room, and how many of its rows are in use; small ones grow by doubling."""
        used = self.n % _BLOCK
        if not used:
            self._blocks.append(np.empty((min(max(wanted, _FIRST), _BLOCK), self.dim), np.float32))
        elif used == len(self._blocks[-1]):
            size = min(max(2 * used, used + wanted), _BLOCK)
            larger = np.empty((size, self.dim), np.float32)
            larger[:used] = self._blocks[-1]
            self._blocks[-1] = larger
        return self._blocks[-1], used

    def products(self, query: Vectors, n: int) -> Vectors:
        """float32 (n,): of each of the first n rows with a vector."""
        found = np.empty(n, dtype=np.float32)
        for start in range(0, n, _BLOCK):
            end = min(start + _BLOCK, n)
            np.matmul(self._blocks[start // _BLOCK][: end - start], query, out=found[start:end])
        return found

    def at(self, positions: npt.NDArray[np.int64]) -> Vectors:
        """float32 (m, dim): the rows at these positions."""
        found = np.empty((len(positions), self.dim), dtype=np.float32)
        of_block = positions // _BLOCK
        for number in np.unique(of_block).tolist():
            own = np.flatnonzero(of_block == number)
            found[own] = self._blocks[number][positions[own] - number * _BLOCK]
        return found
