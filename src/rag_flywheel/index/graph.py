"""Builds, stores and searches a graph of near neighbours over the vectors of a flat index.

HNSW (Malkov and Yashunin, TPAMI 2020), built by faiss and stored as arrays, in which every number is
checked before faiss reads it, since faiss trusts them all.
"""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from rag_flywheel.disk import all_below, read_arrays, read_json, version_file_errors, write_arrays
from rag_flywheel.index.exact import nearest_to_many
from rag_flywheel.index.faiss_door import faiss_library, numbers_of, rows_of
from rag_flywheel.records import Vectors

log = logging.getLogger("rag_flywheel")
FOLDER = "graph"
FORMAT_VERSION: Literal[3] = 3
LINKS: Literal[32] = 32  # of a vector to others; twice as many on the ground level
EF_CONSTRUCTION = 40
# candidates that a search keeps; the first with enough recall is taken
EFS = (128, 200, 256, 320, 400, 512, 1024, 2048)
LEAST_RECALL = 0.97  # of the 10 nearest; without it there is no graph
MOST_REMOVED = 0.2  # of the vectors, since the graph was built; above, it is built anew
MOST_UNMEASURED = (
    0.1  # of the vectors, added or removed since the recall was measured; above, it is again
)
_SAMPLE, _NEAREST = 256, 10
_GLANCE, _SUSPECT = 32, LEAST_RECALL - 0.05  # points of a first look, and what is too few of theirs
_MOST_LEVELS = 32
_MOST_JSON = 10_000
_ARRAYS = {"levels": "uint8 n", "counts": "uint8 lists"}
_LINKS = {"low": "uint16 links", "high": "uint8|uint16 links"}

Ints = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Graph:
    """The links between n vectors.

    levels uint8 (n,): on how many levels each vector is; neighbours int32: for each vector the slots
    of its ground level, then those of the levels above, -1: empty; entry: where searches begin;
    ef_search: how many candidates they keep; recall: the share of the 10 nearest that they find for
    points halfway between two vectors; n_removed: vectors removed since the graph was built;
    n_unmeasured: vectors added or removed since the recall was measured.
    """

    levels: npt.NDArray[np.uint8]
    neighbours: npt.NDArray[np.int32]
    entry: int
    ef_search: int
    recall: float
    n_removed: int = 0
    n_unmeasured: int = 0

    @cached_property
    def offsets(self) -> npt.NDArray[np.uint64]:
        """Where the slots of each vector begin, and where all end, (n + 1,)."""
        widths = LINKS * (self.levels.astype(np.uint64) + np.uint64(1))
        return np.append(np.zeros(1, np.uint64), np.cumsum(widths))

    def save(self, folder: Path) -> None:
        """Write the graph into a version folder."""
        place = folder / FOLDER
        place.mkdir()
        linked = self.neighbours >= 0
        widths = _widths(self.levels)
        counts = np.add.reduceat(linked, np.cumsum(widths) - widths, dtype=np.uint8)
        numbers = self.neighbours[linked]
        high = (numbers >> 16).astype(np.uint8 if len(self.levels) <= 2**24 else np.uint16)
        write_arrays(place, _ARRAYS, self.levels, counts)
        write_arrays(place, _LINKS, numbers.astype(np.uint16), high)
        header = _Header(
            FORMAT_VERSION,
            LINKS,
            self.entry,
            self.ef_search,
            self.recall,
            self.n_removed,
            self.n_unmeasured,
        )
        text = json.dumps(msgspec.to_builtins(header), indent=1) + "\n"
        (place / "graph.json").write_text(text, encoding="utf-8")

    def over(self, flat: Any) -> Any:
        """A faiss index that searches the vectors of a flat one, which must live as long, by this graph."""
        faiss = faiss_library()
        found = faiss.IndexHNSW(flat, LINKS)
        found.ntotal = flat.ntotal
        found.is_trained = True
        hnsw = found.hnsw
        faiss.copy_array_to_vector(self.levels.astype(np.int32), hnsw.levels)
        faiss.copy_array_to_vector(self.offsets, hnsw.offsets)
        faiss.copy_array_to_vector(self.neighbours, hnsw.neighbors)
        hnsw.entry_point = self.entry
        hnsw.max_level = int(self.levels.max()) - 1
        hnsw.efSearch = self.ef_search
        return found

    def shared_with(self, searched: Any) -> "Graph":
        """The same links in the memory of the index that `over` made, so that they are there once."""
        return replace(self, neighbours=numbers_of(searched, searched.hnsw.neighbors))


