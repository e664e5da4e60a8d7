"""Fits the weights of the prior to votes, and calibrates the noise of votes and the kernel."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from rag_flywheel.errors import counted
from rag_flywheel.improve.examples import (
    Examples,
    Floats,
    Links,
    kernel_weights,
    links,
    sums_at,
    sums_of_support,
)
from rag_flywheel.improve.given import given_scale, of_index, own_given, with_given
from rag_flywheel.improve.informative import informative
from rag_flywheel.improve.likelihood import (
    Fit,
    as_chosen,
    calibrated,
    choice_odds,
    fit,
    log_likelihood_of_tosses,
    log_likelihoods,
    of_any_answer,
    prior_under,
    rates_given,
    vote_odds,
    with_support,
)
from rag_flywheel.improve.propagate import neighbour_chances_of, support_of
from rag_flywheel.improve.threshold import thetas
from rag_flywheel.index.exact import typical_cosine
from rag_flywheel.index.nearest import Nearest
from rag_flywheel.rank.features import FEATURES, GIVEN
from rag_flywheel.rank.parameters import FITTED, Kernel, Parameters
from rag_flywheel.rank.posterior import NOISE_LIMIT, Rates

LEAST_QUERIES = 64  # with fewer, parameters stay as they are
MOST_QUERIES = 8_000  # that parameters are fitted to, the newest
STRENGTH = 60.0
MOST_DECIDING = 1_000  # queries, the newest, that decide between one answer and several
SEVERAL_BY = (
    3.0,
    0.01,
)  # by how much several answers must be the likelier model in log P(votes), and by
# how much more for each query: where either fits badly, the difference grows with the queries
CLEARLY = 3.0  # log-likelihood by which votes must differ from tossed coins; those gain up to 2.8
QUANTILES = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
GAMMAS = (1.0, 2.0, 4.0, 8.0)
N0_SPREAD = 1.5  # of log n0 around the shipped one, before any vote
STRENGTHS = (30.0, 8.0, 3.0, 1.0, 0.37, 0.14, 0.05, 0.018, 0.007, 0.0025)
FREE = ("rarest", "length")  # weights that may be negative
SAME = 0.99  # the least cosine, above the typical one, of a query to itself in other words
UNSHOWN = 0.03
ONE_SIDED = 0.02  # the least share of the rarer kind of votes
NEW_NEEDS = 0.1  # the share of queries, as assumed, whose need nobody asked about before


@dataclass(frozen=True)
class Proposal:
    """Parameters fitted to votes, None without any to propose; why: a sentence; scores: the numbers
    behind it; likeliest: the fit behind it, None where there was nothing to fit."""

    parameters: Parameters | None
    why: str
    scores: Mapping[str, float]
    likeliest: Fit | None = None


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
    if one_sided(own):
        why = "nearly all votes say the same: how often they err cannot be told, weights stay"
        return Proposal(None, why, scores)
    likeliest = _fitted(own)
    scores["noise"] = noise = likeliest.rates.noise
    if noise > NOISE_LIMIT:
        why = f"{noise:.0%} of votes look wrong: nothing is learned from them"
        return Proposal(None, why, scores, likeliest)
    found = _with_weights(replace(kept, source=FITTED), own, likeliest.weights)
    return Proposal(
        found, f"fitted to {counted(len(own), 'past query', 'past queries')}", scores, likeliest
    )


def calibrated_parameters(
    examples: Examples, kept: Parameters, likeliest: Fit | None = None
) -> Parameters:
    """Keep the order of the prior, and fit the rest to the votes on the newest of these examples: the
    sharpness of the prior, how often votes are wrong, how many passages answer a query, how well
    answers are chosen, and the kernel.

    The rates and whether there is one answer are properties of the votes, not of the live weights: they
    are the likeliest ones together with the weights that `propose` fits. Votes on answers that carry no
    information are left out of it, and count for the very same query alone.

    likeliest: what `propose` fitted to the same examples, None: fitted here.
    """
    every = newest(examples)
    if len(every) < LEAST_QUERIES:
        return kept
    own = informative(every)
    if len(own) < LEAST_QUERIES:
        return replace(kept, rates=Rates(), choice=0.0, kernel=_same_query_kernel(every))
    if one_sided(own):
        return replace(kept, rates=Rates(), choice=0.0, answers=None, kernel=Parameters().kernel)
    found = _fitted(enough(own)) if likeliest is None else likeliest
    return _with_memory(own, replace(kept, rates=_rounded(found.rates), answers=found.answers))


def one_sided(examples: Examples) -> bool:
    """Whether nearly all votes are of one kind, as where users have a thumb up and no thumb down.

    That they say "helpful" then tells nothing, whatever they are on, but that they were cast does: who was
    not helped says nothing. So how often votes err cannot be estimated from them, and the shipped rates
    stand.
    """
    n_helpful, n_harmful = float(examples.n_helpful.sum()), float(examples.n_harmful.sum())
    return min(n_helpful, n_harmful) < ONE_SIDED * (n_helpful + n_harmful)


def _with_weights(kept: Parameters, examples: Examples, weights: Floats) -> Parameters:
    """The parameters with these weights, (d,), of the sorts of candidates that the examples have."""
    found = kept
    if len(of_index(examples)):
        named = {name: round(float(w), 4) for name, w in zip(FEATURES, weights, strict=False)}
        found = replace(found, weights=named, sharpness=1.0)
    if len(own_given(examples)):
        found = with_given(found, weights[len(FEATURES) :])
    return found


def _with_memory(examples: Examples, kept: Parameters) -> Parameters:
    """The parameters with sharpness, number of answers, choice and kernel fitted, given the rates."""
    fitted = _calibrated(examples, kept)
    if fitted.rates.noise > NOISE_LIMIT:
        return fitted
    kernel, gain = _kernel(examples, fitted)
    return replace(fitted, kernel=kernel if gain > 0 else _same_query_kernel(examples))


def _calibrated(examples: Examples, kept: Parameters) -> Parameters:
    """The parameters with sharpness, number of answers and choice fitted, given the rates; the prior of
    an application's own candidates has a sharpness of its own."""
    some, found = enough(examples), kept
    index, given = of_index(some), own_given(some)
    if len(given) >= LEAST_QUERIES:
        sharpness, found = _sharpness(given, kept)
        found = replace(found, given_sharpness=sharpness)
    if len(index) >= LEAST_QUERIES:
        given_sharpness = found.given_sharpness
        sharpness, found = _sharpness(index, kept)
        found = replace(found, sharpness=sharpness, given_sharpness=given_sharpness)
    return found


