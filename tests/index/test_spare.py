"""Arrays that look-ups borrow: each has its own, and gets it as the one before left it."""

from threading import Barrier, Thread

import numpy as np
import pytest

from rag_flywheel.index.spare import SpareArrays


def test_an_array_is_used_again_and_two_at_once_are_two() -> None:
    arrays = SpareArrays(5, np.int16)
    with arrays.borrowed() as first:
        assert (first.dtype, first.tolist()) == (np.dtype(np.int16), [-1] * 5)
        with arrays.borrowed() as second:
            assert second is not first
    with arrays.borrowed() as again:
        assert again is first


def test_an_array_whose_user_failed_is_not_used_again() -> None:
    arrays = SpareArrays(3, np.int8)

    def fail() -> None:
        with arrays.borrowed() as spoilt:
            spoilt[1] = 7
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    with arrays.borrowed() as fresh:
        assert fresh.tolist() == [-1, -1, -1]


def test_threads_share_none() -> None:
    arrays, both = SpareArrays(4, np.int8), Barrier(2)
    seen: list[int] = []

    def use() -> None:
        with arrays.borrowed() as own:
            both.wait(timeout=10)
            seen.append(id(own))
            both.wait(timeout=10)

    threads = [Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 2
