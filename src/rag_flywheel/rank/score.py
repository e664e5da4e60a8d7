"""Scores candidates by the chance that a passage answers a query.

    prior(q, p) = exp(weights · features) / sum over the candidates

Where exactly one passage is the answer, the score is the logarithm of its chance:

    before(q, p) = (n0 · prior + S) / (n0 + sum of S),  S = Σ_t K(q, q_t) · chance_t(p)
    P(q, p)      = before · R / sum over all passages,  R = the odds of the votes on the same question

`before` is the mean of a Dirichlet posterior: n0 neighbours' worth of prior, and one answer for each
similar past query, spread over the passages by the votes on it (see `rank/posterior.py`). Where any
number of passages may be right, each is judged on its own, and the score is log(−log(1 − P)), which is
the logarithm of the expected number of right answers that it is, P being next to that while small:

    before(q, p) = (n0 · (1 − exp(−answers · prior)) + S) / (n0 + Σ_t K)  over q_t that say anything of p
    odds of P    = odds of before · R

Votes on the same question count in full, by Bayes' rule. Without votes the order is the prior's (two
priors that differ by less than rounding may tie). Known answers of the very question come first,
whatever votes say: those of a higher grade before those of a lower one, else in the order above.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rag_flywheel.rank.features import FEATURES, GIVEN
from rag_flywheel.rank.given import score_features
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.records import Explanation, Features, KnownAnswer, Pids, Scores

if TYPE_CHECKING:
    from rag_flywheel.rank.evidence import Evidence

_FARTHEST = 12.0  # log-odds that a score can put a candidate below the best of its call
_SMALL = -30.0  # log-odds of chances that are next to their odds
POOL = 50  # the candidates that a prior is spread over: the best
_CERTAIN = math.log(99.0)  # log-odds of a known answer against the best other passage, at least
_SURE = math.log(-math.log(0.01))  # the least score of a known answer, where several may be right
_GRADE = math.log(2.0)  # between known answers of different grades


@dataclass(frozen=True)
class Scored:
    """Scores of candidates, and the parts that add up to them: intercept + terms + evidence.

    terms: float64 (n, number of names). by_known: how far known answers of the very question moved
    each score, None where there are none.
    """

    scores: Scores
    intercept: float
    names: tuple[str, ...]
    terms: npt.NDArray[np.float64]
    evidence: Scores
    by_known: Scores | None = None

    @property
    def prior(self) -> Scores:
        """The logarithm of the prior of each candidate, up to a constant, (n,)."""
        return self.scores - self.evidence - self.intercept

    def explanation(
        self, i: int, votes: tuple[int, ...], known: tuple[KnownAnswer, ...] = ()
    ) -> Explanation:
        """Why candidate i has its score."""
        terms = dict(zip(self.names, self.terms[i].tolist(), strict=True))
        moved = 0.0 if self.by_known is None else float(self.by_known[i])
        return Explanation(self.intercept, terms, float(self.evidence[i]), votes, known, moved)


@dataclass(frozen=True)
class Votes:
    """The evidence of votes for n candidates, float64 (n,) each.

    support: S of similar past queries. weight: the sum of K of those that say anything of a candidate.
    log_odds: of the votes on the same question. least: the least chance before those votes. grades: of
    known answers of the very question, 0: not known, None: none is.
    """

    support: npt.NDArray[np.float64]
    weight: npt.NDArray[np.float64]
    log_odds: npt.NDArray[np.float64]
    least: npt.NDArray[np.float64]
    grades: npt.NDArray[np.float64] | None = None
    any_vote: bool = True

    @classmethod
    def of(cls, evidence: "Evidence", lineages: Pids, parameters: Parameters | None) -> "Votes":
        """The evidence for these passage texts, as far as these parameters use it in a score; None: all
        of it."""
        if not (evidence.support or evidence.behind or evidence.same.log_odds or evidence.own):
            nothing = np.zeros(len(lineages))
            return cls(nothing, nothing, nothing, nothing, any_vote=False)
        several = parameters is None or parameters.answers is not None
        return cls(
            evidence.amounts(lineages),
            evidence.weights(lineages) if several else np.zeros(len(lineages)),
            evidence.log_odds(lineages),
            evidence.least(lineages),
            evidence.grades(lineages) if evidence.own else None,
            bool(evidence.support or evidence.behind or evidence.same.log_odds),
        )


def score(parameters: Parameters, features: Features, votes: Votes) -> Scored:
    """Score candidates with features float32 (n, 9) and the evidence of votes for each."""
    weights = parameters.vector[: len(FEATURES)]
    return _posterior(FEATURES, features * weights, votes, parameters)


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
    return _posterior(GIVEN[: terms.shape[1]], terms, votes, parameters)


def log_normaliser(values: npt.NDArray[np.float64]) -> float:
    """log Σ exp over the POOL largest values; 0 when there are none."""
    if not len(values):
        return 0.0
    best = values if len(values) <= POOL else np.partition(values, -POOL)[-POOL:]
    top = float(best.max())
    return top + float(np.log(np.exp(best - top).sum()))


def chance_of(score: float, answers: float | None) -> float:
    """The chance that a score stands for, under parameters with so many answers, None: one."""
    if answers is None:
        return math.exp(min(score, 0.0))
    return -math.expm1(-math.exp(min(score, 50.0)))


def _posterior(
    names: tuple[str, ...],
    terms: npt.NDArray[np.float64],
    votes: Votes,
    parameters: Parameters,
) -> Scored:
    # a sum over rows adds one after the other, over columns in parts that depend on their number
    prior: Scores = np.ascontiguousarray(terms.T).sum(axis=0)
    intercept = -log_normaliser(prior)
    n0 = parameters.kernel.n0
    if parameters.answers is None:
        intercept, shift = _with_one_answer(prior, intercept, votes, n0)
    else:
        intercept += math.log(parameters.answers)
        shift = _with_several_answers(prior + intercept, votes, n0)
    moved = None
    if votes.grades is not None and votes.grades.any():
        before = prior + intercept + shift
        moved = _put_first(before, votes.grades, parameters.answers)
        shift = shift + moved
        if parameters.answers is None:
            normaliser = _log_of_all(before, before + moved)
            intercept, moved = intercept - normaliser, moved - normaliser
    return Scored(prior + intercept + shift, intercept, names, terms, shift, moved)


def _put_first(scores: Scores, grades: npt.NDArray[np.float64], answers: float | None) -> Scores:
    """What raises the scores of known answers above all others, and of higher grades above lower ones.

    Those of one grade keep their order; they are drawn together where the last of them would be less
    than a hundredth as likely as the first.
    """
    raised = np.zeros(len(scores))
    known = np.unique(grades[grades > 0.0])
    for grade in known.tolist():
        own, lower = grades == grade, grades < grade
        least = _SURE if answers is not None else -math.inf
        if lower.any():
            margin = _CERTAIN if answers is None and grade == known[0] else _GRADE
            least = max(least, float((scores + raised)[lower].max()) + margin)
        lowest, highest = float(scores[own].min()), float(scores[own].max())
        closer = min(1.0, _CERTAIN / max(highest - lowest, 1e-300))
        raised[own] = max(lowest, least) + closer * (scores[own] - lowest) - scores[own]
    return raised


def _with_one_answer(
    prior: Scores, intercept: float, votes: Votes, n0: float
) -> tuple[float, Scores]:
    """The intercept and the shift of each candidate by votes, where one passage is the answer."""
    support = votes.support
    shift = np.zeros(len(prior))
    if not votes.any_vote:
        return intercept, shift
    moved = np.flatnonzero(support > 0)
    if len(moved):
        log_prior = prior[moved] + intercept
        shift[moved] = np.logaddexp(0.0, np.log(support[moved] / n0) - log_prior)
    intercept -= float(np.log1p(support.sum() / n0))
    if votes.log_odds.any():
        before = prior + intercept + shift
        with np.errstate(divide="ignore"):
            shift += np.maximum(np.log(votes.least) - before, 0.0) + votes.log_odds
        intercept -= _log_of_all(before, prior + intercept + shift)
    return intercept, shift


def _with_several_answers(scores: Scores, votes: Votes, n0: float) -> Scores:
    """The shift of each candidate by votes, where any number of passages may be right.

    scores: without votes.
    """
    shift = np.zeros(len(scores))
    moved = np.flatnonzero((votes.weight > 0.0) | (votes.log_odds != 0.0))
    if len(moved):
        given, support = scores[moved], votes.support[moved]
        expected = np.exp(np.clip(given, _SMALL, 50.0))
        prior = np.where(given < _SMALL, given, np.log(-np.expm1(-expected)))
        wrong = n0 * np.exp(-expected) + np.maximum(votes.weight[moved] - support, 0.0)
        with np.errstate(divide="ignore"):
            right = np.logaddexp(math.log(n0) + prior, np.log(support))
            named = np.log(votes.least[moved]) - np.log1p(-votes.least[moved])
            log_odds = right - np.log(np.maximum(wrong, 1e-300))
        log_odds = np.maximum(log_odds, named) + votes.log_odds[moved]
        # log(-log(1 - P)), -log(1 - P) = log(1 + odds): next to the log-odds where these are small
        after = np.log(np.logaddexp(0.0, np.maximum(log_odds, _SMALL)))
        shift[moved] = np.where(log_odds < _SMALL, log_odds, after) - given
    return shift


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
