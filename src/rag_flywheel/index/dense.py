"""Dense search over unit vectors, each stored under the pid of its passage.

It must not know texts, versions or votes.
"""

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.disk import version_file_errors
from rag_flywheel.index.dense_file import require_flat
from rag_flywheel.index.exact import distinct_rows, nearest_to_many, typical_cosine
from rag_flywheel.index.faiss_door import faiss_library, rows_of
from rag_flywheel.index.graph import MOST_REMOVED, Graph, build_graph, extended, load_graph
from rag_flywheel.index.graph_changes import without
from rag_flywheel.records import Pids, Vectors

FILE_NAME = "passages.faiss"
GRAPH_FROM = 20_000  # vectors; below, exact search takes about a millisecond
_MARGIN = 1.3  # times as many are kept in view as hold enough of a part on average
_QUICK_SHARE = (
    0.065  # of a part; where as many are to be in view, exact search of the part is as quick
)
_SAMPLE = 20_000  # vectors that the typical cosine is taken from
_UNIT_TOLERANCE = 0.02
_AT_ONCE = 65_536  # vectors


@dataclass(frozen=True)
class Part:
    """Some of the vectors of an index: at which positions, bool (n,), how many, and what makes faiss keep
    to them."""

    mask: npt.NDArray[np.bool_]
    n: int
    selector: Any


