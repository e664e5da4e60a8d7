"""Sets the cosine below which a past query says nothing, from how similar past queries are anyway.

It must not know where queries are stored.
"""

from dataclasses import replace

import numpy as np

from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.records import Vectors

LEAST_QUERIES = 64
_PAIRS = 50_000
_HIGHEST = 0.99  # a collection of near-duplicates still has neighbours


def with_threshold(parameters: Parameters, queries: Vectors) -> Parameters:
    """The parameters with theta at the kernel's quantile of the cosines of random pairs.

    queries: float32 (n, dim), distinct past queries, unit rows. Below 64 of them the parameters
    stay as they are. The pairs are the same for the same n, and theta is rounded to 0.001, so that
    the same queries always give the same parameters.
    """
    n = len(queries)
    if n < LEAST_QUERIES:
        return parameters
    first, second = np.random.default_rng(n).integers(0, n, (2, _PAIRS))
    distinct = first != second
    cosines = np.einsum("ij,ij->i", queries[first[distinct]], queries[second[distinct]])
    theta = float(np.quantile(cosines, parameters.kernel.theta_quantile))
    kernel = replace(parameters.kernel, theta=round(min(max(theta, 0.0), _HIGHEST), 3))
    return replace(parameters, kernel=kernel)
