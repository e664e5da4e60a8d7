"""Examples to learn from: past queries with their candidates, and what votes said of those.

It must not know where they come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag_flywheel.rank.memory import Key
from rag_flywheel.rank.parameters import Kernel
from rag_flywheel.records import Vectors

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
NEIGHBOURS = 32
_ROWS = 512


@dataclass(frozen=True)
class Examples:
    """n past queries with at most C candidates each; a row with fewer is filled up with nothing.

    vectors float32 (n, dim), unit rows; lineages int64 (n, C), -1: nothing; features float32
    (n, C, number of features); net (n, C): "helpful" less "harmful" votes; n_helpful, n_harmful
    (n,): all votes on each query; tenants int64 (n,): a number for each query's tenant.
    """

    keys: Sequence[Key]
    vectors: Vectors
    lineages: Ints
    features: npt.NDArray[np.float32]
    net: Floats
    n_helpful: Floats
    n_harmful: Floats
    tenants: Ints

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """bool (n, C): where there is a candidate."""
        return self.lineages >= 0

    def at(self, rows: Ints) -> "Examples":
        """These rows alone."""
        return Examples(
            [self.keys[i] for i in rows.tolist()],
            self.vectors[rows],
            self.lineages[rows],
            self.features[rows],
            self.net[rows],
            self.n_helpful[rows],
            self.n_harmful[rows],
            self.tenants[rows],
        )


@dataclass(frozen=True)
class Nearest:
    """The NEIGHBOURS nearest sources of each target: rows int64 (n, k) and cosines (n, k)."""

    rows: Ints
    cosines: npt.NDArray[np.float32]


def nearest(
    targets: Examples, sources: Examples, target_folds: Ints, source_folds: Ints
) -> Nearest:
    """The nearest sources of each target that are of its tenant and of another fold than it is.

    Where there are fewer than NEIGHBOURS, cosines are -2 for what is missing.
    """
    k = min(NEIGHBOURS, len(sources))
    rows = np.zeros((len(targets), k), dtype=np.int64)
    found = np.full((len(targets), k), -2.0, dtype=np.float32)
    for start in range(0, len(targets) if k else 0, _ROWS):
        part = slice(start, min(start + _ROWS, len(targets)))
        cosines = targets.vectors[part] @ sources.vectors.T
        cosines[target_folds[part, None] == source_folds[None, :]] = -2.0
        cosines[targets.tenants[part, None] != sources.tenants[None, :]] = -2.0
        best = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
        rows[part] = best
        found[part] = np.take_along_axis(cosines, best, axis=1)
    return Nearest(rows, np.minimum(found, 1.0))


@dataclass(frozen=True)
class Links:
    """Which candidates of targets the sources speak of: target candidate `to` (flat in (n, C)) is
    candidate `of` (flat in (m, C)) of the source in place `slot` (flat in (n, k)) of Nearest."""

    to: Ints
    of: Ints
    slot: Ints


def links(near: Nearest, targets: Examples, sources: Examples) -> Links:
    """Every pair of a target's candidate and the same passage as a candidate of its neighbours."""
    n, k = near.rows.shape
    width = targets.lineages.shape[1]
    if not n or not k:
        empty = np.empty(0, dtype=np.int64)
        return Links(empty, empty, empty)
    ours, theirs, many = targets.lineages, sources.lineages, sources.lineages.shape[1]
    names = int(max(ours.max(initial=0), theirs.max(initial=0))) + 2  # -1 is one of them
    to, of, slot = [], [], []
    for start in range(0, n, _ROWS):
        part = np.arange(start, min(start + _ROWS, n))
        wanted = (part[:, None] * names + ours[part]).ravel()
        by_name = np.argsort(wanted, kind="stable")
        flat = near.rows[part].ravel()
        offered = (np.repeat(part, k)[:, None] * names + theirs[flat]).ravel()
        at = np.minimum(np.searchsorted(wanted[by_name], offered), len(wanted) - 1)
        hit = by_name[at]
        match = (wanted[hit] == offered) & (sources.lineages[flat].ravel() >= 0)
        to.append(hit[match] + start * width)
        of.append((flat[:, None] * many + np.arange(many)).ravel()[match])
        slot.append(np.repeat(np.arange(len(flat)) + start * k, many)[match])
    return Links(np.concatenate(to), np.concatenate(of), np.concatenate(slot))


def worth_linking(found: Links, chances: Floats) -> Links:
    """The links whose source candidate has any chance; chances: (m, C)."""
    kept = chances.ravel()[found.of] > 0
    return Links(found.to[kept], found.of[kept], found.slot[kept])


def support(found: Links, near: Nearest, chances: Floats, kernel: Kernel, n: int) -> Floats:
    """S of every candidate of n targets, (n, C): the sum over neighbours of K · chance."""
    theta = kernel.theta
    above = np.maximum(near.cosines.astype(np.float64) - theta, 0.0) / (1.0 - theta)
    weights = (above**kernel.gamma).ravel()[found.slot] * chances.ravel()[found.of]
    shape = n, chances.shape[1]
    total = np.bincount(found.to, weights, minlength=shape[0] * shape[1])
    return total.astype(np.float64).reshape(shape)
