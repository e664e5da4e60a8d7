"""The memory of a version: what past queries say of passages before the votes on each.

It must not know how parameters are chosen, nor where examples come from.
"""

import numpy as np

from rag_flywheel.improve.examples import Examples
from rag_flywheel.improve.passing import before_votes
from rag_flywheel.rank.memory import Memory
from rag_flywheel.rank.parameters import Parameters

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
