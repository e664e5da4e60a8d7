"""Tells whether users ask what they asked before: a two-sample test on the vectors of questions."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rag_flywheel.records import Vectors

LEAST = 10  # questions on either side
_PERMUTATIONS = 999
_AT_ONCE = 100  # permutations
_NEAREST = 5
_TIED = 1e-6  # cosines
_Array = npt.NDArray[np.float64]


class Drift(NamedTuple):
    """How different the questions of now are from those of before.

    size: of the questions of now, about the share that is unlike any before, from 0 to 1.
    p: the chance of so large an energy distance between both where nothing changed.
    """

    size: float
    p: float


def drift_of(now: Vectors, before: Vectors) -> Drift | None:
    """The drift between two samples of float32 (n, dim) unit rows, the same at each call; None where either
    has fewer than ten. Takes memory by the square of n.

    p is of the energy distance 2 E|X − Y| − E|X − X'| − E|Y − Y'| (Székely and Rizzo 2013), which is 0 only
    where both have one distribution, by 999 permutations. It is no size that says much: of questions about
    quite other topics it is some hundredths of its largest value. The size is from nearest neighbours, as
    in Schilling's test (1986).
    """
    if min(len(now), len(before)) < LEAST:
        return None
    every = np.concatenate([now, before]).astype(np.float64)
    cosines = every @ every.T
    of_now = np.repeat([1.0, 0.0], [len(now), len(before)])
    return Drift(_size(cosines, of_now), _p(cosines, of_now))


def _size(cosines: _Array, of_now: _Array) -> float:
    """The share s of new questions that explains how often the nearest ones to one of now are of before.

    If of n questions s·n are about something new and the others about what m were before, the nearest are of
    before in a share u·r / (u + r), with u = 1 − s, r = m / n.
    """
    n = int(of_now.sum())
    others = cosines[:n].copy()
    np.fill_diagonal(others, -np.inf)
    least = np.partition(others, -_NEAREST, axis=1)[:, -_NEAREST]
    near = others >= least[:, None] - _TIED  # the same words may come often, so that many are tied
    of_before = float(((near @ (1.0 - of_now)) / near.sum(axis=1)).mean())
    r = (len(of_now) - n) / (n - 1)
    if of_before >= r / (1.0 + r):  # by chance, where nothing is new
        return 0.0
    return 1.0 - of_before * r / (r - of_before)


def _p(cosines: _Array, of_now: _Array) -> float:
    from scipy.stats import permutation_test  # which commands that ask for no drift need not load

    n = int(of_now.sum())
    m = len(of_now) - n
    distances = np.sqrt(2.0 - 2.0 * np.clip(cosines, -1.0, 1.0))
    np.fill_diagonal(distances, 0.0)
    total = float(distances.sum())

    def energy(labels: _Array, axis: int = -1) -> Any:
        """The energy distances for rows of which 1 is a question of now, and 0 one of before."""
        to_now = labels @ distances
        among_now = (to_now * labels).sum(axis=axis)
        between = to_now.sum(axis=axis) - among_now
        among_before = total - among_now - 2.0 * between
        return 2.0 * between / (n * m) - among_now / n**2 - among_before / m**2

    found = permutation_test(
        [of_now],
        energy,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=_PERMUTATIONS,
        batch=_AT_ONCE,
        alternative="greater",
        random_state=np.random.default_rng(0),
    )
    return float(found.pvalue)
