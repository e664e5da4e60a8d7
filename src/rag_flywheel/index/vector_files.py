"""Stores vectors in parts, files that never change, so that versions can share those that are the same.

    vectors/pids.npy      int64 (n,), ascending: of which texts they are
    vectors/rows.npy      int64 (n,), ascending: where the vector of each is in the parts, one after another
    vectors/NUMBER.npy    float32 (m, dim), one for each part, in the order of their numbers

A part keeps the vectors of texts that were removed, until they are too many of it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag_flywheel.disk import array_file, link, read_arrays, write_array, write_arrays
from rag_flywheel.records import Pids, Vectors

FOLDER = "vectors"
MOST_ROWS = 16_384  # of a part
MOST_UNUSED = 0.2  # of the rows of a part; with more, those that are used are written anew
_MANY = 64  # parts, beside twice as many as there need be; with more, all vectors are written anew
_ARRAYS = {"pids": "int64 n", "rows": "int64 n"}
_NAME = re.compile(r"\d{19}\.npy", re.ASCII)
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StoredParts:
    """The parts of a version and what is used of them.

    folder: of the version; sizes: rows of each part, by its file's name, in order; rows int64 (n,),
    ascending: of the vectors that are used, in all parts one after another.
    """

    folder: Path
    sizes: dict[str, int]
    rows: Rows

    def of(self, used: npt.NDArray[np.bool_]) -> "StoredParts":
        """The same with a part of the used vectors, bool (n,)."""
        return StoredParts(self.folder, self.sizes, self.rows[used])


@dataclass(frozen=True)
class _Stretch:
    """Vectors one after another, from the first to before the end. name: of the part that holds them already,
    None: they are to be written; size: its rows; rows: of the vectors in it."""

    first: int
    end: int
    name: str | None = None
    size: int = 0
    rows: Rows | None = None

    @property
    def n(self) -> int:
        return self.end - self.first


def save_vectors(
    folder: Path, pids: Pids, vectors: Vectors, before: StoredParts | None = None
) -> None:
    """Write float32 (n, dim) vectors under ascending pids into a version folder.

    before: the parts of another version that hold the first of them; these are linked where enough of a
    part is used, and not written.
    """
    place = folder / FOLDER
    place.mkdir()
    rows, start = [np.empty(0, dtype=np.int64)], 0
    for stretch in _layout(len(pids), before):
        if stretch.name is not None and stretch.rows is not None:
            assert before is not None
            link(before.folder / FOLDER / stretch.name, place / stretch.name)
            rows.append(start + stretch.rows)
            start += stretch.size
            continue
        for first in range(stretch.first, stretch.end, MOST_ROWS):
            part = vectors[first : min(first + MOST_ROWS, stretch.end)]
            write_array(place / f"{int(pids[first]):019d}.npy", part)
            rows.append(start + np.arange(len(part), dtype=np.int64))
            start += len(part)
    write_arrays(place, _ARRAYS, pids, np.concatenate(rows))


def load_vectors(folder: Path, *, dim: int) -> tuple[Pids, StoredParts]:
    """The pids of the vectors in a version folder, and the parts that hold them, which `read_into` reads.

    Raises OSError or ValueError, whatever is in the files.
    """
    place = folder / FOLDER
    pids, rows = read_arrays(place, _ARRAYS)
    names = sorted(path.name for path in place.iterdir() if _NAME.fullmatch(path.name))
    sizes = {}
    for name in names:
        with array_file(place / name) as (_, kind, shape):
            if kind != np.float32 or shape[1:] != (dim,):
                raise ValueError(
                    f"{name} holds {kind} {shape}; expected float32 rows of width {dim}"
                )
            sizes[name] = shape[0]
    if np.any(rows[1:] <= rows[:-1]) or (
        len(rows) and not 0 <= rows[0] <= rows[-1] < sum(sizes.values())
    ):
        raise ValueError("rows.npy names a vector that is not there, or not in order")
    if len(pids) and (pids[0] < 0 or np.any(pids[1:] <= pids[:-1])):
        raise ValueError("its numbers are not ascending")
    return pids, StoredParts(folder, sizes, rows)


def read_into(target: Vectors, stored: StoredParts) -> None:
    """Read the used vectors into float32 (n, dim). Raises OSError or ValueError."""
    start = at = 0
    for name, size in stored.sizes.items():
        end = at + int(np.searchsorted(stored.rows[at:], start + size))
        with array_file(stored.folder / FOLDER / name) as (file, kind, shape):
            if kind != np.float32 or shape != (size, target.shape[1]):
                raise ValueError(f"{name} was changed while it was read")
            whole = end - at == size
            rows = target[at:end] if whole else np.empty(shape, dtype=np.float32)
            if rows.size and file.readinto(rows.data.cast("B")) != rows.nbytes:
                raise ValueError(f"{name} was cut short while it was read")
        if not whole:
            np.take(rows, stored.rows[at:end] - start, axis=0, out=target[at:end])
        start, at = start + size, end


def _layout(n: int, before: StoredParts | None) -> Sequence[_Stretch]:
    """The parts of n vectors, and the stretches between them that are to be written.

    What comes last is put together with small parts before it, so that parts stay few: of parts that are
    not put together each is larger than all that come after it.
    """
    stretches = list(_stretches(n, before))
    if len(stretches) > 2 * (n // MOST_ROWS) + _MANY:
        return [_Stretch(0, n)]
    last = stretches.pop() if stretches and stretches[-1].name is None else _Stretch(n, n)
    if last.n:
        while stretches and stretches[-1].n <= last.n and stretches[-1].n + last.n <= MOST_ROWS:
            last = _Stretch(stretches.pop().first, n)
        stretches.append(last)
    return stretches


def _stretches(n: int, before: StoredParts | None) -> Iterator[_Stretch]:
    """The parts of before of which enough is used, and the stretches between and after them."""
    start = at = written_from = 0
    for name, size in before.sizes.items() if before is not None else ():
        assert before is not None
        end = at + int(np.searchsorted(before.rows[at:], start + size))
        if end - at >= (1.0 - MOST_UNUSED) * size and end > at:
            if at > written_from:
                yield _Stretch(written_from, at)
            yield _Stretch(at, end, name, size, before.rows[at:end] - start)
            written_from = end
        start, at = start + size, end
    if n > written_from:
        yield _Stretch(written_from, n)
