"""Holds the examples to learn from: past queries with their candidates and the votes on them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.nearest import Nearest, nearest_rows
from rag_flywheel.index.spans import places_of
from rag_flywheel.rank.features import FEATURES
from rag_flywheel.rank.parameters import Kernel
from rag_flywheel.rank.posterior import CORRECTION_WEIGHT
from rag_flywheel.records import QueryKey, Vectors

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
NEIGHBOURS = 32
_ROWS = 512
_CELLS = 2**21  # of a table of targets and passages
_FOLDS = 5


@dataclass(frozen=True)
class Examples:
    """n past queries with at most C candidates each; rows with fewer are padded.

    vectors float32 (n, dim), unit rows; lineages int64 (n, C), -1: padding; features float32
    (n, C, number of features); helpful, harmful (n, C): the votes of either kind on each candidate, a
    named one having CORRECTION_WEIGHT more that are "helpful"; tenants int64 (n,): a number for each
    query's tenant; chosen (n, C): the largest part of each candidate in a judged answer, 0 to 1, None:
    no answer was judged; n_named (n,): how often a user named a candidate, None: never. given bool
    (n,): whether a query's candidates were an application's own, None: no query's. The features are
    FEATURES and, where there are own candidates, GIVEN after them; those of the other sort are 0.
    measures float32 (n, C, 5): those of relevance, nan where unknown; None: of no candidate. trust: as
    that of the parameters that they were made under.
    """

    keys: Sequence[QueryKey]
    vectors: Vectors
    lineages: Ints
    features: npt.NDArray[np.floating[Any]]
    helpful: Floats
    harmful: Floats
    tenants: Ints
    chosen: Floats | None = None
    n_named: Floats | None = None
    given: npt.NDArray[np.bool_] | None = None
    measures: npt.NDArray[np.float32] | None = None
    trust: float = 1.0

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """bool (n, C): where there is a candidate."""
        return self.lineages >= 0

    @property
    def voted(self) -> npt.NDArray[np.bool_]:
        """bool (n, C): which candidates have votes."""
        found: npt.NDArray[np.bool_] = (self.helpful > 0.0) | (self.harmful > 0.0)
        return found

    @property
    def net(self) -> Floats:
        """(n, C): "helpful" less "harmful" votes."""
        return self.helpful - self.harmful

    @property
    def n_helpful(self) -> Floats:
        """(n,): "helpful" votes on each query, without named candidates."""
        total: Floats = self.helpful.sum(axis=1)
        return total if self.n_named is None else total - CORRECTION_WEIGHT * self.n_named

    @property
    def n_harmful(self) -> Floats:
        """(n,): "harmful" votes on each query."""
        total: Floats = self.harmful.sum(axis=1)
        return total

    @cached_property
    def near(self) -> Nearest:
        """The nearest examples of each, of any tenant, itself among them."""
        return nearest_rows(self.vectors, self.vectors, 2 * NEIGHBOURS)

    @cached_property
    def cross_near(self) -> Nearest:
        """The nearest examples of each that are of another of five random folds, the same ones each time."""
        folds = np.random.default_rng(0).permutation(len(self)) % _FOLDS
        return nearest(self, self, folds, folds)

    @cached_property
    def passages(self) -> tuple[Ints, int]:
        """Numbers of the candidates' passages, int64 (n, C), from 0 to one less than how many there are;
        and that number, which padding has too."""
        names, numbers = np.unique(self.lineages, return_inverse=True)
        numbers = numbers.reshape(self.lineages.shape)
        if len(names) and names[0] < 0:
            numbers = np.where(self.lineages < 0, len(names) - 1, numbers - 1)
            return numbers, len(names) - 1
        return numbers, len(names)

    def last(self, n: int) -> "Examples":
        """The last n rows; the same object each time, so that their neighbours are cached."""
        first = len(self) - n
        if first <= 0:
            return self
        if n not in self._lasts:
            self._lasts[n] = self.at(np.arange(first, len(self)))
        return self._lasts[n]

    @cached_property
    def _lasts(self) -> "dict[int, Examples]":
        return {}

    def at(self, rows: Ints) -> "Examples":
        """These rows alone."""
        return Examples(
            [self.keys[i] for i in rows.tolist()],
            self.vectors[rows],
            self.lineages[rows],
            self.features[rows],
            self.helpful[rows],
            self.harmful[rows],
            self.tenants[rows],
            None if self.chosen is None else self.chosen[rows],
            None if self.n_named is None else self.n_named[rows],
            None if self.given is None else self.given[rows],
            None if self.measures is None else self.measures[rows],
            self.trust,
        )


def n_with_feature(examples: Examples) -> npt.NDArray[np.int64]:
    """How many candidates have each feature, int64 (d,), at least 1."""
    d, n = examples.features.shape[2], examples.present.sum(axis=1)
    if examples.given is None:
        return np.full(d, max(int(n.sum()), 1))
    of_index, of_given = int(n[~examples.given].sum()), int(n[examples.given].sum())
    found = np.full(d, max(of_given, 1))
    found[: len(FEATURES)] = max(of_index, 1)
    return found


def nearest_of(targets: Examples, sources: Examples) -> Nearest:
    """The nearest sources of each target, of any tenant."""
    return nearest_rows(targets.vectors, sources.vectors, 2 * NEIGHBOURS)


def nearest(
    targets: Examples,
    sources: Examples,
    target_folds: Ints,
    source_folds: Ints,
    near: Nearest | None = None,
) -> Nearest:
    """The nearest sources of each target that are of its tenant and of another fold than it is.

    Where there are fewer than NEIGHBOURS, the missing ones have cosine -2. near: the nearest sources
    of any tenant and fold, None: searched here.
    """
    k = min(NEIGHBOURS, len(sources))
    if near is None:
        near = targets.near if targets is sources else nearest_of(targets, sources)

    def allowed(part: Ints, rows: Ints) -> npt.NDArray[np.bool_]:
        found: npt.NDArray[np.bool_] = (target_folds[part, None] != source_folds[rows]) & (
            targets.tenants[part, None] == sources.tenants[rows]
        )
        return found

    every = np.arange(len(targets))
    kept = allowed(every, near.rows)
    first = np.argsort(~kept, axis=1, kind="stable")[:, :k]
    rows = np.take_along_axis(near.rows, first, axis=1)
    cosines = np.take_along_axis(np.where(kept, near.cosines, np.float32(-2.0)), first, axis=1)
    if near.rows.shape[1] < len(sources):  # the nearest of any tenant and fold may not be enough
        lacking = every[kept.sum(axis=1) < k]
        for part in np.array_split(lacking, len(lacking) // _ROWS + 1):
            full = np.minimum(targets.vectors[part] @ sources.vectors.T, np.float32(1.0))
            full[~allowed(part, np.arange(len(sources))[None, :])] = -2.0
            best = np.argpartition(-full, k - 1, axis=1)[:, :k]
            rows[part], cosines[part] = best, np.take_along_axis(full, best, axis=1)
    return Nearest(rows, cosines)


@dataclass(frozen=True)
class Links:
    """The candidates that targets share with sources: target candidate `to` (flat in (n, C)) is
    candidate `of` (flat in (m, C)) of the source in place `slot` (flat in (n, k)) of Nearest."""

    to: Ints
    of: Ints
    slot: Ints

    @classmethod
    def none(cls) -> "Links":
        """No links."""
        empty = np.empty(0, dtype=np.int64)
        return cls(empty, empty, empty)


def links(
    near: Nearest,
    targets: Examples,
    sources: Examples,
    chances: Floats,
    weights: Floats | None = None,
) -> Links:
    """Every pair of a target's candidate and the same passage as a candidate of its neighbours.

    chances: of the sources' candidates, (m, C); those with none are left out. weights: K of each
    neighbour, (n, k); those of weight 0, to whose messages nothing is added, are left out; None: all stay.
    """
    n, k = near.rows.shape
    width = targets.lineages.shape[1]
    at = np.flatnonzero((chances > 0).ravel() & (sources.lineages >= 0).ravel())
    if not n or not k or not len(at):
        return Links.none()
    passages, own, n_names = _numbered(targets, sources, at)
    starts = np.searchsorted(at, np.arange(len(sources) + 1) * sources.lineages.shape[1])
    begins, many_of = starts[:-1], np.diff(starts)
    many = max(1, min(_ROWS, _CELLS // n_names))  # targets at a time
    column = np.full(many * n_names, -1, dtype=np.int16)  # of each passage in the row of a target
    to, of, slot = [], [], []
    for start in range(0, n, many):
        part = own[start : start + many]
        row, place = np.nonzero(part >= 0)
        cells = row * n_names + part[row, place]
        column[cells[::-1]] = place[::-1]  # of equal ones the first stays
        flat = near.rows[start : start + many].ravel()
        counts = many_of[flat]
        if weights is not None:
            counts[weights[start : start + many].ravel() <= 0.0] = 0
        offered = places_of(begins[flat], counts)
        slots = np.repeat(np.arange(len(flat)), counts)
        found = column[slots // k * n_names + passages[offered]]
        column[cells] = -1
        match = np.flatnonzero(found >= 0)
        slots = slots[match] + start * k
        to.append(slots // k * width + found[match])
        of.append(at[offered[match]])
        slot.append(slots)
    return Links(np.concatenate(to), np.concatenate(of), np.concatenate(slot))


def _numbered(targets: Examples, sources: Examples, at: Ints) -> tuple[Ints, Ints, int]:
    """(numbers of the passages of these candidates of the sources, flat in (m, C), from 0 on; the numbers
    of the targets' candidates, (n, C), -1: not among them; how many there are)."""
    if targets is not sources:
        names, passages = np.unique(sources.lineages.ravel()[at], return_inverse=True)
        own = np.minimum(np.searchsorted(names, targets.lineages), len(names) - 1)
        own[names[own] != targets.lineages] = -1
        return passages, own, len(names)
    numbers, n = sources.passages  # found once: sorting half a million lineages takes its time
    there = np.zeros(n + 1, dtype=np.bool_)
    there[numbers.ravel()[at]] = True
    new = np.cumsum(there) - 1
    n_names = int(new[-1]) + 1
    new[~there] = -1
    every = new[numbers]
    return every.ravel()[at], every, n_names


def support(found: Links, chances: Floats, weights: Floats, width: int) -> Floats:
    """S of every candidate, (n, width): the sum over neighbours of K · chance.

    chances: one for each link; weights: K of each neighbour, (n, k).
    """
    n = len(weights)
    total = np.bincount(found.to, weights.ravel()[found.slot] * chances, minlength=n * width)
    return total.astype(np.float64).reshape(n, width)


def all_support(near: Nearest, chances: Floats, weights: Floats) -> Floats:
    """The sum of S over all passages, (n,), also over those that are no candidates of the target.

    chances: of the sources' candidates, (m, C); weights: K of each neighbour, (n, k).
    """
    found: Floats = (weights * chances.sum(axis=1)[near.rows]).sum(axis=1)
    return found


def sums_of_support(
    found: Links,
    near: Nearest,
    chances: Floats,
    values: tuple[Floats, Floats],
    kernels: Iterable[Kernel],
) -> Iterator[tuple[Floats, Floats]]:
    """For each kernel the sums over all passages of S · value, (n,), for either of the values.

    chances: of the sources' candidates, (m, C); values: of the targets' candidates, (n, C); the value
    of all other passages is 1.
    """
    n, width = values[0].shape
    row, chance = found.to // width, chances.ravel()[found.of]
    one, other = (chance * (value.ravel()[found.to] - 1.0) for value in values)
    for kernel in kernels:
        weights = kernel_weights(near, kernel)
        every, by_link = all_support(near, chances, weights), weights.ravel()[found.slot]
        some = np.flatnonzero(by_link)
        here, by_link = row[some], by_link[some]
        yield (
            every + np.bincount(here, by_link * one[some], minlength=n),
            every + np.bincount(here, by_link * other[some], minlength=n),
        )


def kernel_weights(near: Nearest, kernel: Kernel) -> Floats:
    """K of each neighbour, (n, k)."""
    theta = kernel.theta
    weights = np.maximum(near.cosines.astype(np.float64) - theta, 0.0) / (1.0 - theta)
    above = weights > 0.0
    weights[above] **= kernel.gamma
    return weights


@dataclass(frozen=True)
class Golden:
    """Queries with known answers, which have no votes: {lineage: grade} of each."""

    queries: Examples
    answers: Sequence[Mapping[int, float]]


def no_golden(like: Examples) -> Golden:
    """No golden query at all."""
    return Golden(like.at(np.empty(0, dtype=np.int64)), [])
