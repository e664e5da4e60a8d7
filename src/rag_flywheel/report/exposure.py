"""Computes how evenly passages are shown (exposure) from counts; it must not know what showed them."""

import numpy as np
import numpy.typing as npt


def gini(counts: npt.ArrayLike) -> float:
    """Gini index of how often each passage was shown: 0 all alike, (n − 1)/n all on one; 0.0 for no views.

    Σ_i (2 i − n − 1) c_i / (n Σ c), counts c sorted from the least, i from 1: half the mean absolute
    difference of all pairs over the mean. Gini (1912); in this form Dixon, Weiner, Mitchell-Olds and
    Woodley (Ecology 68, 1987); for exposure in ranking as in Do and Usunier (SIGIR 2022).
    counts: (n_passages,), passages never shown included as 0. Raises ValueError when empty or negative.
    """
    sorted_counts = np.sort(np.asarray(counts, dtype=np.float64))
    n = len(sorted_counts)
    if not n or sorted_counts[0] < 0:
        raise ValueError("counts are empty or negative; expected one count >= 0 for each passage")
    total = float(sorted_counts.sum())
    if total == 0.0:
        return 0.0
    positions = 2.0 * np.arange(1, n + 1) - n - 1
    return float(positions @ sorted_counts) / (n * total)
