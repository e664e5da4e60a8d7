"""Computes the likelihood of votes, the model that all parameters are fitted by.

One candidate of a past query is its answer, p with chance P(p). A vote is right with probability
1 − noise, on the answer and on the others alike. So, up to what does not depend on P,

    log P(votes on q) = log Σ_p P(p) · ((1 − noise) / noise)^(helpful(p) − harmful(p))

where p is any passage: the chance that P gives to other passages than the candidates counts as
without votes. All votes together also determine the noise, since votes on others than the answer are
"helpful" by mistake alone. Hits without votes need no model: which hits users read does not change
the sum.

The passages that an answer is written from do change it, for whoever wrote it chose well, or tried
to. A passage with a part in a judged answer has exp(choice · part) times the odds that P gives it, in
the likelihood of the votes alone. Without that, good answers would look like errors of users, who
call helpful what P holds for unlikely. And a user who names a passage picks one of all candidates.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from rag_flywheel.improve.examples import Examples, Floats, n_with_feature
from rag_flywheel.rank.posterior import CORRECTION_WEIGHT

LARGEST_NOISE = 0.4995
SHARPNESS = 0.05, 20.0
MOST_CHOICE = 12.0
_SHARPNESS_SPREAD = 1.0  # of the Gaussian of its logarithm, around that of the weights as given
_CHOICE_SPREAD = 3.0  # of the Gaussian around no choice at all
_START, _NEARLY_TOSSED, _START_CHOICE = 0.2, 0.45, 3.0
_STEPS_HELD = 10  # of the weights alone: enough to come near their peak
_NOISE_BOUNDS = -7.0, 7.0
_NEVER = -1e9


def log_likelihoods(
    examples: Examples, chances: Floats, noise: float, choice: float = 0.0
) -> Floats:
    """log P(votes) of each query, (n,), up to `of_any_answer`. chances: (n, C)."""
    tilt, others = choice_odds(examples, choice), of_others(chances)
    joint = (chances * tilt * vote_odds(examples, noise)).sum(axis=1) + others
    found: Floats = np.log(joint / ((chances * tilt).sum(axis=1) + others))
    return found


def of_others(chances: Floats) -> Floats:
    """The chance that the answer is none of the candidates, (n,), from theirs, (n, C)."""
    found: Floats = np.maximum(1.0 - chances.sum(axis=1), 0.0)
    return found


def of_any_answer(examples: Examples, noise: float) -> Floats:
    """The part of log P(votes) of each query that is the same whichever passage is its answer, (n,)."""
    found: Floats = examples.n_helpful * np.log(noise) + examples.n_harmful * np.log(1.0 - noise)
    if examples.n_named is not None:
        odds = ((1.0 - noise) / noise) ** CORRECTION_WEIGHT
        found = found - examples.n_named * np.log(odds + _others(examples))
    return found


def choice_odds(examples: Examples, choice: float) -> Floats:
    """The factor on the odds of each candidate for being chosen to write an answer from, (n, C)."""
    if examples.chosen is None:
        return np.ones(examples.net.shape)
    found: Floats = np.exp(choice * examples.chosen)
    return found


def _others(examples: Examples) -> Floats:
    """How many other candidates one was named out of, (n,)."""
    found: Floats = np.maximum(examples.present.sum(axis=1) - 1.0, 1.0)
    return found


def vote_odds(examples: Examples, noise: float) -> Floats:
    """The factor by which the votes on each candidate multiply its chance, (n, C)."""
    per_vote = np.log((1.0 - noise) / noise)
    found: Floats = np.exp(np.clip(examples.net * per_vote, -50.0, 50.0))
    return found


def after_votes(examples: Examples, chances: Floats, noise: float) -> Floats:
    """The chance of every candidate after the votes on its query, (n, C) (Bayes' rule)."""
    joint = chances * vote_odds(examples, noise)
    found: Floats = joint / (joint.sum(axis=1) + of_others(chances))[:, None]
    return found


def prior_chances(examples: Examples, weights: Floats) -> Floats:
    """The prior of every candidate, (n, C): a softmax of weights · features, weights being for these
    features and maybe more."""
    return _softmax(examples.features @ weights[: examples.features.shape[2]], examples.present)


def with_support(prior: Floats, support: Floats, every: Floats, n0: float) -> Floats:
    """(n0 · prior + S) / (n0 + sum of S), (n, C); every: that sum, over all passages, (n,)."""
    found: Floats = (n0 * prior + support) / (n0 + every)[:, None]
    return found


def fit(
    examples: Examples, centre: Floats, *, strength: float, free: Floats
) -> tuple[Floats, float]:
    """The likeliest (weights (d,), noise), under a Gaussian around `centre` for the weights.

    strength: of that Gaussian, for a feature whose spread within a query is 1. free: 1 for a
    weight that may be negative, 0 for one that may not. How well answers are chosen is fitted with
    them, and is of no further use.
    Maximised by L-BFGS-B (Byrd et al., SIAM J. Sci. Comput. 1995).

    There may be two peaks: weights under which the votes are good, and random votes, which any
    weights explain. At weights that order passages badly every slope of the noise leads to the second.
    So the weights are fitted first, with the noise fixed; and the second peak is searched only where
    the first makes the votes less likely than random ones. The Gaussian is left out of that
    comparison: a large distance from the centre is no sign of random votes.
    """
    d, more = len(centre), examples.chosen is not None
    pull = np.append(strength * _spread(examples) ** 2, [_CHOICE_SPREAD**-2] * more)
    around = np.append(centre, [0.0] * more)
    examples = _with_choice(examples)

    def loss(at: Floats) -> tuple[float, Floats]:
        value, slope, by_noise = _slopes(examples, at[:-1], float(at[-1]))
        apart = at[:-1] - around
        return -value + 0.5 * float(pull @ apart**2), np.append(-slope + pull * apart, -by_noise)

    signs = [(None if f else 0.0, None) for f in free]
    limits = [*signs, *[(0.0, MOST_CHOICE)] * more]
    bounds = [*limits, _NOISE_BOUNDS]
    held = _noise_inverse(_START)
    first = np.append(centre, [*[_START_CHOICE] * more, held])
    first = _least(loss, first, [*limits, (held, held)], steps=_STEPS_HELD)
    found = _least(loss, first, bounds)
    tossed, _, _ = _slopes(examples, around, _NOISE_BOUNDS[1])
    if _slopes(examples, found[:-1], float(found[-1]))[0] < tossed:
        other = _least(loss, np.append(around, _noise_inverse(_NEARLY_TOSSED)), bounds)
        found = min(found, other, key=lambda at: loss(at)[0])
    return found[:d], _noise(float(found[-1]))


def calibrated(examples: Examples, weights: Floats, noise: float) -> tuple[float, float]:
    """The likeliest (sharpness of a prior of these weights, how well answers are chosen), given the
    noise of the votes on these examples, under a log-normal around 1 for the sharpness.

    With little information in votes any sharpness is as likely as another; without the log-normal it
    may be so high that the least evidence moves passages with next to no chance. The noise is not
    fitted with it: a prior that orders passages badly would be likeliest flat, with random votes,
    though other weights show that the votes are good. It is the better of two searches, since answers
    may look chosen well or at random.
    """
    more = examples.chosen is not None
    logits = (examples.features @ weights[: examples.features.shape[2]])[:, :, None]
    alone, x = _with_choice(replace(examples, features=logits)), _noise_inverse(noise)

    def loss(at: Floats) -> tuple[float, Floats]:
        sharpness, choice = np.exp(at[:1]), at[1:]
        value, slope, _ = _slopes(alone, np.append(sharpness, choice), x)
        apart = at / spreads
        steep = np.append(slope[:1] * sharpness, slope[1:])
        return -value + 0.5 * float(apart @ apart), apart / spreads - steep

    spreads = np.array([_SHARPNESS_SPREAD, *[_CHOICE_SPREAD] * more])
    low, high = np.log(SHARPNESS)
    bounds = [(low, high), *[(0.0, MOST_CHOICE)] * more]
    starts = [np.array([0.0, choice]) for choice in (_START_CHOICE, 0.0)] if more else [np.zeros(1)]
    found = min((_least(loss, start, bounds) for start in starts), key=lambda at: loss(at)[0])
    return float(np.clip(np.exp(found[0]), *SHARPNESS)), float(found[1:].sum())


def _slopes(examples: Examples, weights: Floats, x: float) -> tuple[float, Floats, float]:
    """log P(votes), and its slopes by the weights (d,) and by x, which stands for the noise.

    Where answers were chosen, that is the last feature, and does not count for P itself."""
    n, width, d = examples.features.shape
    flat = examples.features.astype(np.float64, copy=False).reshape(n * width, d)
    eps = _noise(x)
    prior = _softmax((flat @ weights).reshape(n, width), examples.present)
    joint = prior * vote_odds(examples, eps)
    total = joint.sum(axis=1, keepdims=True)
    after = joint / total
    value = float(np.log(total).sum() + of_any_answer(examples, eps).sum())
    by_eps = _of_any_answer_by_noise(examples, eps)
    by_eps -= float((after * examples.net).sum()) / (eps * (1 - eps))
    slope: Floats = flat.T @ (after - prior).ravel()
    return value, slope, by_eps * eps * (1 - eps / LARGEST_NOISE)


def _of_any_answer_by_noise(examples: Examples, noise: float) -> float:
    """The slope of the sum of `of_any_answer` by the noise."""
    found = examples.n_helpful.sum() / noise - examples.n_harmful.sum() / (1.0 - noise)
    if examples.n_named is not None:
        odds = ((1.0 - noise) / noise) ** CORRECTION_WEIGHT
        share = examples.n_named * odds / (odds + _others(examples))
        found += CORRECTION_WEIGHT * share.sum() / (noise * (1.0 - noise))
    return float(found)


def _with_choice(examples: Examples) -> Examples:
    """With features in float64, which they are converted to once and not at every step; the last of
    them is by how much a candidate was chosen, where any was."""
    features = examples.features.astype(np.float64)
    if examples.chosen is not None:
        features = np.concatenate([features, examples.chosen[:, :, None]], axis=2)
    return replace(examples, features=features)


def _least(
    loss: Callable[[Floats], tuple[float, Floats]],
    start: Floats,
    bounds: Sequence[tuple[float | None, float | None]],
    *,
    steps: int = 200,
) -> Floats:
    from scipy.optimize import minimize

    found: Floats = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": steps}
    ).x
    return found


def _softmax(values: Floats, present: npt.NDArray[np.bool_]) -> Floats:
    z = np.where(present, values, _NEVER)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    found: Floats = e / e.sum(axis=1, keepdims=True)
    return found


def _spread(examples: Examples) -> Floats:
    """The standard deviation of each feature within a query, (d,)."""
    present = examples.present[:, :, None]
    values = examples.features.astype(np.float64)
    count = np.maximum(present.sum(axis=1, keepdims=True), 1)
    apart = np.where(present, values - (values * present).sum(axis=1, keepdims=True) / count, 0.0)
    found: Floats = np.sqrt((apart**2).sum(axis=(0, 1)) / n_with_feature(examples)) + 1e-6
    return found


def _noise(x: float) -> float:
    return float(LARGEST_NOISE / (1.0 + np.exp(-x)))


def _noise_inverse(noise: float) -> float:
    share = min(max(noise / LARGEST_NOISE, 1e-3), 1 - 1e-3)
    return float(np.log(share / (1 - share)))
