"""The memory of a version: for past queries, the chance of each passage before the votes on it.

A refresh works these out under its parameters, other queries' votes taken into account; votes come
on top when they are read (see `rank/posterior.py`). It knows its files, not the store.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import starmap
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag_flywheel.disk import divides, read_array, read_json
from rag_flywheel.errors import CorruptFileError
from rag_flywheel.records import QueryKey

FOLDER = "memory"
_HASH = 16


@dataclass(frozen=True)
class Memory:
    """Past query i has passages lineages[offsets[i]:offsets[i + 1]] with these chances.

    keys: n of them; offsets int64 (n + 1,); lineages int64 (m,), chances float32 (m,).
    """

    keys: tuple[QueryKey, ...] = ()
    offsets: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    lineages: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    chances: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))

    @cached_property
    def rows(self) -> Mapping[QueryKey, int]:
        """{key: its row}."""
        return {key: i for i, key in enumerate(self.keys)}

    def before(self, row: int) -> dict[int, float]:
        """{lineage: chance before the votes} of the past query in a row."""
        part = slice(self.offsets[row], self.offsets[row + 1])
        return dict(zip(self.lineages[part].tolist(), self.chances[part].tolist(), strict=True))


def save_memory(memory: Memory, folder: Path) -> None:
    """Write it into a version folder, without pickle."""
    place = folder / FOLDER
    place.mkdir()
    hashes = np.frombuffer(b"".join(key.query_hash for key in memory.keys), dtype=np.uint8)
    np.save(place / "queries.npy", hashes.reshape(-1, _HASH), allow_pickle=False)
    np.save(place / "offsets.npy", memory.offsets, allow_pickle=False)
    np.save(place / "lineages.npy", memory.lineages, allow_pickle=False)
    np.save(place / "chances.npy", memory.chances, allow_pickle=False)
    tenants = json.dumps([key.tenant for key in memory.keys])
    (place / "tenants.json").write_text(tenants, encoding="utf-8")


def load_memory(folder: Path) -> Memory:
    """Read it from a version folder. Raises CorruptFileError."""
    place = folder / FOLDER
    try:
        hashes = read_array(place / "queries.npy")
        offsets = read_array(place / "offsets.npy")
        lineages = read_array(place / "lineages.npy")
        chances = read_array(place / "chances.npy")
        tenants = read_json(place / "tenants.json")
        _require_whole(hashes, offsets, lineages, chances, tenants)
    except (OSError, ValueError, MemoryError) as error:
        raise CorruptFileError(
            f"{place} cannot be read ({error}); run `rag-flywheel refresh` to build it anew from "
            "the database"
        ) from error
    keys = starmap(QueryKey, zip((h.tobytes() for h in hashes), tenants, strict=True))
    return Memory(tuple(keys), offsets, lineages, chances)


def _require_whole(
    hashes: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    lineages: npt.NDArray[np.int64],
    chances: npt.NDArray[np.float32],
    tenants: object,
) -> None:
    if hashes.dtype != np.uint8 or hashes.shape[1:] != (_HASH,):
        raise ValueError("queries.npy does not hold hashes of 16 bytes")
    if not isinstance(tenants, list) or not all(t is None or isinstance(t, str) for t in tenants):
        raise ValueError("tenants.json is no list of tenants")
    kinds = [str(part.dtype) for part in (offsets, lineages, chances)]
    if kinds != ["int64", "int64", "float32"] or len(hashes) != len(tenants):
        raise ValueError("its parts do not fit together")
    if not divides(offsets, len(hashes)):
        raise ValueError("offsets.npy does not divide the passages among the queries")
    if lineages.shape != chances.shape or lineages.shape != (int(offsets[-1]),):
        raise ValueError("lineages.npy and chances.npy do not fit offsets.npy")
    if not bool(np.all((chances >= 0) & (chances <= 1.001))):
        raise ValueError("chances.npy holds a number that is no chance")
