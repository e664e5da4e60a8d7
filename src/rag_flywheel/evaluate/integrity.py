"""Checks the integrity of a version: it may go live only if every sampled passage finds itself.

It is given vectors and a search callable; it must not know what index is behind them.
"""

from collections.abc import Callable

import numpy as np

from rag_flywheel.errors import counted
from rag_flywheel.records import Pids, Vectors

Search = Callable[[Vectors, int], list[Pids]]
VectorsOf = Callable[[Pids], Vectors]
_TOLERANCE = 1e-5


def integrity_problems(
    expected: Pids, vectors: Vectors, search: Search, vectors_of: VectorsOf
) -> list[str]:
    """Every problem of an index that should find each of these pids by its own vector.

    expected: int64 (n,), vectors: float32 (n, dim) unit rows. A passage has found itself when the
    best answer to its vector is itself or a text with the same vector.
    """
    if not len(expected):
        return []
    best = search(vectors, 1)
    lost = [int(p) for p, found in zip(expected, best, strict=True) if not len(found)]
    if lost:
        which = counted(len(lost), "passage finds", "passages find")
        return [f"{which} nothing, the first is number {lost[0]}"]
    found = vectors_of(np.array([row[0] for row in best], dtype=np.int64))
    cosines = np.einsum("ij,ij->i", found, vectors)
    wrong = expected[cosines < 1.0 - _TOLERANCE]
    if len(wrong):
        which = counted(
            len(wrong), "passage does not find itself", "passages do not find themselves"
        )
        return [f"{which}, the first is number {wrong[0]}"]
    return []
