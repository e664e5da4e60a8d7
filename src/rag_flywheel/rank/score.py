"""The score of candidates: prior log-odds, and how far evidence moves them.

    P(q, p) = (n0 · prior + H) / (n0 + H + N), the mean of a Beta posterior; the score is its log-odds.

A candidate without evidence keeps its prior's log-odds to the last bit. This module must not know
what the features are, nor where the evidence comes from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rag_flywheel.rank.parameters import Kernel, Parameters
from rag_flywheel.records import Explanation, Pids, Scores

_HUGE = 1e300  # the difference of two such scores may overflow


@dataclass(frozen=True)
class Scored:
    """Scores of candidates, and the parts that add up to them: intercept + terms + evidence."""

    scores: Scores
    intercept: float
    terms: Mapping[str, Scores]
    evidence: Scores

    def explanation(self, i: int, votes: tuple[int, ...]) -> Explanation:
        """Why candidate i has its score."""
        terms = {name: values[i] for name, values in self._columns.items()}
        return Explanation(self.intercept, terms, float(self.evidence[i]), votes)

    @cached_property
    def _columns(self) -> Mapping[str, list[float]]:
        return {name: values.tolist() for name, values in self.terms.items()}


def score(
    parameters: Parameters,
    features: Mapping[str, npt.NDArray[np.floating]],
    helpful: npt.NDArray[np.float64],
    harmful: npt.NDArray[np.float64],
) -> Scored:
    """Score candidates with these features, each (n,), and evidence H and N, each float64 (n,)."""
    terms = {
        name: parameters.weights[name] * np.asarray(values, dtype=np.float64)
        for name, values in features.items()
    }
    return _posterior(parameters.intercept, terms, helpful, harmful, parameters.kernel)


def score_given(
    parameters: Parameters,
    scores: npt.NDArray[np.float64],
    helpful: npt.NDArray[np.float64],
    harmful: npt.NDArray[np.float64],
) -> Scored:
    """Score an application's own candidates, whose scores have no known scale.

    The prior keeps their order and lays them between even odds for the best and
    `candidate_spread` log-odds less for the worst, in proportion to their scores.
    """
    largest = float(np.abs(scores).max(initial=0.0))
    scaled = scores / 4.0 if largest > _HUGE else scores
    below = scaled.max(initial=-np.inf) - scaled
    span = below.max(initial=0.0)
    terms = {"candidate": -parameters.candidate_spread * (below / (span if span > 0 else 1.0))}
    return _posterior(0.0, terms, helpful, harmful, parameters.kernel)


def _posterior(
    intercept: float,
    terms: Mapping[str, Scores],
    helpful: npt.NDArray[np.float64],
    harmful: npt.NDArray[np.float64],
    kernel: Kernel,
) -> Scored:
    prior = np.full(len(helpful), intercept)
    for values in terms.values():
        prior = prior + values
    shift = np.zeros(len(prior))
    moved = np.flatnonzero(helpful + harmful > 0)
    if len(moved):
        z, log_n0 = prior[moved], np.log(kernel.n0)
        with np.errstate(divide="ignore"):  # the logarithm of no votes is -inf, as it should be
            log_helpful, log_harmful = np.log(helpful[moved]), np.log(harmful[moved])
        yes = np.logaddexp(log_n0 - np.logaddexp(0.0, -z), log_helpful)
        no = np.logaddexp(log_n0 - np.logaddexp(0.0, z), log_harmful)
        shift[moved] = yes - no - z
    return Scored(prior + shift, intercept, terms, shift)


def order(scores: Scores, pids: Pids) -> npt.NDArray[np.int64]:
    """Positions of candidates from the best to the worst; equal scores in the order of their pids."""
    found: npt.NDArray[np.int64] = np.lexsort((pids, -scores))
    return found
