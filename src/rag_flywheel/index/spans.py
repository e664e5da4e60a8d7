"""Reads spans of an array, and numbers its values by their first use."""

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Ints32 = npt.NDArray[np.int32]


def places_of(starts: npt.ArrayLike, lengths: npt.ArrayLike) -> Ints:
    """int64: start, start + 1, ... for as many as its length says, of each span in turn."""
    begin, many = np.asarray(starts, dtype=np.int64), np.asarray(lengths, dtype=np.int64)
    places: Ints = np.arange(many.sum()) + np.repeat(begin - np.cumsum(many) + many, many)
    return places


def rows_at(values: Ints32, offsets: Ints32, rows: Ints32, n: int) -> Ints32:
    """values[offsets[row]:offsets[row + 1]] of each row in turn, n in all; by one call of scipy."""
    read = _reader()
    if read is None:
        starts = offsets[rows]
        return values[places_of(starts, offsets[rows + 1] - starts)]
    found = np.empty(n, dtype=np.int32)
    read(len(rows), rows, offsets, values, values, found, found)  # it copies two arrays: one twice
    return found


@cache
def _reader() -> Any:
    """scipy's copy of rows of a sparse matrix; None where scipy lacks it."""
    try:
        from scipy.sparse._sparsetools import csr_row_index
    except ImportError:
        return None
    return csr_row_index


def by_first_use(
    numbers: npt.NDArray[np.int32], n: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """(which of the numbers below n are among these, in the order of their first use; these, each as the
    place of its number in that order)."""
    first = np.full(n, len(numbers))
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]  # of equal ones the last stays
    order = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(numbers))]
    places = np.empty(n, dtype=np.int32)
    places[order] = np.arange(len(order))
    return order.astype(np.int32), places[numbers]