def _sharpness(examples: Examples, kept: Parameters) -> tuple[float, Parameters]:
    """(the sharpness of the prior of these candidates, the parameters with the number of answers and
    choice fitted with it)."""
    sharpness, choice, answers = calibrated(examples, kept)
    several = None if answers is None else round(answers, 4)
    return round(sharpness, 4), replace(kept, choice=round(choice, 4), answers=several)


def enough(examples: Examples) -> Examples:
    """Without the queries whose candidates are of a sort, the index's or an application's own, that
    fewer than 64 of them have: what is fitted to that sort stays as it is."""
    index, given = of_index(examples), own_given(examples)
    if not len(given) or min(len(index), len(given)) >= LEAST_QUERIES:
        return examples
    return max(index, given, key=len)


def _fitted_parameters(examples: Examples, likeliest: Fit) -> Parameters:
    of_votes = Parameters(rates=_rounded(likeliest.rates), answers=likeliest.answers)
    return _with_weights(of_votes, examples, likeliest.weights)


def _rates_by_neighbours(examples: Examples, likeliest: Fit) -> Rates:
    """The likeliest rates given the chances by neighbours of other folds."""
    found = _with_memory(examples, _fitted_parameters(examples, likeliest))
    known = _cross_fitted(examples, found)
    weights = kernel_weights(known.near, found.kernel)
    sums = support_of(known.near, examples, examples, known.chances, weights, found)
    chances = with_support(known.prior, *sums, found.kernel.n0)
    return rates_given(examples, chances, found)


def _fitted(examples: Examples) -> Fit:
    """The likeliest weights and rates, near the shipped weights, with one answer or, where that makes
    votes clearly likelier, with several.

    The newest thousand queries decide, by the prior and by what was said of similar queries. Several
    answers must be likelier than one, also where one has the order of passages that several lead to,
    for they leave the weights more freedom. Votes that are not clearly likelier than tossed coins are
    held for that: any few look as if they told something.
    """
    one, several = (_likeliest(examples, several=each) for each in (False, True))
    some = examples.at(np.arange(len(examples))[-MOST_DECIDING:])
    tossed = log_likelihood_of_tosses(some)
    of_one = max(_evidence(some, one), _evidence(some, _in_the_order_of(several, examples)))
    of_several = _evidence(some, several)
    least, more = SEVERAL_BY
    if of_several > max(of_one, tossed) + least + more * len(some):
        return replace(several, rates=_rates_by_neighbours(examples, several))
    if of_one >= tossed + CLEARLY or one.rates.noise > NOISE_LIMIT:
        return one
    n_helpful, n_harmful = float(examples.n_helpful.sum()), float(examples.n_harmful.sum())
    share = min(max(n_helpful / max(n_helpful + n_harmful, 1.0), 1e-3), 1.0 - 1e-3)
    return replace(one, rates=Rates(share, 1.0 - share))


