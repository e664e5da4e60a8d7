"""Fits the weights of the prior to votes, and calibrates the noise of votes and the kernel."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from rag_flywheel.improve.examples import Examples, Floats, links, nearest, sums_of_support
from rag_flywheel.improve.given import given_scale, of_index, own_given, with_given
from rag_flywheel.improve.informative import informative
from rag_flywheel.improve.likelihood import calibrated, choice_odds, fit, prior_chances, vote_odds
from rag_flywheel.improve.propagate import neighbour_chances_of
from rag_flywheel.improve.threshold import thetas
from rag_flywheel.index.exact import typical_cosine
from rag_flywheel.rank.features import FEATURES, GIVEN
from rag_flywheel.rank.parameters import FITTED, Kernel, Parameters
from rag_flywheel.rank.posterior import NOISE_LIMIT

LEAST_QUERIES = 64  # with fewer, parameters stay as they are
MOST_QUERIES = 8_000  # that parameters are fitted to, the newest
STRENGTH = 60.0
QUANTILES = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
GAMMAS = (1.0, 2.0, 4.0, 8.0)
N0_SPREAD = 1.5  # of log n0 around the shipped one, before any vote
STRENGTHS = (30.0, 8.0, 3.0, 1.0, 0.37, 0.14, 0.05, 0.018, 0.007, 0.0025)
FREE = ("rarest", "length")  # weights that may be negative
SAME = 0.99  # the least cosine, above the typical one, of a query to itself in other words
_FOLDS = 5


@dataclass(frozen=True)
class Proposal:
    """Parameters fitted to votes, None without any to propose; why: a sentence; scores: the numbers
    behind it."""

    parameters: Parameters | None
    why: str
    scores: Mapping[str, float]


def newest(examples: Examples) -> Examples:
    """Those that parameters are fitted to, the last 8,000."""
    if len(examples) <= MOST_QUERIES:
        return examples
    return examples.at(np.arange(len(examples))[-MOST_QUERIES:])


def propose(examples: Examples, kept: Parameters) -> Proposal:
    """Fit the weights of the prior to the votes on the newest of these examples.

    They are fitted without the memory: the memory itself is computed from the prior, and where it
    predicted the votes nothing would constrain the weights. The fit starts from the shipped weights,
    so that the same votes always give the same ones.
    """
    every = newest(examples)
    own = enough(informative(every))
    scores = {"n_fitted": float(len(own))}
    if len(own) < LEAST_QUERIES:
        why = f"not fitted: {len(own)} of the {LEAST_QUERIES} past queries it takes"
        if len(every) >= LEAST_QUERIES:
            why = "votes on answers look the same whatever those say: nothing is learned from them"
        return Proposal(None, why, scores)
    weights, noise = _fitted(own)
    if noise > NOISE_LIMIT:
        why = f"{noise:.0%} of votes look wrong: nothing is learned from them"
        return Proposal(None, why, scores)
    found = replace(kept, source=FITTED)
    if len(of_index(own)):
        named = {name: round(float(w), 4) for name, w in zip(FEATURES, weights, strict=False)}
        found = replace(found, weights=named, sharpness=1.0)
    if len(own_given(own)):
        found = with_given(found, weights[len(FEATURES) :])
    return Proposal(found, f"fitted to {len(own)} past queries", scores)


def calibrated_parameters(examples: Examples, kept: Parameters) -> Parameters:
    """Keep the order of the prior, and fit the rest to the votes on the newest of these examples: the
    sharpness of the prior, the noise of votes, how well answers are chosen, and the kernel.

    The noise is a property of the votes, not of the live weights: it is the likeliest one together
    with the weights that `propose` fits. Votes on answers that carry no information are left out of
    it, and count for the very same query alone.
    """
    every = newest(examples)
    if len(every) < LEAST_QUERIES:
        return kept
    own = informative(every)
    if len(own) < LEAST_QUERIES:
        return replace(kept, noise=Parameters().noise, kernel=_same_query_kernel(every))
    noise = round(max(_fitted(own)[1], 1e-3), 4)
    fitted = _calibrated_prior(enough(own), replace(kept, noise=noise))
    if noise > NOISE_LIMIT:
        return fitted
    kernel, gain = _kernel(own, fitted)
    return replace(fitted, kernel=kernel if gain > 0 else _same_query_kernel(own))


def _calibrated_prior(own: Examples, kept: Parameters) -> Parameters:
    """With the likeliest sharpness, and how well answers are chosen, at the noise of `kept`; the prior
    of an application's own candidates has a sharpness of its own."""
    plain = replace(kept, sharpness=1.0, given_sharpness=1.0).vector
    index, given = of_index(own), own_given(own)
    found = kept
    if len(given) >= LEAST_QUERIES:
        sharpness, choice = calibrated(given, plain, kept.noise)
        found = replace(found, given_sharpness=round(sharpness, 4), choice=round(choice, 4))
    if len(index) >= LEAST_QUERIES:
        sharpness, choice = calibrated(index, plain, kept.noise)
        found = replace(found, sharpness=round(sharpness, 4), choice=round(choice, 4))
    return found


