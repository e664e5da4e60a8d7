"""Computes the cosine below which a past query is no evidence, from the cosines of random pairs."""

from collections.abc import Sequence

import numpy as np

from rag_flywheel.records import Vectors

_MOST = 1_000  # past queries that pairs are taken from
_HIGHEST = 0.99  # a collection of near-duplicates still has neighbours


def thetas(queries: Vectors, quantiles: Sequence[float]) -> list[float]:
    """Quantiles of the cosines of random pairs of past queries, each from 0 to 0.99.

    queries: float32 (n, dim), n > 1 distinct past queries, unit rows. Pairs are taken from at most
    1,000 of them, the same ones for the same n, and thetas are rounded to 0.001, so that the same
    queries always give the same.
    """
    n = len(queries)
    some = queries[np.random.default_rng(n).permutation(n)[:_MOST]] if n > _MOST else queries
    cosines = (some @ some.T)[np.triu_indices(len(some), 1)]
    found = np.quantile(cosines, quantiles)
    return [round(min(max(float(theta), 0.0), _HIGHEST), 3) for theta in found]
