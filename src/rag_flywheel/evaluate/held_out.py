"""Scores parameters on held-out queries: by the likelihood of their votes, and the order of hits.

New and live parameters are scored alike, with a memory of the other queries alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from rag_flywheel.improve.examples import (
    Examples,
    Floats,
    Golden,
    Ints,
    kernel_weights,
    nearest,
    nearest_of,
)
from rag_flywheel.improve.likelihood import (
    log_likelihoods,
    neighbour_chances_of,
    of_any_answer,
    prior_under,
    with_support,
)
from rag_flywheel.improve.propagate import before_votes, support_of
from rag_flywheel.improve.threshold import thetas
from rag_flywheel.index.nearest import Nearest
from rag_flywheel.rank.parameters import Parameters

_NEAR, _RELATED = 0.999, 0.98  # quantiles of the cosines of random pairs of past queries
_BEST, _DEPTH = 8, 10


@dataclass(frozen=True)
class HeldOut:
    """The scores of parameters on m held-out queries.

    log_likelihood (m,): log P(votes); condensed (m,): nDCG of the judged hits alone, those called
    helpful being right, nan where they are all of one kind; best int64 (m, 8): the passages of the
    best hits, -1: none; judged (m,): the share of those hits that have votes.
    """

    log_likelihood: Floats
    condensed: Floats
    best: Ints
    judged: Floats


def neighbour_chances(others: Examples, parameters: Parameters) -> Floats:
    """The chances of their candidates that these queries propagate to others, (m, C)."""
    return neighbour_chances_of(others, before_votes(others, parameters), parameters)


def chances_of(
    test: Examples,
    others: Examples,
    parameters: Parameters,
    *,
    memory: Floats | None = None,
    near: Nearest | None = None,
) -> Floats:
    """The chance of every candidate of `test`, (m, C), from the prior and a memory of `others`.

    memory: `neighbour_chances` of the others, None: computed here; near: the nearest others of each
    query, of any tenant, None: searched here.
    """
    prior = prior_under(test, parameters)
    kernel = parameters.memory
    if not kernel.neighbours or not len(others) or not len(test):
        return prior
    apart = np.zeros(len(test), np.int64), np.ones(len(others), np.int64)
    near = nearest(test, others, *apart, near)
    memory = neighbour_chances(others, parameters) if memory is None else memory
    weights = kernel_weights(near, kernel)
    added, every = support_of(near, test, others, memory, weights, parameters)
    return with_support(prior, added, every, kernel.n0)


def judge_held_out(test: Examples, chances: Floats, parameters: Parameters) -> HeldOut:
    """Score the chances of the candidates of `test`, (m, C), by the votes on it under parameters."""
    order = _order(test, chances)
    net = np.take_along_axis(test.net, order, axis=1)
    best = np.take_along_axis(test.lineages, order[:, :_BEST], axis=1)
    shown = best >= 0
    n_judged = ((net[:, :_BEST] != 0) & shown).sum(axis=1)
    return HeldOut(
        log_likelihoods(test, chances, parameters) + of_any_answer(test, parameters.rates),
        _condensed(net),
        best,
        n_judged / np.maximum(shown.sum(axis=1), 1),
    )


def golden_ndcg(
    golden: Examples, answers: Sequence[Mapping[int, float]], chances: Floats
) -> Floats:
    """nDCG@10 of queries whose answers are known, (m,): {lineage: grade} of each, none of them empty.

    chances: of their candidates, (m, C).

    Gain is the grade, discount log2(rank + 1): Järvelin and Kekäläinen (TOIS 2002).
    """
    order = _order(golden, chances)[:, :_DEPTH]
    ranked = np.take_along_axis(golden.lineages, order, axis=1)
    discount = 1.0 / np.log2(np.arange(_DEPTH) + 2.0)
    found = np.zeros(len(golden))
    for i, known in enumerate(answers):
        gains = np.array([known.get(lineage, 0.0) for lineage in ranked[i].tolist()])
        best = np.array(sorted(known.values(), reverse=True)[:_DEPTH])
        found[i] = gains @ discount[: len(gains)] / (best @ discount[: len(best)])
    return found


def shared_hits(one: HeldOut, other: HeldOut) -> float:
    """The share of the best hits that both have; 1 when there are none."""
    same = (one.best[:, :, None] == other.best[:, None, :]) & (one.best[:, :, None] >= 0)
    shown = int((one.best >= 0).sum())
    return float(same.any(axis=2).sum()) / shown if shown else 1.0


def slices(
    test: Examples, others: Examples, near: Nearest | None = None
) -> dict[str, npt.NDArray[np.bool_]]:
    """The held-out queries near to another past query, related to one, and far from all, (m,) each.

    By the cosine to the nearest of `others`: at least the 99.9 % quantile of random pairs, from the
    98 % quantile, and below. near: as for `chances_of`.
    """
    if not len(test) or len(others) < 2:
        return {}
    related, very_near = thetas(others.vectors, (_RELATED, _NEAR))
    apart = np.zeros(len(test), np.int64), np.ones(len(others), np.int64)
    closest = nearest(test, others, *apart, near).cosines.max(axis=1)
    return {
        "near": closest >= very_near,
        "related": (closest >= related) & (closest < very_near),
        "far": closest < related,
    }


def _order(test: Examples, chances: Floats) -> Ints:
    """Columns of candidates from the best to the worst, (m, C)."""
    found: Ints = np.argsort(-np.where(test.present, chances, -1.0), axis=1, kind="stable")
    return found


def _condensed(net: Floats) -> Floats:
    """nDCG of judged hits in the order of the columns; those with net > 0 are right.

    Condensed lists: Sakai, Alternatives to Bpref (SIGIR 2007).
    """
    judged, right = net != 0, net > 0
    place = np.cumsum(judged, axis=1)
    worth = np.where(judged, 1.0 / np.log2(np.maximum(place, 1) + 1.0), 0.0)
    found = (worth * right).sum(axis=1)
    n_right = right.sum(axis=1)
    ideal = np.cumsum(1.0 / np.log2(np.arange(net.shape[1]) + 2.0))
    both = (n_right > 0) & (n_right < judged.sum(axis=1))
    scores: Floats = np.where(both, found / ideal[np.maximum(n_right, 1) - 1], np.nan)
    return scores


@dataclass(frozen=True)
class Judges:
    """The queries that judge, under one encoder: held-out ones by their votes, and golden ones.

    others: the past queries whose votes are evidence.
    """

    held_out: Examples
    golden: Golden
    others: Examples

    @cached_property
    def near(self) -> Nearest:
        """The others nearest to each held-out query."""
        return nearest_of(self.held_out, self.others)
