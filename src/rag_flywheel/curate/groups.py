"""Query groups: near-duplicate past queries, which are held out together or not at all.

It must not know what is learned from the others.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.dense import typical_cosine
from rag_flywheel.records import Vectors

NEAR_DUPLICATE = 0.9  # at 0.8 single linkage chained 708 questions of one collection together
MOST_IN_GROUP = 20
_ROWS = 1024
_HELD_OUT_OF = 10  # one group in so many


def query_groups(queries: Vectors) -> npt.NDArray[np.int64]:
    """The group of each query, int64 (n,): queries linked by cosines of at least 0.9.

    queries: float32 (n, dim), unit rows. 0.9 is read above the typical cosine of two queries, so
    that it means the same where an encoder squeezes cosines together. A group of more than 20 is
    taken apart into single queries, since such a chain joins questions of nothing in common.
    """
    n = len(queries)
    group = np.arange(n)
    typical = typical_cosine(queries)
    least = typical + NEAR_DUPLICATE * (1.0 - typical)
    for start in range(0, n, _ROWS):
        rows, columns = np.nonzero(queries[start : start + _ROWS] @ queries.T >= least)
        for a, b in zip((rows + start).tolist(), columns.tolist(), strict=True):
            if a < b:
                _join(group, a, b)
    roots = np.array([_root(group, i) for i in range(n)], dtype=np.int64)
    sizes = np.bincount(roots, minlength=n)
    return np.where(sizes[roots] > MOST_IN_GROUP, np.arange(n), roots)


def held_out(hashes: Sequence[bytes], groups: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which queries are held out of fitting, bool (n,): a tenth of the groups, chosen by hash.

    hashes: of each query's text. A group's choice hangs on its smallest hash alone, so it stays
    what it is while other queries come and go.
    """
    smallest: dict[int, bytes] = {}
    for name, group in zip(hashes, groups.tolist(), strict=True):
        smallest[group] = min(smallest.get(group, name), name)
    chosen = {
        g: hashlib.blake2b(name, digest_size=8).digest()[0] % _HELD_OUT_OF == 0
        for g, name in smallest.items()
    }
    return np.array([chosen[g] for g in groups.tolist()], dtype=np.bool_)


def _root(group: npt.NDArray[np.int64], i: int) -> int:
    while group[i] != i:
        group[i] = group[group[i]]
        i = int(group[i])
    return i


def _join(group: npt.NDArray[np.int64], a: int, b: int) -> None:
    low, high = sorted((_root(group, a), _root(group, b)))
    group[high] = low