def _fitted(examples: Examples) -> tuple[Floats, float]:
    """The likeliest (weights (d,), noise), near the shipped weights."""
    names = (*FEATURES, *GIVEN)[: examples.features.shape[2]]
    free = np.array([float(name in FREE) for name in names])
    centre = Parameters().vector[: len(names)]
    if examples.given is None:
        return fit(examples, centre, strength=STRENGTH, free=free)
    scale = given_scale(examples)  # of which the Gaussian is independent, but the search is not
    scaled = replace(examples, features=examples.features / scale)
    weights, noise = fit(scaled, centre * scale, strength=STRENGTH, free=free)
    return weights / scale, noise


def enough(examples: Examples) -> Examples:
    """Without the queries whose candidates are of a sort, the index's or an application's own, that
    fewer than 64 of them have: what is fitted to that sort stays as it is."""
    index, given = of_index(examples), own_given(examples)
    if not len(given) or min(len(index), len(given)) >= LEAST_QUERIES:
        return examples
    return max(index, given, key=len)


def _same_query_kernel(examples: Examples) -> Kernel:
    """A kernel for where similar queries are no evidence for one another: votes on a query count for
    that very query alone, with the shipped n0."""
    typical = typical_cosine(examples.vectors)
    return replace(Parameters().kernel, theta=round(typical + SAME * (1.0 - typical), 4), gamma=1.0)


def _kernel(examples: Examples, found: Parameters) -> tuple[Kernel, float]:
    """(the posterior mean of the kernel, by neighbours of other folds; its mean gain in log P(votes)).

    Each kernel of the grid is weighted by the likelihood of the votes under it, times a log-normal
    prior around the shipped n0 (of which the mean is geometric): with few queries the likeliest
    kernel alone would depend on chance, and so the memory stays about as mild as it is shipped.
    """
    shipped = np.log(Parameters().kernel.n0)
    folds = np.random.default_rng(0).permutation(len(examples)) % _FOLDS
    near = nearest(examples, examples, folds, folds)
    prior = prior_chances(examples, found.vector)
    chances = neighbour_chances_of(examples, prior, found.noise)
    joined = links(near, examples, examples, chances)
    tilt = choice_odds(examples, found.choice)
    values = tilt, tilt * vote_odds(examples, found.noise)
    alone = [(prior * value).sum(axis=1) for value in values]

    def gains(total: Floats, of_votes: Floats, n0: float) -> Floats:
        """log P(votes) of each query with the memory less that without."""
        with_it = (n0 * alone[1] + of_votes) / (n0 * alone[0] + total)
        gain: Floats = np.log(with_it * alone[0] / alone[1])
        return gain

    cosines = dict(zip(QUANTILES, thetas(examples.vectors, QUANTILES), strict=True))
    kernels = [Kernel(cosines[q], q, gamma) for q, gamma in itertools.product(QUANTILES, GAMMAS)]
    tried, likely = [], []
    every = sums_of_support(joined, near, chances, values, kernels)
    for kernel, sums in zip(kernels, every, strict=True):
        for n0 in STRENGTHS:
            tried.append((kernel.theta, kernel.theta_quantile, kernel.gamma, np.log(n0)))
            unlikely = 0.5 * ((np.log(n0) - shipped) / N0_SPREAD) ** 2
            likely.append(gains(*sums, n0).sum() - unlikely)
    share = np.exp(np.array(likely) - max(likely))
    theta, quantile, gamma, log_n0 = (share @ np.array(tried) / share.sum()).tolist()
    n0 = float(np.exp(log_n0))
    # near-duplicates are among the neighbours that it is fitted to
    kernel = Kernel(round(theta, 4), round(quantile, 4), round(gamma, 3), round(n0, 5), same=0.0)
    (sums,) = sums_of_support(joined, near, chances, values, [kernel])
    return kernel, float(gains(*sums, kernel.n0).mean())
