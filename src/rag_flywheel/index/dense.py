"""Dense search over unit vectors, each stored under the pid of its passage.

It must not know texts, versions or votes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.disk import version_file_errors
from rag_flywheel.index.exact import distinct_rows, nearest_to_many, typical_cosine
from rag_flywheel.index.faiss_door import faiss_library, rows_of
from rag_flywheel.index.graph import MOST_REMOVED, Graph, build_graph, extended, load_graph
from rag_flywheel.index.graph_changes import without
from rag_flywheel.index.part import Part, Signs, helps, nearest_at, nearest_by_signs
from rag_flywheel.index.vector_files import (
    FOLDER,
    StoredParts,
    load_vectors,
    read_into,
    save_vectors,
)
from rag_flywheel.records import Pids, Vectors

GRAPH_FROM = 20_000  # vectors; below, exact search takes about a millisecond
_MARGIN = 1.3  # times as many are kept in view as hold enough of a part on average
_QUICK_SHARE = (
    0.015  # of a part; where more are to be in view, a search of the part alone is quicker
)
_LEAST_OF_PART = 50  # of a part that are kept in view, and a quarter more than without a part
_SAMPLE = 20_000  # vectors that the typical cosine is taken from
_UNIT_TOLERANCE = 0.02
_AT_ONCE = 65_536  # vectors


class DenseIndex:
    """Inner-product search over unit vectors by pid: exact, or, once they are many and no filter
    excludes most of them, by a graph that finds nearly all of the nearest (`graph.py`)."""

    def __init__(
        self, flat: Any, pids: Pids, graph: Graph | None = None, stored: StoredParts | None = None
    ) -> None:
        self._flat = flat
        self.pids = pids  # ascending
        self._stored = stored  # the files that hold the first of the vectors
        self.graph = graph

    @cached_property
    def _quick(self) -> Any:
        """What searches the graph, with whose links it then shares its memory; None without one."""
        if self.graph is None:
            return None
        found = self.graph.over(self._flat)
        self.graph = self.graph.shared_with(found)
        return found

    @classmethod
    def build(cls, pids: Pids, vectors: Vectors) -> "DenseIndex":
        """An index of float32 (n, dim) unit vectors under ascending int64 (n,) pids."""
        return cls.of_parts([(pids, vectors)], n=len(pids), dim=vectors.shape[1])

    @classmethod
    def of_parts(cls, parts: Iterable[tuple[Pids, Vectors]], *, n: int, dim: int) -> "DenseIndex":
        """`build` from n vectors in parts, so that all are in memory only once."""
        flat, graph, added = faiss_library().IndexFlatIP(dim), None, _Added(parts)
        flat.codes.resize(n * flat.code_size)  # reserves the memory at once
        flat.codes.resize(0)
        if n < GRAPH_FROM:
            for part in added.vectors():
                flat.add(part)
        else:
            graph = build_graph(flat, added.vectors())
        return cls(flat, added.pids(np.empty(0, dtype=np.int64)), graph)

    def changed(self, present: Pids, parts: Iterable[tuple[Pids, Vectors]]) -> "DenseIndex | None":
        """This index with exactly the `present` pids; parts: the ones it lacks. This object must not
        be used afterwards. None: the index has to be built anew, for too much of it changed, or a
        graph would miss too many."""
        stays = np.isin(self.pids, present, assume_unique=True)
        new = present[~np.isin(present, self.pids, assume_unique=True)]
        graph, n_gone = self.graph, int(np.count_nonzero(~stays))
        removed = n_gone + (0 if graph is None else graph.n_removed)
        if (
            not stays.any()
            or removed > MOST_REMOVED * len(present)
            or (len(new) and new[0] <= self.pids[-1])
            or (graph is None) != (len(present) < GRAPH_FROM)
        ):
            return None
        flat, stored = self._flat, self._stored
        if n_gone:
            graph = None if graph is None else without(graph, ~stays, self._rows)
            gone = np.packbits(~stays, bitorder="little")
            flat.remove_ids(faiss_library().IDSelectorBitmap(gone))
            stored = None if stored is None else stored.of(stays)
        added = _Added(parts)
        if graph is None:
            for part in added.vectors():
                flat.add(part)
        elif (graph := extended(graph, flat, added.vectors())) is None:
            return None
        return DenseIndex(flat, added.pids(self.pids[stays]), graph, stored)

    @classmethod
    def load(cls, folder: Path, *, dim: int) -> "DenseIndex":
        """Read the index in `folder`. Raises CorruptFileError unless it holds unit vectors of this
        width under ascending pids."""
        with version_file_errors(folder / FOLDER):
            pids, stored = load_vectors(folder, dim=dim)
            flat = faiss_library().IndexFlatIP(dim)
            flat.codes.resize(len(pids) * flat.code_size)
            flat.ntotal = len(pids)
            read_into(rows_of(flat), stored)
            found = cls(flat, pids, load_graph(folder, len(pids)), stored)
            found._require_sense()
        assert found.graph is None or found._quick is not None  # before threads search it
        return found

    def copied(self, folder: Path) -> "DenseIndex":
        """A copy that may be `changed`; folder: of a version with the same files."""
        flat = faiss_library().IndexFlatIP(self.dim)
        flat.codes.resize(len(self) * flat.code_size)
        flat.ntotal = len(self)
        rows_of(flat)[:] = self._rows
        stored = None if self._stored is None else replace(self._stored, folder=folder)
        return DenseIndex(flat, self.pids, self.graph, stored)

    def _require_sense(self) -> None:
        """Raise ValueError unless every vector is finite and of unit length."""
        for start in range(0, len(self), _AT_ONCE):
            part = self._rows[start : start + _AT_ONCE]
            with np.errstate(all="ignore"):
                squares = np.einsum("ij,ij->i", part, part)
            if not np.all(np.abs(np.sqrt(squares) - 1.0) <= _UNIT_TOLERANCE):
                raise ValueError("a vector is not of unit length")

    def save(self, folder: Path) -> None:
        """Write the index into `folder`. What it has of the version that it was loaded from is linked."""
        save_vectors(folder, self.pids, self._rows, self._stored)
        if self.graph is not None:
            self.graph.save(folder)

    def __len__(self) -> int:
        return len(self.pids)

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return int(self._flat.d)

    @cached_property
    def typical_cosine(self) -> float:
        """The mean cosine of two different texts (see `typical_cosine`)."""
        step = max(1, len(self) // _SAMPLE)
        return typical_cosine(distinct_rows(self._rows[::step]))

    def search(self, queries: Vectors, n: int, part: Part | None = None) -> list[Pids]:
        """For each row of `queries`, the pids of its n nearest vectors, the nearest first.

        part: the only vectors to search; None: all. Fewer than n are returned when there are not as
        many.
        """
        there = len(self) if part is None else part.n
        n = min(n, there)
        if self._quick is None or n < 1:
            return self.search_all(queries, n, part)
        in_view = n
        if part is not None:
            in_view = int(max(_MARGIN * n, _LEAST_OF_PART) * len(self) / there)
        if part is not None and in_view > _QUICK_SHARE * there:
            if not helps(self.dim, part, n):
                return self.search_all(queries, n, part)
            every = (nearest_by_signs(q, self._rows, self._signs, part, n) for q in queries)
            return [self.pids[found] for found in every]
        found = self._by_graph(queries, n, in_view, part)
        short = [i for i, row in enumerate(found) if len(row) < n]
        if short:  # the graph led to too few of the part
            whole = self.search_all(queries[short], n, part)
            for i, row in zip(short, whole, strict=True):
                found[i] = row
        return found

    def _by_graph(self, queries: Vectors, n: int, in_view: int, part: Part | None) -> list[Pids]:
        """The n nearest of a part among so many nearest of all: what is farther than those is not
        looked for, for then what the graph meets on its way is not the nearest of the part."""
        faiss, graph = faiss_library(), self.graph
        assert graph is not None and self._quick is not None
        ef_search = graph.ef_search if part is None else graph.ef_search * 5 // 4
        ef = max(ef_search, 2 * n, in_view)
        parameters = faiss.SearchParametersHNSW(efSearch=ef)
        k = n if part is None else ef
        _, rows = self._quick.search(np.ascontiguousarray(queries), k, params=parameters)
        if part is None:
            return [self.pids[row[row >= 0]] for row in rows]
        return [self.pids[row[(row >= 0) & part.mask[row]][:n]] for row in rows]

    def search_all(self, queries: Vectors, n: int, part: Part | None = None) -> list[Pids]:
        """`search`, always exact."""
        n = min(n, len(self) if part is None else part.n)
        if n < 1:
            return [np.empty(0, dtype=np.int64) for _ in queries]
        if part is not None:
            return [self.pids[nearest_at(q, self._rows, part.places, n)] for q in queries]
        _, found = self._flat.search(np.ascontiguousarray(queries), n)
        return [self.pids[row[row >= 0]] for row in found]  # faiss pads with -1

    def search_many(self, queries: Vectors, n: int) -> list[Pids]:
        """`search_all` without a filter, quicker for hundreds of queries."""
        return list(self.pids[nearest_to_many(queries, self._rows, n)])

    def at(self, positions: npt.NDArray[np.int64]) -> Vectors:
        """float32 (n, dim): the vectors of pids[positions], without a search for each pid."""
        found: Vectors = self._rows[positions]
        return found

    @cached_property
    def _signs(self) -> Signs:
        return Signs(self._rows)

    @cached_property
    def _rows(self) -> Vectors:
        """All vectors, float32 (n, dim): the memory of the index itself."""
        return rows_of(self._flat)

    def vectors(self, pids: Pids) -> Vectors:
        """float32 (n, dim): the vectors of these pids, which must all be in the index."""
        at = np.minimum(np.searchsorted(self.pids, pids), max(len(self) - 1, 0))
        if len(pids) and not (len(self) and np.array_equal(self.pids[at], pids)):
            raise LookupError("a pid is not in the index")
        return self.at(at)


class _Added:
    """Vectors that are added to a flat index part by part, and their pids."""

    def __init__(self, parts: Iterable[tuple[Pids, Vectors]]) -> None:
        self._parts = parts
        self._pids: list[Pids] = []

    def vectors(self) -> Iterator[Vectors]:
        """The vectors of each part, float32 (m, dim)."""
        for pids, vectors in self._parts:
            self._pids.append(pids)
            yield np.ascontiguousarray(vectors)

    def pids(self, before: Pids) -> Pids:
        """The pids of all vectors, those that were there first."""
        return np.ascontiguousarray(np.concatenate([before, *self._pids]), dtype=np.int64)
