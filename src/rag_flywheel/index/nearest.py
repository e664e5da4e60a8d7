"""Finds the nearest rows of one array to each row of another, by faiss."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.faiss_door import faiss_library
from rag_flywheel.records import Vectors


@dataclass(frozen=True)
class Nearest:
    """The rows of sources nearest to each target: rows int64 (n, k) and cosines float32 (n, k)."""

    rows: npt.NDArray[np.int64]
    cosines: npt.NDArray[np.float32]


def nearest_rows(targets: Vectors, sources: Vectors, k: int) -> Nearest:
    """The k rows of `sources` nearest to each row of `targets`, the nearest first; all when fewer.

    targets, sources: float32 (n, dim) and (m, dim), unit rows.
    """
    k = min(k, len(sources))
    if not k or not len(targets):
        shape = len(targets), k
        return Nearest(np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32))
    faiss = faiss_library()
    cosines, rows = faiss.knn(targets, sources, k, metric=faiss.METRIC_INNER_PRODUCT)
    return Nearest(rows, np.minimum(cosines, np.float32(1.0)))
