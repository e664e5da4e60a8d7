"""What past queries say of passages: chances before the votes on each query, and after them.

It must not know how parameters are chosen, nor where examples come from.
"""

import numpy as np

from rag_flywheel.improve.examples import Examples, Floats, links, nearest, support
from rag_flywheel.improve.likelihood import after_votes, prior_chances, with_support
from rag_flywheel.rank.memory import Memory
from rag_flywheel.rank.parameters import Parameters

_PASSES = 3  # of passing answers on between past queries
_LEAST_CHANCE = 0.01
_LEAST_KEPT = 0.002


def remember(examples: Examples, parameters: Parameters) -> Memory:
    """The memory of a version: the chance of every candidate before the votes on its query."""
    before = before_votes(examples, parameters)
    kept = examples.present & ((before >= _LEAST_KEPT) | (examples.net != 0))
    counts = kept.sum(axis=1)
    return Memory(
        tuple(examples.keys),
        np.append(0, np.cumsum(counts)).astype(np.int64),
        examples.lineages[kept],
        before[kept].astype(np.float32),
    )


def before_votes(examples: Examples, parameters: Parameters) -> Floats:
    """The chance of every candidate before the votes on its query, as others' votes say, (n, C).

    Answers are passed on between similar past queries a few times, so that a query with few votes
    of its own learns from its neighbours what to make of them.
    """
    prior = prior_chances(examples, parameters.vector)
    before = prior
    kernel = parameters.memory
    if kernel.neighbours and len(examples) > 1:
        each = np.arange(len(examples))
        near = nearest(examples, examples, each, each)
        for _ in range(_PASSES):
            said = said_of(examples, before, parameters.noise)
            heard = links(near, examples, examples, said)
            added = support(heard, near, said, kernel, len(examples))
            before = with_support(prior, added, kernel.n0)
    return before


def said_of(examples: Examples, before: Floats, noise: float) -> Floats:
    """Chances after the votes as neighbours hear them, (n, C), from those before: small ones say
    nothing, unless votes call them helpful."""
    chances = after_votes(examples, before, noise)
    return np.where((chances >= _LEAST_CHANCE) | (examples.net > 0), chances, 0.0)
