"""The memory of a version: for past queries, the chance of each passage before the votes on it.

A refresh computes these chances under its parameters, with the evidence of other queries' votes; a
query's own votes are added when they are read (see `rank/posterior.py`). It must not know the store.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag_flywheel.disk import (
    all_within,
    divides,
    read_arrays,
    read_json,
    version_file_errors,
    write_arrays,
)
from rag_flywheel.records import QueryKey

FOLDER = "memory"
MOST_CHANCE = 1.001  # by rounding
_HASH = 16
_ARRAYS = {
    "queries": f"uint8 n {_HASH}",
    "offsets": "int64 n+1",
    "lineages": "int64 m",
    "chances": "float32 m",
}


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
    """Write the memory into a version folder, without pickle."""
    place = folder / FOLDER
    place.mkdir()
    hashes = np.frombuffer(b"".join(key.query_hash for key in memory.keys), dtype=np.uint8)
    hashes = hashes.reshape(-1, _HASH)
    write_arrays(place, _ARRAYS, hashes, memory.offsets, memory.lineages, memory.chances)
    tenants = json.dumps([key.tenant for key in memory.keys])
    (place / "tenants.json").write_text(tenants, encoding="utf-8")


def load_memory(folder: Path) -> Memory:
    """Read the memory of a version folder. Raises CorruptFileError."""
    place = folder / FOLDER
    with version_file_errors(place):
        tenants = read_json(place / "tenants.json", list[str | None])
        hashes, offsets, lineages, chances = read_arrays(place, _ARRAYS, n=len(tenants))
        if not divides(offsets, len(tenants), len(lineages)):
            raise ValueError("offsets.npy does not divide the passages among the queries")
        if not all_within(chances, 0.0, MOST_CHANCE):
            raise ValueError("chances.npy holds a number that is no chance")
    keys = tuple(map(QueryKey, (row.tobytes() for row in hashes), tenants))
    return Memory(keys, offsets, lineages, chances)
