"""Large arrays that one look-up after the other writes a few numbers into, and leaves as they were."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt


class SpareArrays:
    """Arrays of n numbers, all -1 whenever nobody has them; thread-safe.

    There are as many as were in use at once. One whose user fails is not used again.
    """

    def __init__(self, n: int, dtype: npt.DTypeLike) -> None:
        self._n, self._dtype = n, np.dtype(dtype)
        self._spare: list[npt.NDArray[Any]] = []

    @contextmanager
    def borrowed(self) -> Iterator[npt.NDArray[Any]]:
        """An array for the block, which must set to -1 again what it changed."""
        try:
            array = self._spare.pop()  # in one step, as append below: no other thread gets it too
        except IndexError:
            array = np.full(self._n, -1, dtype=self._dtype)
        yield array
        self._spare.append(array)
