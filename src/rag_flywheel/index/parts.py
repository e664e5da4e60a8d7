"""Lays rows out in parts, files that never change, so that versions can share those that are the same.

A part keeps the rows of texts that were removed, until they are too many of it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

STATISTICS_FOLDER = "statistics"
"""Of what `stored_statistics.py` has."""
DERIVED_FOLDER = "derived"
"""Of files that are computed from others of a version, and may be missing."""
MOST_ROWS = 16_384  # of a part
MOST_UNUSED = 0.2  # of the rows of a part; with more, those that are used are written anew
_MANY = 64  # parts, beside twice as many as there need be; with more, all rows are written anew
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Stretch:
    """Rows one after another, from the first to before the end. name: of the part that holds them already,
    None: they are to be written; size: its rows; rows: where they are in it."""

    first: int
    end: int
    name: str | None = None
    size: int = 0
    rows: Rows | None = None

    @property
    def n(self) -> int:
        """How many rows they are."""
        return self.end - self.first


def layout(n: int, sizes: Mapping[str, int], rows: Rows) -> Sequence[Stretch]:
    """The parts of n rows, and the stretches between them that are to be written.

    sizes: rows of each part of before, by its name, in order; rows int64 (m,), ascending: where the first m
    of the n rows are in all of these parts, one after another.

    What comes last is put together with small parts before it, so that parts stay few: of parts that are
    not put together each is larger than all that come after it.
    """
    stretches = list(_stretches(n, sizes, rows))
    if len(stretches) > 2 * (n // MOST_ROWS) + _MANY:
        return [Stretch(0, n)]
    last = stretches.pop() if stretches and stretches[-1].name is None else Stretch(n, n)
    if last.n:
        while stretches and stretches[-1].n <= last.n and stretches[-1].n + last.n <= MOST_ROWS:
            last = Stretch(stretches.pop().first, n)
        stretches.append(last)
    return stretches


def pieces(stretch: Stretch) -> Iterator[tuple[int, int]]:
    """(first, end) of the parts that a stretch is written in."""
    for first in range(stretch.first, stretch.end, MOST_ROWS):
        yield first, min(first + MOST_ROWS, stretch.end)


def _stretches(n: int, sizes: Mapping[str, int], rows: Rows) -> Iterator[Stretch]:
    """The parts of before of which enough is used, and the stretches between and after them."""
    start = at = written_from = 0
    for name, size in sizes.items():
        end = at + int(np.searchsorted(rows[at:], start + size))
        if end - at >= (1.0 - MOST_UNUSED) * size and end > at:
            if at > written_from:
                yield Stretch(written_from, at)
            yield Stretch(at, end, name, size, rows[at:end] - start)
            written_from = end
        start, at = start + size, end
    if n > written_from:
        yield Stretch(written_from, n)
