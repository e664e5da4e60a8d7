"""Finds the likely nearest of very many vectors by short codes: half a byte for four dimensions.

Product quantisation (Jégou et al., TPAMI 2011), scanned in registers (André et al., VLDB 2015), by
faiss.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.faiss_door import faiss_library
from rag_flywheel.records import Vectors

_DIMS_PER_CODE = 4
_BITS = 4
_CODEBOOK_SIZE = 2**_BITS
_AT_ONCE = 32  # vectors whose codes lie interleaved
_SAMPLE = 8_192  # vectors that codes are learned from
_MAX_COORDINATE = 2.0  # of a mean of unit vectors


class Codes:
    """Codes of the vectors 0 to n - 1, which never change; `extended` makes the next.

    n_learned: the number of vectors when the codebook was learned.
    """

    def __init__(self, index: Any, n_learned: int) -> None:
        self._index = index
        self.n_learned = n_learned

    @classmethod
    def build(cls, vectors: Vectors) -> "Codes":
        """Codes of float32 (n, dim) unit rows, n at least 16; the same for the same rows."""
        wide = _wide(vectors[:: max(1, len(vectors) // _SAMPLE)])
        index = _empty(wide.shape[1])
        index.pq.cp.min_points_per_centroid = 1  # else it warns on the terminal
        index.train(wide)
        index.add(_wide(vectors))
        return cls(index, len(vectors))

    @classmethod
    def of(
        cls,
        centroids: npt.NDArray[Any],
        table: npt.NDArray[Any],
        *,
        n: int,
        n_learned: int,
        dim: int,
    ) -> "Codes":
        """Codes of n vectors of width dim from their arrays. Raises ValueError when they do not fit."""
        if n < 1:
            raise ValueError("codes.npy is of no vectors")
        faiss, index = faiss_library(), _empty(dim + -dim % _DIMS_PER_CODE)
        shapes = (
            (index.M, _CODEBOOK_SIZE, _DIMS_PER_CODE),
            (-(-n // _AT_ONCE) * _AT_ONCE * index.M2 // 2,),
        )
        for name, array, kind, shape in (
            ("centroids", centroids, np.float32, shapes[0]),
            ("codes", table, np.uint8, shapes[1]),
        ):
            if array.dtype != kind or array.shape != shape:
                raise ValueError(
                    f"{name}.npy holds {array.dtype} {array.shape}; expected "
                    f"{np.dtype(kind)} {shape} for {n} vectors of width {dim}"
                )
        if not bool(np.all(np.abs(centroids) <= _MAX_COORDINATE)):
            raise ValueError("centroids.npy holds a number that is in no mean of unit vectors")
        faiss.copy_array_to_vector(np.ascontiguousarray(centroids).ravel(), index.pq.centroids)
        faiss.copy_array_to_AlignedTable(np.ascontiguousarray(table), index.codes)
        index.is_trained = True
        index.ntotal, index.ntotal2 = n, -(-n // _AT_ONCE) * _AT_ONCE
        return cls(index, n_learned)

    @property
    def centroids(self) -> npt.NDArray[np.float32]:
        """float32 (dim / 4, 16, 4): the codebook, the coordinates that each code stands for."""
        flat: npt.NDArray[np.float32] = faiss_library().vector_to_array(self._index.pq.centroids)
        return flat.reshape(self._index.M, _CODEBOOK_SIZE, _DIMS_PER_CODE)

    @property
    def table(self) -> npt.NDArray[np.uint8]:
        """uint8: the codes, as faiss interleaves them for 32 vectors at a time."""
        table: npt.NDArray[np.uint8] = faiss_library().AlignedTable_to_array(self._index.codes)
        return table

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def extended(self, vectors: Vectors) -> "Codes":
        """These codes and, after them, those of further vectors, float32 (m, dim)."""
        index = faiss_library().clone_index(self._index)
        index.add(_wide(vectors))
        return Codes(index, self.n_learned)

    def likely(self, queries: Vectors, n: int) -> npt.NDArray[np.int64]:
        """int64 (m, n), fewer columns where there are fewer vectors: the rows that are likely the
        nearest to each of float32 (m, dim) queries, in no exact order. Damaged codes, which look like
        sound ones, may leave places empty: -1."""
        rows: npt.NDArray[np.int64] = self._index.search(_wide(queries), min(n, len(self)))[1]
        return rows


def _empty(width: int) -> Any:
    faiss = faiss_library()
    return faiss.IndexPQFastScan(width, width // _DIMS_PER_CODE, _BITS, faiss.METRIC_INNER_PRODUCT)


def _wide(vectors: Vectors) -> Vectors:
    """The vectors with zeros, which change no product, up to a width that codes divide."""
    lacking = -vectors.shape[1] % _DIMS_PER_CODE
    if not lacking:
        return np.ascontiguousarray(vectors)
    return np.pad(vectors, ((0, 0), (0, lacking)))
