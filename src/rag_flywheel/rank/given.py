"""Computes the features of an application's own candidates from the scores they come with.

It must not know which retriever gave the scores: they may be cosines, negated distances, reciprocal
ranks, or sums of BM25.
"""

import numpy as np
import numpy.typing as npt

LARGEST = 1e30  # of a difference of two scores; larger ones count as this one
_HUGE = 1e300  # the difference of two such scores may overflow


def score_features(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """float64 (n, 2): the features `candidate` and `score` of candidates with finite scores, (n,)."""
    largest = float(np.abs(scores).max(initial=0.0))
    scaled = scores / 4.0 if largest > _HUGE else scores
    below = scaled - scaled.max(initial=-np.inf)
    span = -below.min(initial=0.0)
    return np.stack([below / (span if span > 0 else 1.0), np.maximum(below, -LARGEST)], axis=1)


def best_given(scores: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.int64]:
    """Positions of the n highest scores, ascending; of equal ones the first go first."""
    found: npt.NDArray[np.int64] = np.sort(np.lexsort((np.arange(len(scores)), -scores))[:n])
    return found
