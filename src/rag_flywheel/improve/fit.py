"""Fits the weights of the prior to votes, and calibrates the noise of votes and the kernel."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from rag_flywheel.errors import counted
from rag_flywheel.improve.examples import (
    Examples,
    Floats,
    kernel_weights,
)
from rag_flywheel.improve.given import given_scale, of_index, own_given, with_given
from rag_flywheel.improve.informative import informative
from rag_flywheel.improve.kernel import CrossFitted, likeliest_kernel, same_query_kernel
from rag_flywheel.improve.likelihood import (
    Fit,
    calibrated,
    fit,
    log_likelihood_of_tosses,
    log_likelihoods,
    of_any_answer,
    prior_under,
    rates_given,
    with_support,
)
from rag_flywheel.improve.propagate import support_of
from rag_flywheel.rank.features import FEATURES, GIVEN
from rag_flywheel.rank.parameters import FITTED, Parameters
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
FREE = ("rarest", "length")  # weights that may be negative
ONE_SIDED = 0.02  # the least share of the rarer kind of votes


@dataclass(frozen=True)
class Proposal:
    """Parameters fitted to votes, None without any to propose; why: a sentence; scores: the numbers
    behind it; likeliest: the fit behind it, None where there was nothing to fit."""

    parameters: Parameters | None
    why: str
    scores: Mapping[str, float]
    likeliest: Fit | None = None


def newest(examples: Examples) -> Examples:
    """Those that parameters are fitted to, the last 8,000; one object, so that neighbours are cached."""
    return examples.last(MOST_QUERIES)


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
        return replace(kept, rates=Rates(), choice=0.0, kernel=same_query_kernel(every))
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
    kernel, gain = likeliest_kernel(examples, fitted)
    return replace(fitted, kernel=kernel if gain > 0 else same_query_kernel(examples))


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
    known = CrossFitted.of(examples, found)
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
    _, gain = likeliest_kernel(examples, found)
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
