"""Compares our scores with those of bm25s: to the bit, as far as numpy lets it."""

import numpy as np
import numpy.typing as npt

# numpy 1 computes those of bm25s in float32, where numpy 2 uses float64; ours are the same with both
MOST_ULPS = 0 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 4


def assert_like_bm25s(ours: npt.NDArray[np.generic], theirs: npt.NDArray[np.generic]) -> None:
    """Raises AssertionError unless the arrays are the same in type, shape and every bit."""
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    if MOST_ULPS and ours.dtype == np.float32:
        np.testing.assert_array_max_ulp(ours, theirs, MOST_ULPS)
    else:
        assert ours.tobytes() == theirs.tobytes()
