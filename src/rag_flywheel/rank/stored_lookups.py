"""Stores in a version the candidates of past queries with their features, as arrays.

A refresh of the same passages need not look them up again. This module must not know the store, nor
what the names of rows are made of.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag_flywheel.disk import (
    all_below,
    all_within,
    divides,
    read_arrays,
    version_file_errors,
    write_arrays,
)
from rag_flywheel.rank.features import FEATURES, MEASURES
from rag_flywheel.rank.score import POOL
from rag_flywheel.records import Features, Pids

FOLDER = "lookups"
_NAME, _WIDTH = 16, len(FEATURES) + len(MEASURES)
_LARGEST, _MOST = 2**62, 1e6  # lineage, feature
_ARRAYS = {
    "names": f"uint8 n {_NAME}",
    "offsets": "int64 n+1",
    "lineages": "int64 m",
    "features": f"float32 m {_WIDTH}",
}
Row = tuple[Pids, Features]
"""Lineages int64 (c,) of the candidates of a query, at most 50; features and measures float32 (c, 14)."""


@dataclass(frozen=True)
class StoredLookups:
    """Row i has names[i], and lineages and features from offsets[i] to offsets[i + 1].

    names uint8 (n, 16), each once; offsets int64 (n + 1,); lineages int64 (m,); features float32 (m, 14).
    """

    names: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, _NAME), np.uint8))
    offsets: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))
    lineages: Pids = field(default_factory=lambda: np.empty(0, np.int64))
    features: Features = field(default_factory=lambda: np.empty((0, _WIDTH), np.float32))

    @classmethod
    def of(cls, rows: Mapping[bytes, Row]) -> "StoredLookups":
        """Rows by their names of 16 bytes, in the order of the names: it tells nothing of when the
        queries were asked."""
        if not rows:
            return cls()
        names = sorted(rows)
        return cls(
            np.frombuffer(b"".join(names), np.uint8).reshape(-1, _NAME),
            np.cumsum([0, *(len(rows[name][0]) for name in names)], dtype=np.int64),
            np.concatenate([rows[name][0] for name in names]),
            np.concatenate([rows[name][1] for name in names]),
        )

    def __len__(self) -> int:
        return len(self.names)

    def find(self, name: bytes) -> Row | None:
        """The row of this name, None: there is none."""
        i = self._places.get(name)
        if i is None:
            return None
        part = slice(self.offsets[i], self.offsets[i + 1])
        return self.lineages[part], self.features[part]

    @cached_property
    def _places(self) -> Mapping[bytes, int]:
        return {name.tobytes(): i for i, name in enumerate(self.names)}


def save_stored_lookups(lookups: StoredLookups, folder: Path) -> None:
    """Write stored lookups into a version folder, without pickle; none where there are no rows."""
    if len(lookups):
        place = folder / FOLDER
        place.mkdir()
        arrays = lookups.names, lookups.offsets, lookups.lineages, lookups.features
        write_arrays(place, _ARRAYS, *arrays)


def load_stored_lookups(folder: Path) -> StoredLookups:
    """Read the lookups of a version, which may have none. Raises CorruptFileError."""
    place = folder / FOLDER
    with version_file_errors(place):
        if not place.exists():
            return StoredLookups()
        lookups = StoredLookups(*read_arrays(place, _ARRAYS))
        _require_sense(lookups)
    return lookups


def _require_sense(lookups: StoredLookups) -> None:
    """Raise ValueError unless rows have a name each and every number is possible."""
    if not divides(lookups.offsets, len(lookups), len(lookups.lineages)):
        raise ValueError("lineages.npy is not divided among the names")
    if np.any(np.diff(lookups.offsets) > POOL):
        raise ValueError(f"offsets.npy gives a query more than {POOL} candidates")
    if not all_below(lookups.lineages, _LARGEST):
        raise ValueError("lineages.npy holds an impossible number")
    features, measures = np.split(lookups.features, [len(FEATURES)], axis=1)
    known = measures[~np.isnan(measures)]
    if not all_within(features, -_MOST, _MOST) or not all_within(known, -_MOST, _MOST):
        raise ValueError("features.npy holds an impossible number")
    if len(lookups._places) != len(lookups):
        raise ValueError("names.npy holds a name twice")
