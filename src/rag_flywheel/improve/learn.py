"""Learns parameters from votes: the weights of the prior, the noise of votes, and the kernel.

    fit prior and noise -> choose the kernel on votes of other folds -> memory

It must not know where examples come from, nor what becomes of the result.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rag_flywheel.improve.examples import (
    Examples,
    Floats,
    links,
    nearest,
    sums_of_support,
    support,
)
from rag_flywheel.improve.likelihood import (
    after_votes,
    fit,
    log_likelihoods,
    prior_chances,
    vote_odds,
    with_support,
)
from rag_flywheel.improve.threshold import thetas
from rag_flywheel.index.dense import Nearest
from rag_flywheel.rank.features import FEATURES
from rag_flywheel.rank.memory import Memory
from rag_flywheel.rank.parameters import Kernel, Parameters

LEAST_QUERIES = 64  # with fewer, parameters stay as they are
MOST_QUERIES = 8_000  # that parameters are fitted to, the newest
NOISE_LIMIT = 0.45  # votes that are wrong so often say nothing
STRENGTH = 60.0
QUANTILES = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
GAMMAS = (1.0, 2.0, 4.0, 8.0)
N0_SPREAD = 1.5  # of log n0 around the shipped one, before any vote
STRENGTHS = (30.0, 8.0, 3.0, 1.0, 0.37, 0.14, 0.05, 0.018, 0.007, 0.0025)
FREE = ("rarest", "length")  # weights that may be negative
_FOLDS = 5
_PASSES = 3  # of passing answers on between past queries
_LEAST_CHANCE = 0.01
_LEAST_KEPT = 0.002


@dataclass(frozen=True)
class Learned:
    """Parameters and the memory that belongs to them; why: a sentence; scores: the numbers behind."""

    parameters: Parameters
    memory: Memory
    why: str
    scores: Mapping[str, float]


def learn(
    examples: Examples,
    held_out: npt.NDArray[np.bool_],
    kept: Parameters,
    near: Nearest | None = None,
) -> Learned:
    """What these examples teach: parameters fitted to them, or those in use.

    held_out, (n,): queries whose votes are not fitted to, and which then decide: new parameters
    that make their votes clearly less likely than the kept ones, by two standard errors, are not
    taken.
    near: the 64 nearest examples of each, itself among them; None: they are looked for.
    """
    fitted = np.flatnonzero(~held_out)[-MOST_QUERIES:]
    if len(fitted) < LEAST_QUERIES:
        why = f"not fitted: {len(fitted)} of the {LEAST_QUERIES} past queries it takes"
        return _remembered(examples, near, kept, why, {"n_fitted": float(len(fitted))})
    own = examples.at(fitted)
    found, scores = _fitted(own, kept)
    scores |= {"n_fitted": float(len(fitted)), "n_held_out": float(held_out.sum())}
    if found.noise > NOISE_LIMIT:
        off = replace(kept, kernel=replace(kept.kernel, neighbours=0))
        why = f"{found.noise:.0%} of votes look wrong: nothing is learned from them"
        return _remembered(examples, near, off, why, scores)
    if held_out.sum() > 1:
        test = examples.at(np.flatnonzero(held_out))
        gains = _likelihoods(test, own, found) - _likelihoods(test, own, kept)
        error = float(gains.std(ddof=1)) / len(gains) ** 0.5
        scores |= {"held_out_gain": float(gains.mean()), "held_out_error": error}
        if gains.mean() < -2.0 * error - 1e-9:
            why = "votes held out are clearly less likely under the new parameters"
            return _remembered(examples, near, kept, why, scores)
    return _remembered(examples, near, found, f"fitted to {len(fitted)} past queries", scores)


def remember(examples: Examples, parameters: Parameters, near: Nearest | None = None) -> Memory:
    """The chance of every candidate of past queries before the votes on it, as others' votes say.

    Answers are passed on between similar past queries a few times, so that a query with few votes
    of its own learns from its neighbours what to make of them.
    """
    prior = prior_chances(examples, parameters.vector)
    before = prior
    kernel = parameters.kernel
    if kernel.neighbours and len(examples) > 1:
        each = np.arange(len(examples))
        near = nearest(examples, examples, each, each, near)
        for _ in range(_PASSES):
            said = _said(examples, before, parameters.noise)
            heard = links(near, examples, examples, said)
            added = support(heard, near, said, kernel, len(examples))
            before = with_support(prior, added, kernel.n0)
    return _memory(examples, before)


def _remembered(
    examples: Examples,
    near: Nearest | None,
    parameters: Parameters,
    why: str,
    scores: Mapping[str, float],
) -> Learned:
    return Learned(parameters, remember(examples, parameters, near), why, scores)


def _fitted(examples: Examples, kept: Parameters) -> tuple[Parameters, dict[str, float]]:
    """The likeliest prior and noise without a memory, and the kernel that votes speak for.

    The prior is not fitted again with the memory: it says what to make of a past query's votes, and
    where the memory answers nothing would hold it. The fit starts from the shipped parameters, so
    that the same votes always give the same ones.
    """
    free = np.array([float(name in FREE) for name in FEATURES])
    shipped = Parameters()
    weights, noise = fit(
        examples, shipped.vector, shipped.vector, shipped.noise, strength=STRENGTH, free=free
    )
    off = replace(kept.kernel, neighbours=0)
    found = _with(kept, weights, noise, off)
    if noise > NOISE_LIMIT:
        return found, {"memory_gain": 0.0}
    kernel, gain = _kernel(examples, found)
    return replace(found, kernel=kernel if gain > 0 else off), {"memory_gain": gain}


def _kernel(examples: Examples, found: Parameters) -> tuple[Kernel, float]:
    """The kernel that votes speak for, by neighbours of other folds; its gain in log P(votes) a
    query.

    Each kernel of the grid weighs as much as the votes are likely under it, times a log-normal
    around the shipped n0, and the mean is taken (of the logarithm of n0): with few queries the
    likeliest one alone hangs on chance, and the memory stays about as mild as it is shipped.
    """
    shipped = np.log(Parameters().kernel.n0)
    folds = np.random.default_rng(0).permutation(len(examples)) % _FOLDS
    near = nearest(examples, examples, folds, folds)
    prior = prior_chances(examples, found.vector)
    said = _said(examples, prior, found.noise)
    joined = links(near, examples, examples, said)
    odds = vote_odds(examples, found.noise)
    alone = (prior * odds).sum(axis=1)

    def gains(total: Floats, of_votes: Floats, n0: float) -> Floats:
        """log P(votes) of each query with the memory less that without."""
        gain: Floats = np.log((n0 * alone + of_votes) / (n0 + total) / alone)
        return gain

    cosines = dict(zip(QUANTILES, thetas(examples.vectors, QUANTILES), strict=True))
    kernels = [Kernel(cosines[q], q, gamma) for q, gamma in itertools.product(QUANTILES, GAMMAS)]
    tried, likely = [], []
    for kernel, sums in zip(
        kernels, sums_of_support(joined, near, said, odds, kernels), strict=True
    ):
        for n0 in STRENGTHS:
            tried.append((kernel.theta, kernel.theta_quantile, kernel.gamma, np.log(n0)))
            unlikely = 0.5 * ((np.log(n0) - shipped) / N0_SPREAD) ** 2
            likely.append(gains(*sums, n0).sum() - unlikely)
    share = np.exp(np.array(likely) - max(likely))
    theta, quantile, gamma, log_n0 = (share @ np.array(tried) / share.sum()).tolist()
    n0 = float(np.exp(log_n0))
    kernel = Kernel(round(theta, 4), round(quantile, 4), round(gamma, 3), round(n0, 5))
    (sums,) = sums_of_support(joined, near, said, odds, [kernel])
    gained = gains(*sums, kernel.n0)
    return kernel, float(gained.mean())


def _likelihoods(test: Examples, own: Examples, parameters: Parameters) -> Floats:
    """log P(votes) of each held-out query, (n,), its neighbours being among those fitted to."""
    prior = prior_chances(test, parameters.vector)
    added = None
    kernel = parameters.kernel
    if kernel.neighbours:
        apart = np.zeros(len(test), np.int64), np.ones(len(own), np.int64)
        near = nearest(test, own, *apart)
        said = _said(own, prior_chances(own, parameters.vector), parameters.noise)
        joined = links(near, test, own, said)
        added = support(joined, near, said, kernel, len(test))
    noise = parameters.noise
    chances = with_support(prior, added, kernel.n0)
    votes = test.n_helpful * np.log(noise) + test.n_harmful * np.log(1.0 - noise)
    total: Floats = log_likelihoods(test, chances, noise) + votes
    return total


def _said(examples: Examples, before: Floats, noise: float) -> Floats:
    """Chances after the votes as neighbours hear them, (n, C), from those before: small ones say
    nothing, unless votes call them helpful."""
    chances = after_votes(examples, before, noise)
    return np.where((chances >= _LEAST_CHANCE) | (examples.net > 0), chances, 0.0)


def _with(kept: Parameters, weights: Floats, noise: float, kernel: Kernel) -> Parameters:
    named = {name: round(float(w), 4) for name, w in zip(FEATURES, weights, strict=True)}
    return replace(
        kept, weights=named, noise=round(max(noise, 1e-3), 4), kernel=kernel, source="fitted"
    )


def _memory(examples: Examples, before: Floats) -> Memory:
    kept = examples.present & ((before >= _LEAST_KEPT) | (examples.net != 0))
    counts = kept.sum(axis=1)
    return Memory(
        tuple(examples.keys),
        np.append(0, np.cumsum(counts)).astype(np.int64),
        examples.lineages[kept],
        before[kept].astype(np.float32),
    )
