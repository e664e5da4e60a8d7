"""The nearest of very many vectors by short codes: all are looked at, each by half a byte for four
of its numbers.

Product quantisation (Jégou et al., TPAMI 2011), scanned in registers (André et al., VLDB 2015), by
faiss. It must not know what vectors are of.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.faiss_door import faiss_library
from rag_flywheel.records import Vectors

_NUMBERS = 4  # of a vector that share a code
_BITS = 4
_SAMPLE = 8_192  # vectors that codes are learned from


class Codes:
    """Codes of the vectors 0 to n - 1, which never change; `extended` makes the next.

    n_learned: how many vectors there were when it was learned what codes stand for.
    """

    def __init__(self, index: Any, n_learned: int) -> None:
        self._index = index
        self.n_learned = n_learned

    @classmethod
    def build(cls, vectors: Vectors) -> "Codes":
        """Codes of float32 (n, dim) unit rows, n at least 16; the same for the same rows."""
        faiss, wide = faiss_library(), _wide(vectors[:: max(1, len(vectors) // _SAMPLE)])
        inner = faiss.METRIC_INNER_PRODUCT
        index = faiss.IndexPQFastScan(wide.shape[1], wide.shape[1] // _NUMBERS, _BITS, inner)
        index.pq.cp.min_points_per_centroid = 1  # else it warns on the terminal
        index.train(wide)
        index.add(_wide(vectors))
        return cls(index, len(vectors))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def extended(self, vectors: Vectors) -> "Codes":
        """These codes and, after them, those of further vectors, float32 (m, dim)."""
        index = faiss_library().clone_index(self._index)
        index.add(_wide(vectors))
        return Codes(index, self.n_learned)

    def likely(self, queries: Vectors, n: int) -> npt.NDArray[np.int64]:
        """int64 (m, n), fewer columns where there are fewer vectors: the rows that are likely the
        nearest to each of float32 (m, dim) queries, in no exact order."""
        _, found = self._index.search(_wide(queries), min(n, len(self)))
        rows: npt.NDArray[np.int64] = found
        return rows


def _wide(vectors: Vectors) -> Vectors:
    """The vectors with zeros, which change no product, up to a width that codes divide."""
    lacking = -vectors.shape[1] % _NUMBERS
    if not lacking:
        return np.ascontiguousarray(vectors)
    return np.pad(vectors, ((0, 0), (0, lacking)))
