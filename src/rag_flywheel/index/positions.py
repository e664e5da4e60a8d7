"""Where numbers are among ascending ones."""

import numpy as np
import numpy.typing as npt

from rag_flywheel.records import Pids


def find_pids(wanted: Pids, pids: Pids) -> tuple[Pids, npt.NDArray[np.bool_]]:
    """Where wanted pids are among ascending `pids`, and which of them are there at all."""
    at = np.searchsorted(pids, wanted)
    if not len(pids):
        return at, np.zeros(len(wanted), dtype=bool)
    there: npt.NDArray[np.bool_] = pids[np.minimum(at, len(pids) - 1)] == wanted
    return at, there
