"""Propagates evidence between similar past queries: three rounds of belief propagation.

The message of a query to a neighbour is the chances after its votes, without the neighbour's own
message to it: else the neighbour's votes would come back and count twice (Pearl, Probabilistic
Reasoning in Intelligent Systems, 1988). Around a circle of three they still can, weakened three times
by K. With one answer the chances of a query's passages are propagated together, since they compete;
with several each passage's on its own.
"""

from dataclasses import dataclass

import numpy as np

from rag_flywheel.improve.examples import (
    Examples,
    Floats,
    Ints,
    Links,
    all_support,
    kernel_weights,
    links,
    nearest,
    support,
)
from rag_flywheel.improve.likelihood import (
    evidence_odds,
    neighbour_chances_of,
    prior_under,
    with_support,
)
from rag_flywheel.index.nearest import Nearest
from rag_flywheel.rank.memory import Memory
from rag_flywheel.rank.parameters import Parameters

_ROUNDS = 3
_LEAST_STORED = 0.002


@dataclass(frozen=True)
class _Messages:
    """The messages to every query from each of its k neighbours: the chances of the passages that are
    candidates of both, one for each link, and the sum over all passages, (n, k)."""

    links: Links
    chances: Floats
    every: Floats

    def support(self, weights: Floats, width: int) -> tuple[Floats, Floats]:
        """S of every candidate, (n, width), and its sum over all passages, (n,)."""
        own = support(self.links, self.chances, weights, width)
        return own, (weights * self.every).sum(axis=1)


def before_votes(examples: Examples, parameters: Parameters) -> Floats:
    """The chance of every candidate before the votes on its query, by the votes of others, (n, C).

    With one answer the remainder of a query's chances to 1 is that of passages which are evidence of
    its neighbours but no candidates of it.
    """
    prior = prior_under(examples, parameters)
    kernel = parameters.memory
    if not kernel.neighbours or len(examples) < 2:
        return prior
    each = np.arange(len(examples))
    near = nearest(examples, examples, each, each)
    weights = kernel_weights(near, kernel)
    if parameters.answers is not None:
        return _of_each_passage(examples, prior, near, weights, parameters)
    chances = neighbour_chances_of(examples, prior, parameters)
    at = links(near, examples, examples, chances, weights)
    messages = _Messages(at, chances.ravel()[at.of], chances.sum(axis=1)[near.rows])
    back = _back(near)
    for _ in range(_ROUNDS - 1):
        messages = _next_messages(examples, prior, (near, back), messages, weights, parameters)
    return with_support(prior, *messages.support(weights, prior.shape[1]), kernel.n0)


def support_of(
    near: Nearest,
    targets: Examples,
    sources: Examples,
    chances: Floats,
    weights: Floats,
    parameters: Parameters,
) -> tuple[Floats, Floats]:
    """S of every target's candidate, (n, C), and E, as `with_support` takes it.

    chances: what the sources propagate, (m, C); weights: K of each neighbour, (n, k).
    """
    width = targets.lineages.shape[1]
    found = links(near, targets, sources, chances, weights)
    added = support(found, chances.ravel()[found.of], weights, width)
    if parameters.answers is None:
        return added, all_support(near, chances, weights)
    return added, support(found, np.ones(len(found.of)), weights, width)


def _of_each_passage(
    examples: Examples, prior: Floats, near: Nearest, weights: Floats, parameters: Parameters
) -> Floats:
    """`before_votes` with several answers, where passages do not compete.

    A message is the chance of one passage after the votes of the query, without the neighbour's own
    message on it.
    """
    n0, width = parameters.kernel.n0, prior.shape[1]
    odds, by_slot = evidence_odds(examples, parameters), weights.ravel()
    back = _back(near)
    at, messages = Links.none(), np.empty(0)
    added, total, before = np.zeros(prior.shape), np.zeros(prior.shape), prior
    for _ in range(_ROUNDS):
        propagated = neighbour_chances_of(examples, before, parameters)
        found = links(near, examples, examples, propagated, weights)
        echo, given = _reverse(found, at, back, width), by_slot[at.slot]
        own = (n0 * prior + added).ravel()[found.of] - _at(given * messages, echo)
        every = n0 + total.ravel()[found.of] - _at(given, echo)
        chance = np.clip(own / np.maximum(every, n0), 0.0, 1.0)
        likely = chance * odds.ravel()[found.of]
        at, messages = found, likely / (likely + 1.0 - chance)
        added = support(at, messages, weights, width)
        total = support(at, np.ones(len(messages)), weights, width)
        before = with_support(prior, added, total, n0)
    return before