class _Header(msgspec.Struct, frozen=True):
    """graph.json; removed: the number of vectors removed since the graph was built; unmeasured: of those
    added or removed since the recall was measured."""

    format_version: Literal[3]
    links: Literal[32]
    entry: Annotated[int, Meta(ge=0)]
    ef_search: Annotated[int, Meta(ge=0, le=2**20)]
    recall: Annotated[float, Meta(ge=0, le=1)] = msgspec.field(name="recall@10")
    removed: Annotated[int, Meta(ge=0)]
    unmeasured: Annotated[int, Meta(ge=0)]


def build_graph(flat: Any, parts: Iterable[Vectors]) -> Graph | None:
    """Add float32 (n, dim) vectors, part by part, to an empty flat index; returns their graph, None
    when its recall would be too low."""
    grown = faiss_library().IndexHNSW(flat, LINKS)
    _add(grown, parts)
    return _measured(grown, flat, 0, EFS[0])


def extended(graph: Graph, flat: Any, parts: Iterable[Vectors]) -> Graph | None:
    """Add more vectors to the flat index of a graph; returns the graph of all, None when its recall
    would be too low.

    The recall is that of the graph until a tenth of the vectors came or went since it was measured, unless
    a few points say that it fell.
    """
    n, grown = flat.ntotal, graph.over(flat)
    grown.hnsw.rng = faiss_library().RandomGenerator(n)  # else each time the same levels
    _add(grown, parts)
    n_unmeasured = graph.n_unmeasured + flat.ntotal - n
    rows = rows_of(flat)
    some = np.concatenate([_spread(rows, _GLANCE // 2), _spread(rows[n:], _GLANCE // 2)])
    if (
        n_unmeasured <= MOST_UNMEASURED * flat.ntotal
        and _recalls(grown, rows, some)(graph.ef_search) >= _SUSPECT
    ):
        return _graph_of(grown, graph.ef_search, graph.recall, graph.n_removed, n_unmeasured)
    return _measured(grown, flat, graph.n_removed, graph.ef_search)


def _add(hnsw: Any, parts: Iterable[Vectors]) -> None:
    """Add vectors to a graph, and to the flat index that it is over."""
    hnsw.hnsw.efConstruction = EF_CONSTRUCTION
    for part in parts:
        hnsw.add(np.ascontiguousarray(part))


def _spread(rows: Vectors, n: int) -> Vectors:
    """n of the rows at even distances, all where they are fewer."""
    return rows[:: max(1, len(rows) // n)][:n]


def _recalls(hnsw: Any, rows: Vectors, vectors: Vectors) -> Callable[[int], float]:
    """A function of ef_search: the share of the nearest rows that are found for points between vectors."""
    sample = _between(vectors)
    exact = nearest_to_many(sample, rows, _NEAREST)

    @cache
    def recall(ef: int) -> float:
        hnsw.hnsw.efSearch = ef
        _, found = hnsw.search(sample, _NEAREST)
        return float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]))

    return recall


def _graph_of(hnsw: Any, ef: int, recall: float, n_removed: int, n_unmeasured: int = 0) -> Graph:
    faiss = faiss_library()
    levels = faiss.vector_to_array(hnsw.hnsw.levels).astype(np.uint8)
    neighbours = faiss.vector_to_array(hnsw.hnsw.neighbors)
    entry = int(hnsw.hnsw.entry_point)
    return Graph(levels, neighbours, entry, ef, round(recall, 4), n_removed, n_unmeasured)


def _measured(hnsw: Any, flat: Any, n_removed: int, likely_ef: int) -> Graph | None:
    """The graph with the least ef_search that has enough recall; likely_ef: where it is looked for first."""
    rows = rows_of(flat)
    recall = _recalls(hnsw, rows, _spread(rows, _SAMPLE))
    i = EFS.index(likely_ef) if likely_ef in EFS else 0
    while i and recall(EFS[i - 1]) >= LEAST_RECALL:  # a wider search finds no less
        i -= 1
    enough = next((ef for ef in EFS[i:] if recall(ef) >= LEAST_RECALL), None)
    if enough is not None:
        return _graph_of(hnsw, enough, recall(enough), n_removed)
    log.warning(
        "a graph of %s vectors finds %.0f %% of the 10 nearest even when it keeps %s in view; %.0f %% "
        "is asked for, so dense search looks at every vector, which takes longer",
        f"{len(rows):,}",
        100 * recall(EFS[-1]),
        f"{EFS[-1]:,}",
        100 * LEAST_RECALL,
    )
    return None


def _between(vectors: Vectors) -> Vectors:
    """Unit vectors halfway between each of these and another: like queries, they are no stored
    vectors, which a graph finds too easily for its recall to be measured on them."""
    sums = vectors + np.roll(vectors, len(vectors) // 2, axis=0)
    unit: Vectors = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)
    return unit


def load_graph(folder: Path, n: int) -> Graph | None:
    """The graph of n vectors in a version folder; None without one.

    Raises CorruptFileError.
    """
    place = folder / FOLDER
    if not place.exists():
        return None
    with version_file_errors(place, "cannot be used"):
        header = _header(place, n)
        levels, neighbours = _read_links(place, n)
        graph = Graph(
            levels,
            neighbours,
            header.entry,
            header.ef_search,
            header.recall,
            header.removed,
            header.unmeasured,
        )
        _require_sense(graph, n)
    return graph


def recall_of(folder: Path, n: int) -> float | None:
    """The recall of the 10 nearest by the graph of n vectors in a version folder, as measured when it
    was built; None: there is no graph, and dense search is exact. Raises CorruptFileError.
    """
    place = folder / FOLDER
    if not place.exists():
        return None
    with version_file_errors(place, "cannot be used"):
        return _header(place, n).recall


def _header(place: Path, n: int) -> _Header:
    """The contents of graph.json, for a graph of n vectors. Raises OSError or ValueError."""
    header: _Header = read_json(place / "graph.json", _Header, most=_MOST_JSON)
    if header.entry >= n or header.removed > n:
        raise ValueError(f"graph.json: entry is {header.entry}, removed {header.removed}, of {n}")
    return header


def _widths(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """How many slots each list has: of each vector that of the ground level, then those above."""
    n_lists = levels.astype(np.int64)
    widths = np.full(int(n_lists.sum()), LINKS, dtype=np.int64)
    widths[np.cumsum(n_lists) - n_lists] = 2 * LINKS
    return widths


def _read_links(place: Path, n: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """The levels and neighbours of a graph of n vectors. Raises OSError or ValueError.

    counts.npy has the number of links in each list, low.npy the numbers of the vectors that they lead to,
    without their upper bits, and high.npy those.
    """
    levels, counts = read_arrays(place, _ARRAYS, n=n)
    if levels.min() < 1 or levels.max() > _MOST_LEVELS:
        raise ValueError(f"a vector is on 0 levels, or on more than {_MOST_LEVELS}")
    low, high = read_arrays(place, _LINKS)
    widths, counts = _widths(levels), counts.astype(np.int64)
    if len(counts) != len(widths) or np.any(counts > widths) or int(counts.sum()) != len(low):
        raise ValueError("counts.npy does not divide the links among the lists of the vectors")
    if len(high) and int(high.max()) >= 2**15:
        raise ValueError("a neighbour is no vector")
    linked = np.repeat(
        np.tile([True, False], len(counts)), np.column_stack([counts, widths - counts]).ravel()
    )
    neighbours = np.full(len(linked), -1, dtype=np.int32)
    neighbours[linked] = low.astype(np.int32) | (high.astype(np.int32) << 16)
    return levels, neighbours


def _require_sense(graph: Graph, n: int) -> None:
    """Raise ValueError unless every slot is empty or names a vector that is on the slot's level."""
    levels, neighbours = graph.levels, graph.neighbours
    if levels[graph.entry] != levels.max():
        raise ValueError("searches begin below the highest level")
    if not all_below(neighbours, n, low=-1):
        raise ValueError("a neighbour is no vector")
    starts = graph.offsets[:-1].astype(np.int64) + 2 * LINKS
    for level in range(1, int(levels.max())):
        here = np.flatnonzero(levels > level)
        slots = starts[here][:, None] + (level - 1) * LINKS + np.arange(LINKS)
        named = neighbours[slots]
        if np.any((named >= 0) & (levels[named] <= level)):
            raise ValueError(f"a neighbour on level {level} is not on it")
