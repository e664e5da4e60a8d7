"""Scores candidates by the logarithm of the chance that a passage is the answer to a query.

    prior(q, p) = exp(weights · features) / sum over the candidates
    before(q, p) = (n0 · prior + S) / (n0 + sum of S),  S = Σ_t K(q, q_t) · chance_t(p)
    P(q, p)      = before · R / sum over all passages,  R = the odds of the votes on the same question

`before` is the mean of a Dirichlet posterior: n0 neighbours' worth of prior, and one answer for each
similar past query, spread over the passages by the votes on it (see `rank/posterior.py`). Votes on
the same question count in full, by Bayes' rule. Without votes the order is the prior's (two priors
that differ by less than rounding may tie).
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rag_flywheel.rank.features import FEATURES, GIVEN
from rag_flywheel.rank.given import score_features
from rag_flywheel.rank.parameters import Kernel, Parameters
from rag_flywheel.records import Explanation, Features, Pids, Scores

if TYPE_CHECKING:
    from rag_flywheel.rank.evidence import Evidence

_FARTHEST = 12.0  # log-odds that a score can put a candidate below the best of its call
POOL = 50  # the candidates that a prior is spread over: the best


@dataclass(frozen=True)
class Scored:
    """Scores of candidates, and the parts that add up to them: intercept + terms + evidence.

    terms: float64 (n, number of names).
    """

    scores: Scores
    intercept: float
    names: tuple[str, ...]
    terms: npt.NDArray[np.float64]
    evidence: Scores

    def explanation(self, i: int, votes: tuple[int, ...]) -> Explanation:
        """Why candidate i has its score."""
        terms = dict(zip(self.names, self.terms[i].tolist(), strict=True))
        return Explanation(self.intercept, terms, float(self.evidence[i]), votes)


@dataclass(frozen=True)
class Votes:
    """The evidence of votes for n candidates, float64 (n,) each.

    support: S of similar past queries. log_odds: of the votes on the same question. least: the least
    chance before those votes.
    """

    support: npt.NDArray[np.float64]
    log_odds: npt.NDArray[np.float64]
    least: npt.NDArray[np.float64]

    @classmethod
    def of(cls, evidence: "Evidence", lineages: Pids) -> "Votes":
        """The evidence for these passage texts."""
        amounts, log_odds = evidence.amounts(lineages), evidence.log_odds(lineages)
        return cls(amounts, log_odds, evidence.least(lineages))


def score(parameters: Parameters, features: Features, votes: Votes) -> Scored:
    """Score candidates with features float32 (n, 9) and the evidence of votes for each."""
    weights = parameters.vector[: len(FEATURES)]
    return _posterior(FEATURES, features * weights, votes, parameters.kernel)


def score_given(
    parameters: Parameters,
    scores: npt.NDArray[np.float64],
    votes: Votes,
    text: Features | None = None,
) -> Scored:
    """Score an application's own candidates by their own scores, float64 (n,), texts and votes.

    text: the features of their texts, float32 (n, 8), in the order of GIVEN after the first two; None:
    their weights are 0. With the shipped weights the prior keeps the order of the scores and lays them
    between the best and one `candidate_spread` log-odds below it, in proportion to the scores.
    """
    weights = parameters.vector[len(FEATURES) :]
    terms = score_features(scores) * weights[:2]
    np.maximum(terms[:, 1], -_FARTHEST, out=terms[:, 1])  # of a retriever with another scale
    if text is not None:
        terms = np.concatenate([terms, text * weights[2:]], axis=1)
    elif not weights[1]:
        terms = terms[:, :1]
    return _posterior(GIVEN[: terms.shape[1]], terms, votes, parameters.kernel)


def log_normaliser(values: npt.NDArray[np.float64]) -> float:
    """log Σ exp over the POOL largest values; 0 when there are none."""
    if not len(values):
        return 0.0
    best = values if len(values) <= POOL else np.partition(values, -POOL)[-POOL:]
    top = float(best.max())
    return top + float(np.log(np.exp(best - top).sum()))


def _posterior(
    names: tuple[str, ...],
    terms: npt.NDArray[np.float64],
    votes: Votes,
    kernel: Kernel,
) -> Scored:
    support = votes.support
    prior = np.zeros(len(support))
    for column in terms.T:
        prior = prior + column
    normaliser = log_normaliser(prior)
    shift = np.zeros(len(prior))
    moved = np.flatnonzero(support > 0)
    if len(moved):
        log_prior = prior[moved] - normaliser
        shift[moved] = np.logaddexp(0.0, np.log(support[moved] / kernel.n0) - log_prior)
    intercept = -normaliser - float(np.log1p(support.sum() / kernel.n0))
    if votes.log_odds.any():
        before = prior + intercept + shift
        with np.errstate(divide="ignore"):
            shift += np.maximum(np.log(votes.least) - before, 0.0) + votes.log_odds
        intercept -= _log_of_all(before, prior + intercept + shift)
    return Scored(prior + intercept + shift, intercept, names, terms, shift)


def _log_of_all(before: Scores, after: Scores) -> float:
    """The logarithm of the sum, over all passages, of chances times the odds of votes.

    before, after: the logarithms of the candidates' chances, and of those times the odds; passages
    that are no candidates have no votes.
    """
    others = max(0.0, 1.0 - float(np.exp(np.minimum(before, 0.0)).sum()))
    top = float(after.max())
    total = float(np.exp(after - top).sum()) + others * math.exp(min(-top, 700.0))
    return top + math.log(total)


def order(scores: Scores, pids: Pids) -> npt.NDArray[np.int64]:
    """Positions of candidates from the best to the worst; equal scores in the order of their pids."""
    found: npt.NDArray[np.int64] = np.lexsort((pids, -scores))
    return found