def _next_messages(
    examples: Examples,
    prior: Floats,
    between: tuple[Nearest, Ints],
    messages: _Messages,
    weights: Floats,
    parameters: Parameters,
) -> _Messages:
    """The messages after these: each to a neighbour without that neighbour's own message.

    between: the neighbours, and the slots of the queries among theirs, see `_back`. All chances here
    are scaled by (n0 + sum of S).
    """
    n0, (near, back) = parameters.kernel.n0, between
    added, every = messages.support(weights, prior.shape[1])
    before = with_support(prior, added, every, n0)
    propagated = neighbour_chances_of(examples, before, parameters)
    loud, odds = propagated > 0, evidence_odds(examples, parameters)
    before = n0 * prior + added
    after = before * odds
    total = after.sum(axis=1) + np.maximum(n0 + every - before.sum(axis=1), 0.0)

    at = messages.links
    given = weights.ravel()[at.slot] * messages.chances
    in_after = given * odds.ravel()[at.to]
    of_all, of_after, of_loud = (
        np.bincount(at.slot, part, minlength=weights.size).astype(np.float64)
        for part in (given, in_after, in_after * loud.ravel()[at.to])
    )
    to_others = np.maximum((weights * messages.every).ravel() - of_all, 0.0)

    source = near.rows.ravel()
    least = n0 * (prior * odds).sum(axis=1)  # of `total`, without any message
    left = np.maximum(total[source] - _at(of_after + to_others, back), least[source])
    loud_left = np.where(loud, after, 0.0).sum(axis=1)[source] - _at(of_loud, back)

    links_of = links(near, examples, examples, propagated, weights)
    echo = _at(in_after, _reverse(links_of, at, back, prior.shape[1]))
    chances = np.maximum(after.ravel()[links_of.of] - echo, 0.0) / left[links_of.slot]
    return _Messages(
        links_of,
        np.minimum(chances, 1.0),
        np.clip(loud_left / left, 0.0, 1.0).reshape(near.rows.shape),
    )


def _back(near: Nearest) -> Ints:
    """For each slot, flat in (n, k), the slot of that query among its neighbour's, -1: in none."""
    n, k = near.rows.shape
    query, neighbour = np.repeat(np.arange(n), k), near.rows.ravel()
    names, wanted = query * n + neighbour, neighbour * n + query
    order, by_wanted = np.argsort(names), np.argsort(wanted)  # sorted ones are found much sooner
    names, wanted = names[order], wanted[by_wanted]
    place = np.minimum(np.searchsorted(names, wanted), len(names) - 1)
    found = np.empty(len(wanted), dtype=np.int64)
    found[by_wanted] = np.where(names[place] == wanted, order[place], -1)
    return found


def _reverse(links: Links, others: Links, back: Ints, width: int) -> Ints:
    """For each of the links the one of the others between the same two candidates, -1: there is none.

    back: of the slots of both, see `_back`; width: how many candidates a query has. A link is named by
    its slot and by the source's candidate, and in the order of these names links come.
    """
    if not len(others.slot):
        return np.full(len(links.slot), -1, dtype=np.int64)
    table = np.full((len(back) + 1) * width, -1, dtype=np.int32)  # the last slot is in none
    table[others.slot * width + others.of % width] = np.arange(len(others.slot))
    found = table[back[links.slot] * width + links.to % width].astype(np.int64)
    return np.where(others.to[found] == links.of, found, -1)


def _at(values: Floats, places: Ints) -> Floats:
    """The values at these places, 0 where the place is -1."""
    if not len(values):
        return np.zeros(len(places))
    found: Floats = np.where(places >= 0, values[np.maximum(places, 0)], 0.0)
    return found


def build_memory(examples: Examples, parameters: Parameters) -> Memory:
    """The memory of a version: the chance of every candidate before the votes on its query."""
    before = before_votes(examples, parameters)
    kept = examples.present & ((before >= _LEAST_STORED) | examples.voted)
    counts = kept.sum(axis=1)
    return Memory(
        tuple(examples.keys),
        np.append(0, np.cumsum(counts)).astype(np.int64),
        examples.lineages[kept],
        before[kept].astype(np.float32),
    )
