"""Computes intervals and shares of paired differences, one number a query, for benchmark reports."""

from collections.abc import Mapping

import numpy as np

from rag_flywheel.evaluate.paired import ByQuery, randomisation_test

_CELLS = 2_000_000  # random draws in memory at once


def bootstrap_interval(
    differences: ByQuery, *, level: float = 0.95, n_rounds: int = 10_000, seed: int
) -> tuple[float, float]:
    """Percentile interval of the mean difference over queries: (low, high).

    Queries are drawn with replacement n_rounds times; the ends are the (1 ∓ level) / 2 quantiles of the
    means (scipy's bootstrap). Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.
    Raises ValueError for fewer than two queries, or a level that is not between 0 and 1.
    """
    from scipy.stats import bootstrap

    n = len(differences)
    if differences.ndim != 1 or n < 2:
        raise ValueError(f"differences have shape {differences.shape}; expected (n,) with n > 1")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level}; expected a share between 0 and 1, such as 0.95")
    found = bootstrap(
        (differences,),
        np.mean,
        confidence_level=level,
        n_resamples=n_rounds,
        batch=max(1, _CELLS // n),
        method="percentile",
        random_state=np.random.default_rng(seed),  # named `rng` from scipy 1.15, which takes both
    ).confidence_interval
    return float(found.low), float(found.high)


def helped_hurt_untouched(
    differences: ByQuery, tolerance: float = 1e-9
) -> tuple[float, float, float]:
    """Shares of queries with a difference above tolerance, below −tolerance, and neither; they add to 1.

    Raises ValueError when there is no query.
    """
    if not len(differences):
        raise ValueError("there are no differences; expected one a query")
    helped = float(np.mean(differences > tolerance))
    hurt = float(np.mean(differences < -tolerance))
    untouched = float(np.mean(np.abs(differences) <= tolerance))
    return helped, hurt, untouched


def paired_difference(
    ours: Mapping[str, float], other: Mapping[str, float], seed: int
) -> dict[str, float] | None:
    """Mean, 95 % interval and p of the difference over the queries of `ours`; None below two."""
    if len(ours) < 2:
        return None
    a = np.array([ours[q] for q in sorted(ours)])
    b = np.array([other[q] for q in sorted(ours)])
    low, high = bootstrap_interval(a - b, seed=seed)
    p = randomisation_test(a, b, seed=seed)
    return {"mean": float((a - b).mean()), "low": low, "high": high, "p": p}
