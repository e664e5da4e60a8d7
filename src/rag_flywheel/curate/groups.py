"""Groups near-duplicate past queries, which are held out together or not at all."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.exact import typical_cosine
from rag_flywheel.index.nearest import Nearest, nearest_rows
from rag_flywheel.records import Vectors

NEAR_DUPLICATE = 0.9  # at 0.8 single linkage chained 708 questions of one collection together
_NEAREST = 64  # neighbours of each query that it may be linked to
_HELD_OUT_OF = 3  # one group in three


def query_groups(queries: Vectors, near: Nearest | None = None) -> npt.NDArray[np.int64]:
    """The group of each query, int64 (n,): queries linked by cosines of at least 0.9.

    The 0.9 is scaled from the typical cosine of two queries to 1, so that it means the same for
    encoders whose cosines are all high. A group is never split, however large: copies of a question
    must count as one.
    queries: float32 (n, dim), unit rows.
    near: the nearest queries of each, itself among them; None computes them.
    """
    if near is None:
        near = nearest_rows(queries, queries, _NEAREST)
    least = near_duplicate(queries)
    groups = _linked(near, least)
    if not len(queries) or np.bincount(groups).max() < near.rows.shape[1]:
        return groups
    # many copies of a query have only each other as neighbours: one of each group is linked again
    first = np.unique(groups, return_index=True)[1]
    again = nearest_rows(queries[first], queries[first], _NEAREST)
    return _linked(again, least)[groups]


def _linked(near: Nearest, least: float) -> npt.NDArray[np.int64]:
    """The group of each query: those linked by cosines of at least `least`."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(near.rows)
    rows, places = np.nonzero(near.cosines >= least)
    columns = near.rows[rows, places]
    links = coo_matrix((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(n, n))
    groups: npt.NDArray[np.int64] = connected_components(links, directed=False)[1].astype(np.int64)
    return groups


def near_duplicate(queries: Vectors) -> float:
    """The cosine from which on two of these queries, float32 (n, dim), are near-duplicates."""
    typical = typical_cosine(queries)
    return typical + NEAR_DUPLICATE * (1.0 - typical)


def held_out(
    digests: Sequence[bytes], groups: npt.NDArray[np.int64], *, one_in: int = _HELD_OUT_OF
) -> npt.NDArray[np.bool_]:
    """Which queries are held out of fitting, bool (n,): a third of the groups, chosen by digest.

    The choice of a group depends only on its smallest digest, so it stays the same while other
    queries come and go, and in every index.
    digests: of each query's text.
    one_in: holds out one group in so many.
    """
    smallest: dict[int, bytes] = {}
    for name, group in zip(digests, groups.tolist(), strict=True):
        smallest[group] = min(smallest.get(group, name), name)
    chosen = {
        g: int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") % one_in == 0
        for g, name in smallest.items()
    }
    return np.array([chosen[g] for g in groups.tolist()], dtype=np.bool_)
