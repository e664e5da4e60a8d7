"""Paired significance tests of two systems on the same queries.

It is given one number a query; it must not know what was measured, nor on what.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

ByQuery: TypeAlias = npt.NDArray[np.float64]
"""float64 (n_queries,): one measure, or one difference of measures, a query."""

_DRAWS = 2_000_000  # random draws in memory at once


def randomisation_test(a: ByQuery, b: ByQuery, *, n_rounds: int = 10_000, seed: int) -> float:
    """Two-sided p value of mean(a) = mean(b) under random swaps of the two values of each query.

    p = (1 + c) / (1 + n_rounds), c: rounds of random signs whose |sum of differences| is at least the
    one seen. The test is Fisher's, as recommended for retrieval by Smucker, Allan and Carterette (CIKM
    2007); the added one is Davison and Hinkley (1997), Bootstrap Methods, 4.2.5: p is never 0.
    Not scipy's permutation_test, which needs 1 to 4 s where this needs 0.1 s (n = 300 to 4,000).
    Raises ValueError when a and b are not of one length, or empty.
    """
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError(f"a and b have shapes {a.shape}, {b.shape}; expected one (n,) with n > 0")
    return _p_value(np.asarray(a, dtype=np.float64) - b, n_rounds, seed, np.abs)


def better_test(differences: ByQuery, *, n_rounds: int = 10_000, seed: int) -> float:
    """One-sided p value of mean(differences) <= 0 under random signs, as in `randomisation_test`.

    p = (1 + c) / (1 + n_rounds), c: rounds whose sum is at least the one seen. Raises ValueError
    when there is no query.
    """
    if differences.ndim != 1 or not len(differences):
        raise ValueError(f"differences have shape {differences.shape}; expected (n,) with n > 0")
    return _p_value(np.asarray(differences, dtype=np.float64), n_rounds, seed, np.positive)


def _p_value(
    differences: ByQuery, n_rounds: int, seed: int, statistic: Callable[[ByQuery], ByQuery]
) -> float:
    """(1 + c) / (1 + n_rounds), c: rounds of random signs in which the statistic of the sum of
    differences is at least the one seen."""
    # Queries without a difference add nothing in any round, and rounding must not hide a tie.
    changed = differences[differences != 0.0]
    seen = statistic(changed.sum()) - 1e-12 * np.abs(changed).sum()
    rng, extreme = np.random.default_rng(seed), 0
    size = max(1, _DRAWS // max(len(changed), 1))
    for start in range(0, n_rounds, size):
        shape = min(size, n_rounds - start), len(changed)
        signs = rng.integers(0, 2, size=shape, dtype=np.int8)
        sums = 2.0 * (signs @ changed) - changed.sum()
        extreme += int((statistic(sums) >= seen).sum())
    return (1 + extreme) / (1 + n_rounds)