def _in_the_order_of(several: Fit, examples: Examples) -> Fit:
    """The likeliest fit with one answer whose prior orders passages as this fit with several does."""
    logits = (examples.features @ several.weights)[:, :, None]
    unit = np.ones(1)
    found = fit(replace(examples, features=logits), unit, strength=0.0, free=unit)
    return replace(found, weights=float(found.weights[0]) * several.weights)


def _evidence(examples: Examples, likeliest: Fit) -> float:
    """log P(votes) on these queries under a fit, by the prior and the memory."""
    found = _calibrated(examples, _fitted_parameters(examples, likeliest))
    by_query = log_likelihoods(examples, prior_under(examples, found), found)
    alone = float((by_query + of_any_answer(examples, found.rates)).sum())
    _, gain = _kernel(examples, found)
    return alone + max(gain, 0.0) * len(examples)


def _likeliest(examples: Examples, *, several: bool) -> Fit:
    """The likeliest weights, (d,) with d of the examples, and rates, near the shipped weights, with one
    answer or several."""
    names = (*FEATURES, *GIVEN)[: examples.features.shape[2]]
    free = np.array([float(name in FREE) for name in names])
    centre = Parameters.starting(examples.trust).vector[: len(names)]
    if examples.given is None:
        return fit(examples, centre, strength=STRENGTH, free=free, several=several)
    scale = given_scale(examples)  # of which the Gaussian is independent, but the search is not
    scaled = replace(examples, features=examples.features / scale)
    found = fit(scaled, centre * scale, strength=STRENGTH, free=free, several=several)
    return replace(found, weights=found.weights / scale)


def _rounded(rates: Rates) -> Rates:
    both = (rates.false_helpful, rates.false_harmful)
    return Rates(*(round(max(rate, 1e-3), 4) for rate in both))


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
    gains = _gains(examples, found)
    cosines = dict(zip(QUANTILES, thetas(examples.vectors, QUANTILES), strict=True))
    kernels = [Kernel(cosines[q], q, gamma) for q, gamma in itertools.product(QUANTILES, GAMMAS)]
    tried, likely = [], []
    for kernel, gain in zip(kernels, gains(kernels), strict=True):
        for n0 in STRENGTHS:
            tried.append((kernel.theta, kernel.theta_quantile, kernel.gamma, np.log(n0)))
            unlikely = 0.5 * ((np.log(n0) - shipped) / N0_SPREAD) ** 2
            likely.append(gain(n0) - unlikely)
    share = np.exp(np.array(likely) - max(likely))
    theta, quantile, gamma, log_n0 = (share @ np.array(tried) / share.sum()).tolist()
    n0 = float(np.exp(log_n0))
    # near-duplicates are among the neighbours that it is fitted to
    kernel = Kernel(round(theta, 4), round(quantile, 4), round(gamma, 3), round(n0, 5), same=0.0)
    (gain,) = gains([kernel])
    return kernel, gain(kernel.n0) / len(examples)


Bools: TypeAlias = npt.NDArray[np.bool_]
_Gain: TypeAlias = Callable[[float], float]
_Gains: TypeAlias = Callable[[Sequence[Kernel]], Iterator[_Gain]]


def _gains(examples: Examples, found: Parameters) -> _Gains:
    """log P(votes) of all queries with the memory less that without, by kernel and n0, where the needs
    of NEW_NEEDS of the queries were never asked about before."""
    known = _cross_fitted(examples, found)
    each = _one_answer if found.answers is None else _several_answers
    seen = each(examples, found, known)
    new = each(examples, found, replace(known, near=_of_other_needs(known.near, examples)))

    def both(asked: _Gain, unasked: _Gain) -> _Gain:
        return lambda n0: (1.0 - NEW_NEEDS) * asked(n0) + NEW_NEEDS * unasked(n0)

    return lambda kernels: map(both, seen(kernels), new(kernels))


@dataclass(frozen=True)
class _CrossFitted:
    """Neighbours of other folds, the prior and the chances after the votes, (n, C), and the links."""

    near: Nearest
    prior: Floats
    chances: Floats
    links: Links


def _cross_fitted(examples: Examples, found: Parameters) -> _CrossFitted:
    near = examples.cross_near
    prior = prior_under(examples, found)
    chances = neighbour_chances_of(examples, prior, found)
    return _CrossFitted(near, prior, chances, links(near, examples, examples, chances))


