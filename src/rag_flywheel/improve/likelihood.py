"""How likely votes are: the model that everything is fitted by.

One candidate of a past query is its answer, p with chance P(p). A vote is right with probability
1 − noise, on the answer and on the others alike. So, up to what does not depend on P,

    log P(votes on q) = log Σ_p P(p) · ((1 − noise) / noise)^(helpful(p) − harmful(p))

and all votes together also tell the noise, since votes on others than the answer are "helpful" by
mistake alone. Votes on hits that nobody looked at are not needed: which hits are looked at does
not change the sum. It must not know how P comes about.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from rag_flywheel.improve.examples import Examples, Floats

LARGEST_NOISE = 0.4995
SHARPNESS = 0.05, 20.0
_START = 0.2  # noise
_NOISE_BOUNDS = -7.0, 7.0
_NEVER = -1e9


def log_likelihoods(examples: Examples, chances: Floats, noise: float) -> Floats:
    """log P(votes) of each query, (n,), up to a term in the noise alone. chances: (n, C)."""
    found: Floats = np.log((chances * vote_odds(examples, noise)).sum(axis=1))
    return found


def vote_odds(examples: Examples, noise: float) -> Floats:
    """What the votes on each candidate multiply its chance by, (n, C)."""
    per_vote = np.log((1.0 - noise) / noise)
    found: Floats = np.exp(np.clip(examples.net * per_vote, -50.0, 50.0))
    return found


def after_votes(examples: Examples, chances: Floats, noise: float) -> Floats:
    """The chance of every candidate after the votes on its query, (n, C) (Bayes' rule)."""
    joint = chances * vote_odds(examples, noise)
    found: Floats = joint / joint.sum(axis=1, keepdims=True)
    return found


def prior_chances(examples: Examples, weights: Floats) -> Floats:
    """The prior of every candidate, (n, C): a softmax of weights · features."""
    return _softmax(examples.features @ weights, examples.present)


def with_support(prior: Floats, support: Floats | None, n0: float) -> Floats:
    """(n0 · prior + S) / (n0 + sum of S), (n, C)."""
    if support is None:
        return prior
    found: Floats = (n0 * prior + support) / (n0 + support.sum(axis=1, keepdims=True))
    return found


def fit(
    examples: Examples,
    centre: Floats,
    start: Floats,
    noise: float,
    *,
    strength: float,
    free: Floats,
) -> tuple[Floats, float]:
    """The likeliest (weights (d,), noise), under a Gaussian around `centre` for the weights.

    strength: of that Gaussian, for a feature whose spread within a query is 1. free: 1 for a
    weight that may be negative, 0 for one that may not.
    Maximised by L-BFGS-B (Byrd et al., SIAM J. Sci. Comput. 1995).
    """
    spread = _spread(examples)
    examples, d = _in_double(examples), len(centre)

    def loss(at: Floats) -> tuple[float, Floats]:
        value, slope, by_noise = _slopes(examples, at[:d], float(at[d]))
        apart = (at[:d] - centre) * spread
        return (
            -value + 0.5 * strength * float(apart @ apart),
            np.append(-slope + strength * spread * apart, -by_noise),
        )

    bounds = [(None if f else 0.0, None) for f in free] + [_NOISE_BOUNDS]
    found = _least(loss, np.append(start, _noise_inverse(noise)), bounds)
    return found[:d], _noise(float(found[d]))


def calibrated(examples: Examples, weights: Floats) -> tuple[float, float]:
    """The likeliest (sharpness of a prior of these weights, noise of the votes on these examples)."""
    logits = (examples.features @ weights)[:, :, None]
    alone = _in_double(replace(examples, features=logits))

    def loss(at: Floats) -> tuple[float, Floats]:
        sharpness = np.exp(at[:1])
        value, slope, by_noise = _slopes(alone, sharpness, float(at[1]))
        return -value, np.array([-slope[0] * sharpness[0], -by_noise])

    low, high = np.log(SHARPNESS)
    found = _least(loss, np.array([0.0, _noise_inverse(_START)]), [(low, high), _NOISE_BOUNDS])
    return float(np.clip(np.exp(found[0]), *SHARPNESS)), _noise(float(found[1]))


def _slopes(examples: Examples, weights: Floats, x: float) -> tuple[float, Floats, float]:
    """log P(votes), and its slopes by the weights (d,) and by x, which stands for the noise."""
    n, width, d = examples.features.shape
    flat = examples.features.astype(np.float64, copy=False).reshape(n * width, d)
    eps = _noise(x)
    prior = _softmax((flat @ weights).reshape(n, width), examples.present)
    joint = prior * vote_odds(examples, eps)
    total = joint.sum(axis=1, keepdims=True)
    after = joint / total
    helpful, harmful = examples.n_helpful.sum(), examples.n_harmful.sum()
    value = float(np.log(total).sum() + helpful * np.log(eps) + harmful * np.log(1.0 - eps))
    by_eps = helpful / eps - harmful / (1 - eps) - (after * examples.net).sum() / (eps * (1 - eps))
    slope: Floats = flat.T @ (after - prior).ravel()
    return value, slope, float(by_eps * eps * (1 - eps / LARGEST_NOISE))


def _in_double(examples: Examples) -> Examples:
    """With features in float64, which they are converted to once and not at every step."""
    return replace(examples, features=examples.features.astype(np.float64))


def _least(
    loss: Callable[[Floats], tuple[float, Floats]],
    start: Floats,
    bounds: Sequence[tuple[float | None, float | None]],
) -> Floats:
    from scipy.optimize import minimize

    found: Floats = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200}
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
    found: Floats = np.sqrt((apart**2).sum(axis=(0, 1)) / max(int(present.sum()), 1)) + 1e-6
    return found


def _noise(x: float) -> float:
    return float(LARGEST_NOISE / (1.0 + np.exp(-x)))


def _noise_inverse(noise: float) -> float:
    share = min(max(noise / LARGEST_NOISE, 1e-3), 1 - 1e-3)
    return float(np.log(share / (1 - share)))
