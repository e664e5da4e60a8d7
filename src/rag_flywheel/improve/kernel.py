"""Fits the kernel: how near a past query must be to be evidence, and how much that evidence counts.

Each kernel of a grid is weighted by how likely the memory under it makes the votes, where neighbours are
of other folds. Those that are out of the question are not computed to the end.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from rag_flywheel.improve.examples import (
    Examples,
    Floats,
    Ints,
    Links,
    kernel_weights,
    links,
    sums_of_support,
)
from rag_flywheel.improve.likelihood import (
    as_chosen,
    choice_odds,
    neighbour_chances_of,
    prior_under,
    vote_odds,
)
from rag_flywheel.improve.threshold import thetas
from rag_flywheel.index.exact import typical_cosine
from rag_flywheel.index.nearest import Nearest
from rag_flywheel.rank.parameters import Kernel, Parameters

if TYPE_CHECKING:
    from scipy.sparse import csr_array

QUANTILES = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
GAMMAS = (1.0, 2.0, 4.0, 8.0)
STRENGTHS = (30.0, 8.0, 3.0, 1.0, 0.37, 0.14, 0.05, 0.018, 0.007, 0.0025)
N0_SPREAD = 1.5  # of log n0 around the shipped one, before any vote
SAME = 0.99  # the least cosine, above the typical one, of a query to itself in other words
UNSHOWN = 0.03
NEW_NEEDS = 0.1  # the share of queries, as assumed, whose need nobody asked about before
_NOTHING = 50.0  # what is so much less likely weighs less than a rounding error
_AT_ONCE = 256  # queries
_CELLS = 2**14  # chances


def same_query_kernel(examples: Examples) -> Kernel:
    """A kernel for where similar queries are no evidence for one another: votes on a query count for
    that very query alone, with the shipped n0."""
    typical = typical_cosine(examples.vectors)
    return replace(Parameters().kernel, theta=round(typical + SAME * (1.0 - typical), 4), gamma=1.0)


def likeliest_kernel(examples: Examples, found: Parameters) -> tuple[Kernel, float]:
    """(the posterior mean of the kernel, by neighbours of other folds; its mean gain in log P(votes)).

    Each kernel of the grid is weighted by the likelihood of the votes under it, times a log-normal
    prior around the shipped n0 (of which the mean is geometric): with few queries the likeliest
    kernel alone would depend on chance, and so the memory stays about as mild as it is shipped.
    """
    shipped, n0s = np.log(Parameters().kernel.n0), np.array(STRENGTHS)
    cosines = dict(zip(QUANTILES, thetas(examples.vectors, QUANTILES), strict=True))
    kernels = [Kernel(cosines[q], q, gamma) for q, gamma in itertools.product(QUANTILES, GAMMAS)]
    tried = np.array(
        [(k.theta, k.theta_quantile, k.gamma, np.log(n0)) for k in kernels for n0 in STRENGTHS]
    )
    known = CrossFitted.of(examples, found)
    unlikely = 0.5 * ((np.log(n0s) - shipped) / N0_SPREAD) ** 2
    likely = _gains(examples, found, known, kernels, n0s, -unlikely).ravel()
    share = np.exp(likely - likely.max())
    theta, quantile, gamma, log_n0 = (share @ tried / share.sum()).tolist()
    n0 = float(np.exp(log_n0))
    # near-duplicates are among the neighbours that it is fitted to
    kernel = Kernel(round(theta, 4), round(quantile, 4), round(gamma, 3), round(n0, 5), same=0.0)
    gain = _gains(examples, found, known, [kernel], np.array([kernel.n0]), np.zeros(1))
    return kernel, float(gain[0, 0]) / len(examples)


@dataclass(frozen=True)
class CrossFitted:
    """Neighbours of other folds, the prior and the chances after the votes, (n, C)."""

    near: Nearest
    prior: Floats
    chances: Floats

    @classmethod
    def of(cls, examples: Examples, found: Parameters) -> "CrossFitted":
        """These under some parameters."""
        prior = prior_under(examples, found)
        chances = neighbour_chances_of(examples, prior, found)
        return cls(examples.cross_near, prior, chances)


def _gains(
    examples: Examples,
    found: Parameters,
    known: CrossFitted,
    kernels: Sequence[Kernel],
    n0: Floats,
    more: Floats,
) -> Floats:
    """log P(votes) with the memory less that without, and `more` (s,), by kernel and n0, (k, s), where the
    needs of NEW_NEEDS of the queries were never asked about before; -inf: far less than the most."""
    near = _only(known.near, known.near.cosines > min(kernel.theta for kernel in kernels))
    new = of_other_needs(near, examples)
    there = (near.cosines > -2.0).astype(np.float64)
    shared = links(near, examples, examples, known.chances, there)
    asked, unasked = (
        _Asked(examples, found, replace(known, near=each), shared) for each in (near, new)
    )
    if found.answers is None:
        gains = [each.gains_of_one_answer(kernels, n0) for each in (asked, unasked)]
        return (1.0 - NEW_NEEDS) * gains[0] + NEW_NEEDS * gains[1] + more
    of_asked = asked.parts(kernels)
    of_unasked = map(_Part.with_neighbours, of_asked, _parts_of(new), itertools.repeat(kernels))
    parts = [
        *((1.0 - NEW_NEEDS, part) for part in of_asked),
        *((NEW_NEEDS, part) for part in of_unasked),
    ]
    likely = np.tile(more, (len(kernels), 1))
    for share, part in parts:
        likely += share * part.by_votes(n0)
    _pay(likely, parts, n0)
    return likely


def _pay(likely: Floats, parts: "Sequence[tuple[float, _Part]]", n0: Floats) -> None:
    """Take from log P(votes), (k, s), what is to be paid for candidates without votes. None can gain by that:
    what is too far behind the likeliest before all is paid is behind it for good, and becomes -inf."""
    first, *others = parts
    every = np.ones(likely.shape, dtype=np.bool_)
    likely += first[0] * first[1].paid(every, n0)
    best = np.zeros(likely.shape, dtype=np.bool_)
    best.ravel()[np.argmax(likely)] = True
    least = float(likely[best][0]) + sum(
        share * float(part.paid(best, n0)[best][0]) for share, part in others
    )
    for share, part in others:
        live = likely > least - _NOTHING
        likely[~live] = -np.inf
        likely[live] += share * part.paid(live, n0)[live]


@dataclass(frozen=True)
class _Asked:
    """Queries with their neighbours, and the candidates that they share with these."""

    examples: Examples
    found: Parameters
    known: CrossFitted
    shared: Links

    def gains_of_one_answer(self, kernels: Sequence[Kernel], n0: Floats) -> Floats:
        """The gains, (k, s)."""
        examples, known = self.examples, self.known
        tilt = choice_odds(examples, self.found.choice)
        values = tilt, tilt * vote_odds(examples, self.found.rates)
        alone = [(known.prior * value).sum(axis=1) for value in values]
        gains = np.empty((len(kernels), len(n0)))
        every = sums_of_support(self.shared, known.near, known.chances, values, kernels)
        for i, sums in enumerate(every):
            for j, each in enumerate(n0.tolist()):
                with_it = (each * alone[1] + sums[1]) / (each * alone[0] + sums[0])
                gains[i, j] = np.log(with_it * alone[0] / alone[1]).sum()
        return gains

    def parts(self, kernels: Sequence[Kernel]) -> "list[_Part]":
        """The queries in parts, with several answers."""
        odds = vote_odds(self.examples, self.found.rates)
        k, start, found = self.known.near.rows.shape[1], 0, []
        for near in _parts_of(self.known.near):
            rows = np.arange(start, start + len(near.rows))
            slots = np.searchsorted(self.shared.slot, [start * k, (start + len(rows)) * k])
            found.append(self._part(rows, slice(*slots), _weights(near, kernels), odds[rows]))
            start += len(rows)
        return found

    def _part(self, rows: Ints, of_part: slice, weights: Floats, odds: Floats) -> "_Part":
        from scipy.sparse import csr_array  # as in raters.py

        (width, k), start = (self.known.prior.shape[1], self.known.near.rows.shape[1]), int(rows[0])
        to, slot = self.shared.to[of_part] - start * width, self.shared.slot[of_part] - start * k
        chances = self.known.chances.ravel()[self.shared.of[of_part]]
        shape = len(rows) * width, len(rows) * k
        given = csr_array((chances, (to, slot)), shape=shape)
        if given.nnz == len(to):
            spoken = csr_array((np.ones(len(to)), given.indices, given.indptr), shape=shape)
        else:  # a neighbour has a passage twice
            spoken = csr_array((np.ones(len(to)), (to, slot)), shape=shape)
        return _Part(
            self.examples if len(rows) == len(self.examples) else self.examples.at(rows),
            self.found,
            self.known.prior[rows],
            odds,
            given,
            spoken,
            weights,
        )


@dataclass(frozen=True)
class _Part:
    """Some queries, each of whose candidates is right or wrong on its own.

    prior, odds (n, C): the prior, and the factor by which votes multiply it; chances, spoken (n · C, slots):
    the chances that neighbours give to candidates, and 1 where they do; weights (slots, k): K by kernel.
    """

    examples: Examples
    found: Parameters
    prior: Floats
    odds: Floats
    chances: "csr_array"
    spoken: "csr_array"
    weights: Floats

    def with_neighbours(self, near: Nearest, kernels: Sequence[Kernel]) -> "_Part":
        """The same with other cosines of the neighbours."""
        return replace(self, weights=_weights(near, kernels))

    def by_votes(self, n0: Floats) -> Floats:
        """By how much the memory makes votes likelier, (k, s)."""
        voted = np.flatnonzero(self.examples.voted)
        own, surplus = self.prior.ravel()[voted], self.odds.ravel()[voted] - 1.0
        added, every = (each[voted] @ self.weights for each in (self.chances, self.spoken))

        def likely(chances: Floats) -> float:
            return float(np.log1p(self._as_chosen(chances, voted) * surplus).sum())

        alone = likely(own)
        gains = np.empty((self.weights.shape[1], len(n0)))
        for i, (s, e) in enumerate(zip(added.T, every.T, strict=True)):
            for j, each in enumerate(n0.tolist()):
                gains[i, j] = likely((each * own + s) / (each + e)) - alone
        return gains

    def _as_chosen(self, chances: Floats, voted: Ints) -> Floats:
        """The chances of candidates with votes, (v,), as `as_chosen` has them: where answers were chosen,
        those of a query depend on one another."""
        if self.examples.chosen is None:
            return chances
        every = self.prior.copy()
        every.ravel()[voted] = chances
        return as_chosen(self.examples, every, self.found).ravel()[voted]

    def paid(self, live: npt.NDArray[np.bool_], n0: Floats) -> Floats:
        """What candidates without votes cost, (k, s), 0 or less; of those kernels and n0 that are live.

        Users vote on what they are shown, and a memory that lifts passages nobody was shown would cost
        nothing. Each of them that neighbours speak of counts as a small part of a vote by the prior itself.
        """
        paid = np.zeros(live.shape)
        kernels = np.flatnonzero(live.any(axis=1))
        if not len(kernels):
            return paid
        weights = np.ascontiguousarray(self.weights[:, kernels])
        added, every = ((each @ weights).T for each in (self.chances, self.spoken))
        unvoted = ~self.examples.voted.ravel()
        for i, s, e in zip(kernels.tolist(), added, every, strict=True):
            at = np.flatnonzero((e > 0.0) & unvoted)
            paid[i, live[i]] = _paid(self.prior.ravel()[at], s[at], e[at], n0[live[i]])
        return UNSHOWN * paid


def _parts_of(near: Nearest) -> Iterator[Nearest]:
    """The neighbours of some queries at a time."""
    for start in range(0, len(near.rows), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        yield Nearest(near.rows[part], near.cosines[part])


def _weights(near: Nearest, kernels: Sequence[Kernel]) -> Floats:
    """K of each neighbour by kernel, (slots, k)."""
    return np.stack([kernel_weights(near, each).ravel() for each in kernels], axis=1)


def _paid(prior: Floats, added: Floats, every: Floats, n0: Floats) -> Floats:
    """By how much log P of right and wrong by the prior itself, (r,), changes with S and E, (r,), the sums,
    (s,)."""
    found, many = np.zeros(len(n0)), max(1, _CELLS // len(n0))
    for start in range(0, len(prior), many):
        part = slice(start, start + many)
        own, chances = prior[part], n0[:, None] * prior[part]
        chances += added[part]
        chances /= n0[:, None] + every[part]
        found += _by_prior(own, chances) - _by_prior(own, own[None, :])
    return found


def _by_prior(prior: Floats, chances: Floats) -> Floats:
    """log P of right and wrong by the prior itself, (r,), under these chances, (s, r): the sums, (s,)."""
    now = np.clip(chances, 1e-9, 1.0 - 1e-9)
    right: Floats = np.log(now) @ prior
    np.negative(now, out=now)
    wrong: Floats = np.log1p(now, out=now) @ (1.0 - prior)
    return right + wrong


def _only(near: Nearest, kept: npt.NDArray[np.bool_]) -> Nearest:
    """These neighbours; the cosine of those that are not kept is -2."""
    return Nearest(near.rows, np.where(kept, near.cosines, np.float32(-2.0)))


def of_other_needs(near: Nearest, examples: Examples) -> Nearest:
    """The neighbours for which users called no passage helpful that they called helpful for the query
    itself, as if nobody had asked for the same; the cosine of the others is -2."""
    helpful = (examples.net > 0).astype(np.float64)
    there = (near.cosines > -2.0).astype(np.float64)
    shared = links(near, examples, examples, helpful, there)
    slots = shared.slot[helpful.ravel()[shared.to] > 0]
    other = np.ones(near.rows.size, dtype=np.bool_)
    other[slots] = False
    return _only(near, other.reshape(near.rows.shape))
