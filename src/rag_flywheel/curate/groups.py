"""Query groups: near-duplicate past queries, which are held out together or not at all."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.exact import typical_cosine
from rag_flywheel.index.nearest import Nearest, nearest_rows
from rag_flywheel.records import Vectors

NEAR_DUPLICATE = 0.9  # at 0.8 single linkage chained 708 questions of one collection together
_NEAREST = 64  # of each query, that links are looked for among
_HELD_OUT_OF = 3  # one group in so many


def query_groups(queries: Vectors, near: Nearest | None = None) -> npt.NDArray[np.int64]:
    """The group of each query, int64 (n,): queries linked by cosines of at least 0.9.

    queries: float32 (n, dim), unit rows; near: the nearest of each, itself among them; None: they
    are looked for. 0.9 is read above the typical cosine of two queries, so that it means the same
    where an encoder squeezes cosines together. However large, a group is one: copies of a question
    must not be counted apart.
    """
    if near is None:
        near = nearest_rows(queries, queries, _NEAREST)
    least = near_duplicate(queries)
    found = _linked(near, least)
    if not len(queries) or np.bincount(found).max() < near.rows.shape[1]:
        return found
    # a clump of copies has none but themselves among the nearest: one of each is compared again
    first = np.unique(found, return_index=True)[1]
    again = nearest_rows(queries[first], queries[first], _NEAREST)
    return _linked(again, least)[found]


def _linked(near: Nearest, least: float) -> npt.NDArray[np.int64]:
    """The group of each query: those linked by cosines of at least `least`."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(near.rows)
    rows, places = np.nonzero(near.cosines >= least)
    columns = near.rows[rows, places]
    links = coo_matrix((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(n, n))
    found: npt.NDArray[np.int64] = connected_components(links, directed=False)[1].astype(np.int64)
    return found


def near_duplicate(queries: Vectors) -> float:
    """The cosine from which on two of these queries, float32 (n, dim), are near-duplicates."""
    typical = typical_cosine(queries)
    return typical + NEAR_DUPLICATE * (1.0 - typical)


def held_out(
    hashes: Sequence[bytes], groups: npt.NDArray[np.int64], *, one_in: int = _HELD_OUT_OF
) -> npt.NDArray[np.bool_]:
    """Which queries are held out of fitting, bool (n,): a third of the groups, chosen by hash.

    hashes: of each query's text; one_in: a third, or another share. A group's choice hangs on its
    smallest hash alone, so it stays what it is while other queries come and go.
    """
    smallest: dict[int, bytes] = {}
    for name, group in zip(hashes, groups.tolist(), strict=True):
        smallest[group] = min(smallest.get(group, name), name)
    chosen = {
        g: int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") % one_in == 0
        for g, name in smallest.items()
    }
    return np.array([chosen[g] for g in groups.tolist()], dtype=np.bool_)
