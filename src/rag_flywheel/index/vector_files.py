"""Stores vectors in parts, which versions can share (see `parts.py`).

vectors/pids.npy      int64 (n,), ascending: of which texts they are
vectors/rows.npy      int64 (n,), ascending: where the vector of each is in the parts, one after another
vectors/NUMBER.npy    float32 (m, dim), one for each part, in the order of their numbers
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag_flywheel.disk import array_file, link, read_arrays, write_array, write_arrays
from rag_flywheel.index.parts import Rows, layout, pieces
from rag_flywheel.records import Pids, Vectors

FOLDER = "vectors"
_ARRAYS = {"pids": "int64 n", "rows": "int64 n"}
_NAME = re.compile(r"\d{19}\.npy", re.ASCII)


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
    sizes, used = ({}, rows[0]) if before is None else (before.sizes, before.rows)
    for stretch in layout(len(pids), sizes, used):
        if stretch.name is not None and stretch.rows is not None:
            assert before is not None
            link(before.folder / FOLDER / stretch.name, place / stretch.name)
            rows.append(start + stretch.rows)
            start += stretch.size
            continue
        for first, end in pieces(stretch):
            part = vectors[first:end]
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
