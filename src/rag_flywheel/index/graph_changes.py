"""Removes vectors from a graph, and replaces the links to them.

After FreshDiskANN (Singh et al., 2021, algorithm 4): a vector linked to a removed one is linked to a
neighbour of the removed one instead.
"""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.graph import LINKS, Graph
from rag_flywheel.records import Vectors

_AT_ONCE = 4_096  # links
Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
Links = npt.NDArray[np.int32]


def without(graph: Graph, gone: Mask, rows: Vectors) -> Graph:
    """The graph of the remaining vectors, renumbered in their order.

    gone: bool (n,), not all; rows: every vector of the graph, float32 (n, dim). A link to a removed
    vector becomes one to the nearest of its neighbours to which there is no link yet.
    """
    starts = graph.offsets.astype(np.int64)
    neighbours = graph.neighbours.copy()
    slots = np.flatnonzero((neighbours >= 0) & gone[neighbours])
    owners = np.searchsorted(starts, slots, side="right") - 1
    slots, owners = slots[~gone[owners]], owners[~gone[owners]]
    levels = _level(slots - starts[owners])
    for level in range(int(levels.max(initial=-1)) + 1):
        mine = np.flatnonzero(levels == level)
        new = np.empty(len(mine), dtype=np.int32)
        order = np.argsort(graph.neighbours[slots[mine]], kind="stable")  # by the lost vector
        for i in range(0, len(mine), _AT_ONCE):
            part = mine[order[i : i + _AT_ONCE]]
            lost = graph.neighbours[slots[part]]
            linked, others = (_links(graph, starts, of, level) for of in (owners[part], lost))
            others[(others >= 0) & gone[others]] = -1
            new[order[i : i + _AT_ONCE]] = _nearest_new(owners[part], lost, linked, others, rows)
        neighbours[slots[mine]] = _once(owners[mine], new)
    return _renumbered(replace(graph, neighbours=neighbours), ~gone)


def _level(places: Numbers) -> Numbers:
    """The level of slots, by their places among those of their vector."""
    return np.maximum(places // LINKS - 1, 0)


def _links(graph: Graph, starts: Numbers, of: npt.NDArray[Any], level: int) -> Links:
    """The slots of these vectors on a level, (n, slots)."""
    begin, width = (0, 2 * LINKS) if level == 0 else ((level + 1) * LINKS, LINKS)
    found: Links = graph.neighbours[starts[of][:, None] + begin + np.arange(width)]
    return found


def _nearest_new(
    owners: Numbers, lost: Links, linked: Links, others: Links, rows: Vectors
) -> Links:
    """For each owner, the nearest of `others` that is neither `linked` nor itself; -1 without one.

    lost: by which they are sorted, since all owners of a link to the same one have the same others.
    """
    known = (others[:, :, None] == linked[:, None, :]).any(axis=2) | (others == owners[:, None])
    known |= others < 0
    cosines = np.empty(others.shape, dtype=np.float32)
    bounds = np.flatnonzero(np.diff(lost, prepend=-1, append=-1))
    for start, end in pairwise(bounds.tolist()):
        np.matmul(rows[owners[start:end]], rows[others[start]].T, out=cosines[start:end])
    cosines[known] = -np.inf
    found: Links = others[np.arange(len(others)), np.argmax(cosines, axis=1)]
    return np.where(known.all(axis=1), np.int32(-1), found)


def _once(owners: Numbers, new: Links) -> Links:
    """New links, -1 where the same owner has the same link already."""
    _, first = np.unique(owners * 2**32 + new, return_index=True)
    found = np.full_like(new, -1)
    found[first] = new[first]
    return found


def _renumbered(graph: Graph, stays: Mask) -> Graph:
    """The graph of the vectors that stay, which must have no links to others."""
    number = np.append(np.cumsum(stays) - 1, -1).astype(np.int32)  # the last is that of -1
    n_gone = int(np.count_nonzero(~stays))
    slots = np.repeat(stays, LINKS * (graph.levels.astype(np.int64) + 1))
    entry = graph.entry if stays[graph.entry] else int(np.argmax(graph.levels * stays))
    found = replace(
        graph,
        levels=graph.levels[stays],
        neighbours=number[graph.neighbours[slots]],
        entry=int(number[entry]),
        n_removed=graph.n_removed + n_gone,
        n_unmeasured=graph.n_unmeasured + n_gone,
    )
    _close_gaps(found)
    return found


def _close_gaps(graph: Graph) -> None:
    """Move the empty slots of each list to its end: faiss reads a list up to the first."""
    starts, named = graph.offsets.astype(np.int64), graph.neighbours
    gaps = np.flatnonzero((named[:-1] < 0) & (named[1:] >= 0))  # or one list ends here
    owners = np.searchsorted(starts, gaps, side="right") - 1
    after = gaps + 1 - starts[owners]
    ends = (after % LINKS == 0) & (after >= 2 * LINKS)
    gaps, owners = gaps[~ends], owners[~ends]
    levels = _level(gaps - starts[owners])
    for level in range(int(levels.max(initial=-1)) + 1):
        of = np.unique(owners[levels == level])
        lists = _links(graph, starts, of, level)
        order = np.argsort(lists < 0, axis=1, kind="stable")
        begin = starts[of] + (0 if level == 0 else (level + 1) * LINKS)
        slots = begin[:, None] + np.arange(lists.shape[1])
        named[slots] = np.take_along_axis(lists, order, axis=1)