class DenseIndex:
    """Inner-product search over unit vectors by pid: exact, or, once they are many and no filter
    excludes most of them, by a graph that finds nearly all of the nearest (`graph.py`)."""

    def __init__(self, index: Any, pids: Pids, graph: Graph | None = None) -> None:
        self._index = index
        self.pids = pids  # ascending
        flat = faiss_library().downcast_index(index.index)
        self._quick = None if graph is None else graph.over(flat)
        self.graph = None if graph is None else graph.shared_with(self._quick)

    @classmethod
    def build(cls, pids: Pids, vectors: Vectors) -> "DenseIndex":
        """An index of float32 (n, dim) unit vectors under ascending int64 (n,) pids."""
        return cls.of_parts([(pids, vectors)], n=len(pids), dim=vectors.shape[1])

    @classmethod
    def of_parts(cls, parts: Iterable[tuple[Pids, Vectors]], *, n: int, dim: int) -> "DenseIndex":
        """`build` from n vectors in parts, so that all are in memory only once."""
        faiss = faiss_library()
        flat = faiss.IndexFlatIP(dim)
        flat.codes.resize(n * flat.code_size)  # reserves the memory at once
        flat.codes.resize(0)
        index, graph, added = faiss.IndexIDMap2(flat), None, _Added(parts)
        if n < GRAPH_FROM:
            for part in added.vectors():
                flat.add(part)
        else:
            graph = build_graph(flat, added.vectors())
        return cls(index, added.number(index, np.empty(0, dtype=np.int64)), graph)

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
        faiss, index = faiss_library(), self._index
        flat = faiss.downcast_index(index.index)
        if n_gone:
            graph = None if graph is None else without(graph, ~stays, flat, self._rows)
            index.remove_ids(faiss.IDSelectorBatch(self.pids[~stays]))
        added = _Added(parts)
        if graph is None:
            for part in added.vectors():
                flat.add(part)
        elif (graph := extended(graph, flat, added.vectors())) is None:
            return None
        return DenseIndex(index, added.number(index, self.pids[stays]), graph)

    @classmethod
    def load(cls, folder: Path, *, dim: int) -> "DenseIndex":
        """Read the index in `folder`. Raises CorruptFileError unless it holds unit vectors of this
        width under ascending pids."""
        faiss = faiss_library()
        path = folder / FILE_NAME
        with version_file_errors(path):
            require_flat(path, dim=dim)
            index = faiss.read_index(str(path))
            pids = faiss.vector_to_array(index.id_map).astype(np.int64)
            found = cls(index, pids, load_graph(folder, len(pids)))
            found._require_sense()
        return found

    def _require_sense(self) -> None:
        """Raise ValueError unless the pids ascend and every vector is finite and of unit length."""
        pids = self.pids
        if len(pids) and (pids[0] < 0 or np.any(pids[1:] <= pids[:-1])):
            raise ValueError("its numbers are not ascending")
        for start in range(0, len(pids), _AT_ONCE):
            part = self._rows[start : start + _AT_ONCE]
            with np.errstate(all="ignore"):
                squares = np.einsum("ij,ij->i", part, part)
            if not np.all(np.abs(np.sqrt(squares) - 1.0) <= _UNIT_TOLERANCE):
                raise ValueError("a vector is not of unit length")

    def save(self, folder: Path) -> None:
        """Write the index into `folder`."""
        faiss = faiss_library()
        path = str(folder / FILE_NAME)
        try:
            faiss.write_index(self._index, path)
        except RuntimeError as error:  # what faiss raises for every failed write
            number = errno.ENOSPC if "No space left" in str(error) else errno.EIO
            raise OSError(number, str(error)[:200], path) from error
        if self.graph is not None:
            self.graph.save(folder)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """Width of a vector."""
        return int(self._index.d)

    @cached_property
    def typical_cosine(self) -> float:
        """The mean cosine of two different texts (see `typical_cosine`)."""
        step = max(1, len(self) // _SAMPLE)
        return typical_cosine(distinct_rows(self._rows[::step]))

    def part(self, mask: npt.NDArray[np.bool_]) -> Part:
        """The vectors at these positions, to be searched alone."""
        selector = faiss_library().IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        return Part(mask, int(np.count_nonzero(mask)), selector)

    def search(self, queries: Vectors, n: int, part: Part | None = None) -> list[Pids]:
        """For each row of `queries`, the pids of its n nearest vectors, the nearest first.

        part: the only vectors to search; None: all. Fewer than n are returned when there are not as
        many.
        """
        there = len(self) if part is None else part.n
        n = min(n, there)
        if self._quick is None or n < 1:
            return self.search_all(queries, n, part)
        in_view = n if part is None else int(_MARGIN * n * len(self) / there)
        if part is not None and in_view > _QUICK_SHARE * there:
            return self.search_all(queries, n, part)
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
        ef = max(graph.ef_search, 2 * n, in_view)
        parameters = faiss.SearchParametersHNSW(efSearch=ef)
        k = n if part is None else ef
        _, rows = self._quick.search(np.ascontiguousarray(queries), k, params=parameters)
        if part is None:
            return [self.pids[row[row >= 0]] for row in rows]
        return [self.pids[row[(row >= 0) & part.mask[row]][:n]] for row in rows]

    def search_all(self, queries: Vectors, n: int, part: Part | None = None) -> list[Pids]:
        """`search`, always exact."""
        faiss = faiss_library()
        n = min(n, len(self) if part is None else part.n)
        if n < 1:
            return [np.empty(0, dtype=np.int64) for _ in queries]
        flat = faiss.downcast_index(self._index.index)
        parameters = None if part is None else faiss.SearchParameters(sel=part.selector)
        _, found = flat.search(np.ascontiguousarray(queries), n, params=parameters)
        return [self.pids[row[row >= 0]] for row in found]  # faiss pads with -1

    def search_many(self, queries: Vectors, n: int) -> list[Pids]:
        """`search_all` without a filter, quicker for hundreds of queries."""
        return list(self.pids[nearest_to_many(queries, self._rows, n)])

    def at(self, positions: npt.NDArray[np.int64]) -> Vectors:
        """float32 (n, dim): the vectors of pids[positions], without a search for each pid."""
        found: Vectors = self._rows[positions]
        return found

    @cached_property
    def _rows(self) -> Vectors:
        """All vectors, float32 (n, dim): the memory of the index itself."""
        return rows_of(faiss_library().downcast_index(self._index.index))

    def vectors(self, pids: Pids) -> Vectors:
        """float32 (n, dim): the vectors of these pids, which must all be in the index."""
        found: Vectors = self._index.reconstruct_batch(np.ascontiguousarray(pids))
        return found


class _Added:
    """Vectors that are added to a flat index part by part, and then numbered by their pids."""

    def __init__(self, parts: Iterable[tuple[Pids, Vectors]]) -> None:
        self._parts = parts
        self._pids: list[Pids] = []

    def vectors(self) -> Iterator[Vectors]:
        """The vectors of each part, float32 (m, dim)."""
        for pids, vectors in self._parts:
            self._pids.append(pids)
            yield np.ascontiguousarray(vectors)

    def number(self, index: Any, before: Pids) -> Pids:
        """Number the vectors of an IndexIDMap2 by pids, the first by `before`; returns all pids."""
        pids: Pids = np.ascontiguousarray(np.concatenate([before, *self._pids]), dtype=np.int64)
        faiss_library().copy_array_to_vector(pids, index.id_map)
        index.ntotal = index.index.ntotal
        index.construct_rev_map()
        return pids
