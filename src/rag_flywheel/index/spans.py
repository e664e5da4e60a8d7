"""Lists the places in spans of an array, one span after the other."""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def places_of(starts: npt.ArrayLike, lengths: npt.ArrayLike) -> Ints:
    """int64: start, start + 1, ... for as many as its length says, of each span in turn."""
    begin, many = np.asarray(starts, dtype=np.int64), np.asarray(lengths, dtype=np.int64)
    places: Ints = np.arange(many.sum()) + np.repeat(begin - np.cumsum(many) + many, many)
    return places
