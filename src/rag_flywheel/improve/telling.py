"""Whether votes on answers tell right from wrong at all.

People who call four answers in five good, whatever they are, look to the likelihood of votes like
people who are mostly right about answers that are always chosen well: it would learn to imitate
whoever writes the answers. What tells them apart is the prior. Where votes say something, answers
written from passages that it holds for likely are called good more often. It must not know what
follows from it.
"""

import numpy as np

from rag_flywheel.improve.examples import Examples
from rag_flywheel.improve.likelihood import prior_chances
from rag_flywheel.rank.parameters import Parameters

LEAST_SLOPE = (
    0.05  # of the share of "helpful" by the chance; accidents of length and rank reach that
)
_ONE_SIDED = 1.645  # standard errors: the quantile of a normal distribution at 95 %


def tells(examples: Examples) -> bool:
    """Whether the share of "helpful" clearly rises with the chance, under the shipped weights, of what
    answers are written from: by least squares over queries, the lower end of a one-sided interval of
    95 % (White, Econometrica 1980) is above 0.05. True where no votes are on answers.

    With P(helpful) = a on a right answer and b on a wrong one, the slope is a - b, or less since
    answers are chosen better than by chance.
    """
    if examples.chosen is None:
        return True
    parts = examples.chosen.sum(axis=1)
    said = examples.n_helpful + examples.n_harmful
    judged = (parts > 0.0) & (said > 0.0)
    if not judged.any():
        return True
    chances = (prior_chances(examples, Parameters().vector) * examples.chosen).sum(axis=1)
    x, y = chances[judged] / parts[judged], (examples.n_helpful / np.maximum(said, 1e-9))[judged]
    x = x - x.mean()
    spread = float(x @ x)
    if spread <= 0.0:
        return False
    slope = float(x @ y) / spread
    error = float(np.sqrt(np.sum((x * (y - y.mean() - slope * x)) ** 2))) / spread
    return slope - _ONE_SIDED * error > LEAST_SLOPE