def _of_other_needs(near: Nearest, examples: Examples) -> Nearest:
    """The neighbours for which users called no passage helpful that they called helpful for the query
    itself, as if nobody had asked for the same; the cosine of the others is -2."""
    helpful = (examples.net > 0).astype(np.float64)
    shared = links(near, examples, examples, helpful)
    slots = shared.slot[helpful.ravel()[shared.to] > 0]
    same = np.zeros(near.rows.size, dtype=np.bool_)
    same[slots] = True
    return Nearest(near.rows, np.where(same.reshape(near.rows.shape), np.float32(-2), near.cosines))


def _one_answer(examples: Examples, found: Parameters, known: _CrossFitted) -> _Gains:
    tilt = choice_odds(examples, found.choice)
    values = tilt, tilt * vote_odds(examples, found.rates)
    alone = [(known.prior * value).sum(axis=1) for value in values]

    def of(sums: tuple[Floats, Floats]) -> _Gain:
        def gain(n0: float) -> float:
            with_it = (n0 * alone[1] + sums[1]) / (n0 * alone[0] + sums[0])
            return float(np.log(with_it * alone[0] / alone[1]).sum())

        return gain

    return lambda kernels: map(
        of, sums_of_support(known.links, known.near, known.chances, values, kernels)
    )


def _several_answers(examples: Examples, found: Parameters, known: _CrossFitted) -> _Gains:
    """With several answers: the sum over all candidates that have votes.

    Those without any have to be paid for: users vote on what they are shown, and a memory that lifts
    passages nobody was shown would cost nothing. Each of them that neighbours speak of counts as a small
    part of a vote by the prior itself.
    """
    voted = np.flatnonzero(examples.voted)
    odds = vote_odds(examples, found.rates).ravel()[voted]
    wanted = np.union1d(voted, known.links.to)
    among = np.isin(wanted, voted)
    own = known.prior.ravel()[wanted]

    def as_written_from(chances: Floats) -> Floats:
        every = known.prior.copy()
        every.ravel()[voted] = chances
        return as_chosen(examples, every, found).ravel()[voted]

    if (
        examples.chosen is not None
    ):  # the chances of the candidates of a query depend on one another
        of = _gain_of_all(own, among, odds, as_written_from)
    else:
        of = _gain_of_moved(own, among, odds)
    return lambda kernels: map(of, sums_at(known.links, known.near, known.chances, wanted, kernels))


def _gain_of_all(
    own: Floats, among: Bools, odds: Floats, as_chosen: Callable[[Floats], Floats]
) -> Callable[[tuple[Floats, Floats]], _Gain]:
    """From the chances before, whether there are votes, the odds of those with votes, and what makes of
    their chances those that they were written from."""
    at, rest = np.flatnonzero(among), np.flatnonzero(~among)

    def likely(chances: Floats) -> float:
        by_votes = np.log1p(as_chosen(chances[at]) * (odds - 1.0))
        return float(by_votes.sum() + UNSHOWN * _by_prior(own[rest], chances[rest]).sum())

    alone = likely(own)

    def of(sums: tuple[Floats, Floats]) -> _Gain:
        added, every = sums
        return lambda n0: likely((n0 * own + added) / (n0 + every)) - alone

    return of


def _gain_of_moved(
    own: Floats, among: Bools, odds: Floats
) -> Callable[[tuple[Floats, Floats]], _Gain]:
    """The same where each chance stands for itself: nothing is gained where no neighbour says anything."""
    surplus = np.zeros(len(own))
    surplus[among] = odds - 1.0
    alone = np.where(among, np.log1p(own * surplus), UNSHOWN * _by_prior(own, own))

    def of(sums: tuple[Floats, Floats]) -> _Gain:
        moved = np.flatnonzero(sums[1])
        prior, added, every = own[moved], sums[0][moved], sums[1][moved]
        at, rest = np.flatnonzero(among[moved]), np.flatnonzero(~among[moved])
        more, right = surplus[moved[at]], prior[rest]
        before = float(alone[moved].sum())

        def gain(n0: float) -> float:
            chances = (n0 * prior + added) / (n0 + every)
            by_prior = UNSHOWN * _by_prior(right, chances[rest])
            return float(np.log1p(chances[at] * more).sum() + by_prior.sum()) - before

        return gain

    return of


def _by_prior(prior: Floats, chances: Floats) -> Floats:
    """log P of right and wrong by the prior itself, under these chances."""
    now = np.clip(chances, 1e-9, 1.0 - 1e-9)
    found: Floats = prior * np.log(now) + (1.0 - prior) * np.log1p(-now)
    return found
