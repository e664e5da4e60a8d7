"""Tests whether votes on whole answers carry any information.

To the likelihood of votes, users who call four answers in five good whatever they are look like users
who are mostly right about answers that are always chosen well: parameters would learn to imitate
whoever writes the answers. The prior distinguishes the two: where votes carry information, answers
written from passages with a high prior are called good more often.
"""

import numpy as np
import numpy.typing as npt

from rag_flywheel.improve.examples import Examples
from rag_flywheel.improve.likelihood import prior_chances
from rag_flywheel.rank.parameters import Parameters

LEAST_SLOPE = 0.1  # of the share of "helpful" over the chance; length and rank alone give half
_ONE_SIDED = 1.645  # standard errors: the quantile of a normal distribution at 95 %


def informative(examples: Examples) -> Examples:
    """The examples to learn from: all, or only those without votes on answers where such votes clearly
    carry no information."""
    judged = _judged(examples)
    if not judged.any() or _steepest(examples.at(np.flatnonzero(judged))) >= LEAST_SLOPE:
        return examples
    return examples.at(np.flatnonzero(~judged))


def _judged(examples: Examples) -> npt.NDArray[np.bool_]:
    """Which queries got a verdict on an answer, (n,)."""
    if examples.chosen is None:
        return np.zeros(len(examples), dtype=np.bool_)
    n_votes = examples.n_helpful + examples.n_harmful
    judged: npt.NDArray[np.bool_] = (examples.chosen.max(axis=1) > 0.0) & (n_votes > 0.0)
    return judged


def _steepest(judged: Examples) -> float:
    """By how much at most the share of "helpful" rises with the chance, under the shipped weights, of
    what answers are written from: the upper end of a one-sided interval of 95 % (White, Econometrica
    1980) for the slope by least squares over queries.

    With P(helpful) = a on a right answer and b on a wrong one, the slope is a - b, or less since
    answers are chosen better than by chance.
    """
    assert judged.chosen is not None
    chances = (prior_chances(judged, Parameters.starting(judged.trust).vector) * judged.chosen).sum(
        axis=1
    )
    x = chances / judged.chosen.sum(axis=1)
    y = judged.n_helpful / (judged.n_helpful + judged.n_harmful)
    x = x - x.mean()
    spread = float(x @ x)
    if spread <= 0.0:
        return np.inf
    slope = float(x @ y) / spread
    error = float(np.sqrt(np.sum((x * (y - y.mean() - slope * x)) ** 2))) / spread
    return slope + _ONE_SIDED * error
