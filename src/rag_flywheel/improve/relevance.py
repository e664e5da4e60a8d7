"""Calibrates relevance on votes: fits its coefficients to how likely they make the votes.

The votes on a passage of relevance P are as likely as P · P(votes | right) + (1 − P) · P(votes | wrong).
Votes are taken to be wrong as often as ranking found that they call wrong passages helpful, in either
direction: its rate of wrong "harmful" votes is of questions that all have an answer, and where many have
none it takes wrong passages for right ones that are called harmful. A rate fitted along with the
coefficients comes out too low, and the chances too near to each other. P is taken after the votes on
similar queries of other folds, as in serving. Readers vote mostly on the first hits. Whether they vote
does not depend on what a hit says, but the last hits are worse than the first: so a vote counts for as
many hits as were shown at its rank for each that got a vote.

Whether an answer holds a right passage is not read off the hits: of two thirds of the questions one vote
or two are known. The chances of ranking say how likely a right passage is among those shown, if there is
one; whether a question has one is fitted to the votes, on the same measures as the answer and held near
one number for all: where half of the questions have none, what tells these from the others would else be
lost. What follows for each question, by Bayes' rule with its votes, is what the coefficients of the
answer are fitted to.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rag_flywheel.improve.examples import (
    Examples,
    Floats,
    kernel_weights,
    links,
    support,
)
from rag_flywheel.improve.given import of_index
from rag_flywheel.improve.likelihood import neighbour_chances_of, prior_under
from rag_flywheel.rank.calibration import (
    HALF_ASKED,
    OF_ANSWER,
    OF_INDEX,
    SHOWN,
    USUALLY_SAID,
    Calibration,
)
from rag_flywheel.rank.features import MEASURES
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.rank.posterior import NOISE_LIMIT
from rag_flywheel.rank.relevance import (
    distinct_hits,
    log_odds_of_any,
    log_shares,
    reach,
    terms_of_index,
)

LEAST_QUERIES = 64
STRENGTH = 3.0  # of the Gaussian around the shipped coefficients, for a term whose spread is 1
_RAREST = 0.02  # the least share of hits at a rank, as assumed, that get votes
_SURE = 1e-9
_SMALLEST_RATE, _LARGEST_RATE = 1e-3, 0.49
_FARTHEST = 4.0  # of a logarithm
_LEAST_SPREAD = 0.05
_DEVIATION = 1.4826  # the standard deviation of a normal distribution over its median deviation
UNRELATED_SHARE = 0.2  # of the queries with votes: as if so many were about something else
_WITH, _WITHOUT = 9.0, 1.0  # as if so many questions with an answer and without one had been seen
_EVEN = 30.0  # how strongly questions are held to be alike in having an answer, as STRENGTH


def with_unrelated(calibration: Calibration, unrelated: Examples) -> Calibration:
    """The calibration with `unrelated` and `spread` as questions that have nothing to do with the
    passages find them; a few of these may have, so that medians are taken."""
    found = unrelated.present.any(axis=1)
    if not found.any():
        return calibration
    best = np.where(unrelated.present, unrelated.features[:, :, 0], -np.inf).max(axis=1)[found]
    middle = float(np.median(best))
    spread = _DEVIATION * float(np.median(np.abs(best - middle)))
    spread = max(spread, _LEAST_SPREAD)
    return replace(calibration, unrelated=round(middle, 4), spread=round(spread, 4))


def calibrated_relevance(
    examples: Examples, parameters: Parameters, unrelated: Examples
) -> Calibration:
    """The coefficients of relevance that are likeliest given the votes on queries of the index, near the
    shipped ones; those of the parameters where fewer than 64 queries have votes, or votes are wrong too
    often. `unrelated` and `spread` stay, and so do the coefficients of given candidates.

    unrelated: questions that have nothing to do with the passages, which nobody may have asked yet: they
    count as a part of all questions, without an answer.
    """
    kept = parameters.relevance
    own = of_index(examples)
    if len(own) < LEAST_QUERIES or own.measures is None or parameters.rates.noise > NOISE_LIMIT:
        return kept
    shown, shipped = _Shown.of(own, parameters), Calibration()
    memory = [math.log(parameters.kernel.n0), math.log(shipped.agreement)]
    rate = min(max(parameters.rates.false_helpful, _SMALLEST_RATE), _LARGEST_RATE)
    centre = np.concatenate([shipped.of_index, memory])
    spread = np.append(_spread(shown.terms), np.ones(2))
    found = _near(centre, spread, lambda at: shown.of_hits(at, rate))
    index, (n0, agreement) = found[:-2], np.exp(np.clip(found[-2:], -_FARTHEST, _FARTHEST)).tolist()
    terms = shown.of_answer(index, kept)
    answer = _near(
        shipped.of_answer,
        _spread(terms),
        _with_others(
            shown.of_answers(found, shown.answered(rate, terms), terms),
            _Shown.of(unrelated, parameters).without_neighbours(),
            UNRELATED_SHARE * len(own),
            index,
            kept,
        ),
    )
    return replace(
        kept,
        index={name: round(float(w), 4) for name, w in zip(OF_INDEX, index, strict=True)},
        answer={name: round(float(w), 4) for name, w in zip(OF_ANSWER, answer, strict=True)},
        n0=round(n0, 5),
        agreement=round(agreement, 4),
    )


_Value: TypeAlias = Callable[[Floats], tuple[float, Floats]]


def _with_others(
    of_votes: _Value, others: "_Shown", n_others: float, index: Floats, kept: Calibration
) -> _Value:
    """`of_votes` and the likelihood that none of the other queries, counted as so many, has an answer."""
    terms = others.of_answer(index, kept)
    weight = n_others / max(len(terms), 1)

    def of(at: Floats) -> tuple[float, Floats]:
        value, slope = of_votes(at)
        z = np.clip(terms @ at, -50.0, 50.0)
        value -= weight * float(np.logaddexp(0.0, z).sum())
        return value, slope - weight * (1.0 / (1.0 + np.exp(-z)) @ terms)

    return of


@dataclass(frozen=True)
class _Shown:
    """The 8 best candidates of n queries, as they would be shown.

    terms: (n, 8, 6). known: the share of each query's words that any passage has, said: how much each
    says, (n,). added, every: S
    and the sum of K, by neighbours of other folds, (n, 8).
    likely: their chances by ranking, (n, 8); several: whether any number of them may be right. helpful,
    harmful: votes, (n, 8). weights: of the votes, 0 without any. there: 1 where there is a candidate,
    else 0.
    """

    terms: Floats
    known: Floats
    said: Floats
    added: Floats
    every: Floats
    likely: Floats
    several: bool
    helpful: Floats
    harmful: Floats
    weights: Floats
    there: Floats

    @classmethod
    def of(cls, examples: Examples, parameters: Parameters) -> "_Shown":
        added, every = _by_neighbours(examples, parameters)
        prior, n0 = prior_under(examples, parameters), parameters.kernel.n0
        likely = np.where(examples.present, (n0 * prior + added) / (n0 + every), -1.0)
        best = np.argsort(-likely, axis=1, kind="stable")[:, :SHOWN]

        def at(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return np.take_along_axis(values, best, axis=1)

        assert examples.measures is not None
        measured = np.take_along_axis(examples.measures, best[:, :, None], axis=1)
        dense = at(examples.features[:, :, 0]).astype(np.float32)
        there = at(examples.present) & ~np.isnan(measured[..., 0])
        terms = terms_of_index(dense, at(_shares(examples, parameters)), measured)
        terms = np.where(there[..., None], terms, 0.0)

        def of_query(name: str) -> Floats:
            found: Floats = np.where(there, measured[..., MEASURES.index(name)], 0.0).max(axis=1)
            return found

        voted = at(examples.voted) & there
        share = voted.sum(axis=0) / np.maximum(there.sum(axis=0), 1)
        weights = voted / np.maximum(share, _RAREST)
        weights *= voted.sum() / max(float(weights.sum()), 1.0)
        return cls(
            terms,
            of_query("known"),
            of_query("said"),
            at(added),
            at(every),
            at(likely) * there,
            parameters.answers is not None,
            at(examples.helpful),
            at(examples.harmful),
            weights,
            there.astype(np.float64),
        )

    def without_neighbours(self) -> "_Shown":
        """The same, as if none of these queries had similar ones with votes."""
        return replace(self, added=np.zeros_like(self.added), every=np.zeros_like(self.every))

    def of_answer(self, index: Floats, calibration: Calibration) -> Floats:
        """What the coefficients OF_ANSWER multiply, (n, 7)."""
        before = self.terms @ index
        likely = self.of_any(before, before)
        dense = np.where(self.there > 0, self.terms[..., OF_INDEX.index("dense")], -np.inf)
        far, farther = reach(calibration, dense.max(axis=1))
        weight = (self.every * self.there).max(axis=1)
        asked = weight / (HALF_ASKED + weight)
        said = self.said - USUALLY_SAID
        return np.stack([np.ones_like(far), far, farther, likely, self.known, said, asked], axis=-1)

    def of_any(self, before: Floats, after: Floats) -> Floats:
        """The log-odds that any hit is right, (n,), by those of each, (n, 8). before: without votes."""
        found = np.empty(len(before))
        for i, there in enumerate(self.there > 0):
            own = after[i, there].tolist()
            found[i] = log_odds_of_any(own[j] for j in distinct_hits(before[i, there].tolist()))
        return found

    def after(self, at: Floats) -> tuple[Floats, Floats]:
        """(log-odds after the votes on similar queries, (n, 8), their slopes, (n, 8, 8)) under the
        coefficients `at`, the last two being log n0 and log agreement."""
        n0, log_agreement = math.exp(min(max(float(at[-2]), -_FARTHEST), _FARTHEST)), float(at[-1])
        before = 1.0 / (1.0 + np.exp(-np.clip(self.terms @ at[:-2], -50.0, 50.0)))
        said = np.maximum(self.every, self.added)
        total = n0 + said
        chance = np.clip((n0 * before + self.added) / total, _SURE, 1.0 - _SURE)
        log_odds = np.log(chance) - np.log1p(-chance)
        share = said / total
        power = np.exp(min(max(log_agreement, -_FARTHEST), _FARTHEST) * share)
        by_chance = power / (chance * (1.0 - chance))
        by_n0 = by_chance * n0 * (before * said - self.added) / total**2
        by_n0 -= log_odds * power * log_agreement * n0 * said / total**2
        by_before = by_chance * n0 / total * before * (1.0 - before)
        slopes = [by_before[..., None] * self.terms, by_n0[..., None]]
        slopes.append((log_odds * power * share)[..., None])
        return log_odds * power, np.concatenate(slopes, axis=-1)

    def of_hits(self, at: Floats, rate: float) -> tuple[float, Floats]:
        """log P(votes) under these coefficients, up to a constant, and its slopes.

        rate: of wrong votes.
        """
        log_odds, slopes = self.after(at)
        chances = 1.0 / (1.0 + np.exp(-np.clip(log_odds, -50.0, 50.0)))
        power = (self.helpful - self.harmful) * _log_odds_of_vote(rate)
        odds = np.exp(np.clip(power, -50.0, 50.0))
        total = chances * odds + 1.0 - chances
        by_log_odds = self.weights * (odds - 1.0) / total * chances * (1.0 - chances)
        value = float((self.weights * np.log(total)).sum())
        return value, np.einsum("nr,nrd->d", by_log_odds, slopes)

    def answered(self, rate: float, terms: Floats) -> Floats:
        """The chance of each query that a hit is right, (n,), given the votes on it and on all others.

        rate: of wrong votes; terms (n, 7): those of the answer.
        """
        power = (self.helpful - self.harmful) * _log_odds_of_vote(rate)
        power = np.where(self.weights > 0, power, 0.0)
        odds = np.exp(np.clip(power, -50.0, 50.0))
        some, ratio = _shown_by(self.likely, odds, several=self.several)
        some *= _with_answer(some * (ratio - 1.0), terms)
        found: Floats = some * ratio / (1.0 + some * (ratio - 1.0))
        return found

    def of_answers(self, found: Floats, answered: Floats, terms: Floats) -> _Value:
        """The expected log-likelihood, and its slopes, as a function of the coefficients of the answer,
        of queries that have a right hit with these chances, (n,). found: the coefficients of the hits, of
        which `terms` are `of_answer`."""
        before = self.terms @ found[:-2]
        moved = self.of_any(before, self.after(found)[0]) - terms[:, OF_ANSWER.index("any")]

        def of(at: Floats) -> tuple[float, Floats]:
            z = np.clip(terms @ at + moved, -50.0, 50.0)
            value = float((answered * z - np.logaddexp(0.0, z)).sum())
            return value, (answered - 1.0 / (1.0 + np.exp(-z))) @ terms

        return of


def _shares(examples: Examples, parameters: Parameters) -> Floats:
    """The logarithms of the shares of the candidates in the prior, (n, C)."""
    found = np.zeros(examples.lineages.shape)
    prior = examples.features @ parameters.vector[: examples.features.shape[2]]
    for row, own, there in zip(found, prior, examples.present, strict=True):
        row[there] = log_shares(own[there], parameters.prior_of_unrelated)
    return found


def _shown_by(chances: Floats, odds: Floats, *, several: bool) -> tuple[Floats, Floats]:
    """(the chance that a hit is right, P(votes | one is) / P(votes | none is)), (n,) each, by the chances
    of ranking, (n, 8), of questions that have an answer.

    With several answers, hits are right each on its own.
    """
    if not several:
        said, some = (chances * odds).sum(axis=1), chances.sum(axis=1)
    else:
        none = np.prod(1.0 - chances, axis=1)
        said, some = np.prod(chances * (odds - 1.0) + 1.0, axis=1) - none, 1.0 - none
    ratio: Floats = np.maximum(said, _SURE) / np.maximum(some, _SURE)
    return np.clip(some, _SURE, 1.0 - _SURE), ratio


def _with_answer(gain: Floats, terms: Floats) -> Floats:
    """The likeliest chances of n questions to have an answer, (n,), the votes on each being
    1 + chance · gain times as likely as without one.

    A logistic function of the terms (n, d), whose slopes are held near 0.
    """
    from scipy.optimize import minimize

    scaled = (terms - terms.mean(axis=0)) / _spread(terms)
    scaled[:, 0] = 1.0
    pull = np.full(scaled.shape[1], _EVEN)
    pull[0] = 0.0

    def loss(at: Floats) -> tuple[float, Floats]:
        chance = _sigmoid(scaled @ at)
        total = 1.0 + chance * gain
        share = float(_sigmoid(at[:1])[0])
        value = float(np.log(total).sum() - 0.5 * pull @ at**2)
        value += _WITH * math.log(share) + _WITHOUT * math.log1p(-share)
        slope = (gain * chance * (1.0 - chance) / total) @ scaled - pull * at
        slope[0] += _WITH * (1.0 - share) - _WITHOUT * share
        return -value, -slope

    start = np.zeros(scaled.shape[1])
    start[0] = math.log(_WITH / _WITHOUT)
    return _sigmoid(scaled @ minimize(loss, start, jac=True, method="L-BFGS-B").x)


def _sigmoid(log_odds: Floats) -> Floats:
    found: Floats = 1.0 / (1.0 + np.exp(-np.clip(log_odds, -30.0, 30.0)))
    return found


def _by_neighbours(examples: Examples, parameters: Parameters) -> tuple[Floats, Floats]:
    """(S, the sum of K over the neighbours that say anything about it) of each candidate, (n, C), by
    neighbours of other folds."""
    near = examples.cross_near
    chances = neighbour_chances_of(examples, prior_under(examples, parameters), parameters)
    weights = kernel_weights(near, parameters.kernel)
    if parameters.memory.neighbours < 1:
        weights = np.zeros_like(weights)
    found = links(near, examples, examples, chances, weights)
    width = examples.lineages.shape[1]
    every = support(found, np.ones(len(found.of)), weights, width)
    return support(found, chances.ravel()[found.of], weights, width), every


def _log_odds_of_vote(rate: float) -> float:
    return math.log1p(-rate) - math.log(rate)


def _spread(terms: Floats) -> Floats:
    """The standard deviation of each term, that of the constant being 1, (d,)."""
    found: Floats = terms.reshape(-1, terms.shape[-1]).std(axis=0)
    found[0] = 1.0
    np.maximum(found, 1e-3, out=found)
    return found


def _near(centre: Floats, spread: Floats, value: _Value) -> Floats:
    """Where `value` less the Gaussian around the centre is largest, by L-BFGS-B."""
    from scipy.optimize import minimize

    pull = STRENGTH * spread**2

    def loss(at: Floats) -> tuple[float, Floats]:
        found, slope = value(at)
        apart = at - centre
        return -found + 0.5 * float(pull @ apart**2), pull * apart - slope

    found: Floats = minimize(loss, centre, jac=True, method="L-BFGS-B").x
    return found
