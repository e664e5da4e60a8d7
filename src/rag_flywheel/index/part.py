"""Searches some of the vectors of an index, those that pass a filter, without looking at the others.

Where they are many, each is first compared by the signs of its coordinates, 48 bytes for 384 of them,
and the likely ones by their vectors.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.faiss_door import faiss_library
from rag_flywheel.records import Vectors

Places = npt.NDArray[np.int64]
_AT_ONCE = 4_096  # vectors
_LIKELY = 2_000  # compared by their vectors, and no fewer than
_TIMES = 20  # times as many as are looked for
_LEAST_DIM = (
    256  # coordinates; fewer signs tell too little, and fewer coordinates are soon compared
)
_SAMPLE = 8  # the mean is that of each eighth vector
_count_ones: Any = getattr(np, "bitwise_count", None)  # numpy 2


@dataclass(frozen=True)
class Part:
    """Some of the vectors of an index: at which positions, bool (n,), and how many."""

    mask: npt.NDArray[np.bool_]
    n: int

    @classmethod
    def of(cls, mask: npt.NDArray[np.bool_]) -> "Part":
        """Those at the positions of a mask."""
        return cls(mask, int(np.count_nonzero(mask)))

    @cached_property
    def places(self) -> npt.NDArray[np.int32]:
        """The positions, ascending."""
        return self.mask.nonzero()[0].astype(np.int32)


class Signs:
    """On which side of the mean each coordinate of each vector is: uint64 (n, dim / 64)."""

    def __init__(self, rows: Vectors) -> None:
        self._mean = rows[::_SAMPLE].mean(axis=0)
        self._signs = np.empty((len(rows), -(-rows.shape[1] // 64)), dtype=np.uint64)
        for start in range(0, len(rows), _AT_ONCE):
            self._signs[start : start + _AT_ONCE] = self._of(rows[start : start + _AT_ONCE])

    def _of(self, rows: Vectors) -> npt.NDArray[np.uint64]:
        bits = np.packbits(rows > self._mean, axis=1)
        return np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).view(np.uint64)

    def likely(self, query: Vectors, places: npt.NDArray[np.int32], n: int) -> Places:
        """The n of these places whose vectors have the most signs of float32 (dim,), in no order."""
        own, far = self._of(query[None, :]), np.empty(len(places), dtype=np.uint16)
        for start in range(
            0, len(places), _AT_ONCE
        ):  # few enough that they stay near the processor
            part = self._signs.take(places[start : start + _AT_ONCE], axis=0)
            part ^= own
            _count_ones(part).sum(axis=1, dtype=np.uint16, out=far[start : start + _AT_ONCE])
        return places.take(np.argpartition(far, n - 1)[:n]).astype(np.int64)


def helps(dim: int, part: Part, n: int) -> bool:
    """Whether signs spare most of the work of finding the n nearest of a part."""
    return _count_ones is not None and dim >= _LEAST_DIM and part.n > 2 * _n_likely(n)


def nearest_by_signs(query: Vectors, rows: Vectors, signs: Signs, part: Part, n: int) -> Places:
    """The places of nearly all of the n nearest of a part to float32 (dim,), the nearest first."""
    return nearest_at(query, rows, signs.likely(query, part.places, _n_likely(n)), n)


def nearest_at(
    query: Vectors, rows: Vectors, places: npt.NDArray[np.integer[Any]], n: int
) -> Places:
    """The n of these places, ascending or not, whose vectors are nearest to float32 (dim,): the nearest
    first, and of equal ones the first. rows float32 (m, dim), contiguous."""
    faiss = faiss_library()
    own, products = places.astype(np.int64), np.empty(len(places), dtype=np.float32)
    query = np.ascontiguousarray(query)
    arrays = map(faiss.swig_ptr, (products, query, rows, own))
    faiss.fvec_inner_products_by_idx(*arrays, len(query), 1, len(own))
    if n < len(own):
        best = (products >= np.partition(products, -n)[-n]).nonzero()[0]
        own, products = own[best], products[best]
    return own[np.lexsort((own, -products))[:n]]


def _n_likely(n: int) -> int:
    return max(_LIKELY, _TIMES * n)
