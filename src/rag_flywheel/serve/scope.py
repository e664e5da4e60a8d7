"""Which texts may come up for a query: those that stand and pass its filter.

It must not know where a filter comes from.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag_flywheel.records import Pids
from rag_flywheel.serve.state import State


@dataclass(frozen=True)
class Scope:
    """A mask over the version's positions and one over the fresh texts.

    searchable: the version's pids that may come up, None when all may.
    """

    indexed: npt.NDArray[np.bool_]
    fresh: npt.NDArray[np.bool_]
    searchable: Pids | None


def scope(state: State, allowed: Pids | None) -> Scope:
    """The texts that stand and pass a filter. allowed: pids that pass it; None: no filter."""
    indexed, fresh = state.alive, np.ones(len(state.fresh.pids), dtype=bool)
    if allowed is not None:
        indexed = indexed & np.isin(state.version.pids, allowed, assume_unique=True)
        fresh = np.isin(state.fresh.pids, allowed, assume_unique=True)
    everything = bool(indexed.all())
    return Scope(indexed, fresh, None if everything else state.version.pids[indexed])
