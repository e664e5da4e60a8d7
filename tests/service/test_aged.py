"""Results that are computed aside: shown when they are there, with their age, and not computed too often."""

import threading
import time
from collections.abc import Callable

import pytest

from rag_flywheel.errors import EncoderError
from rag_flywheel.service.dashboard.aged import AgedResults


def until(test: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not test():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_is_quick_is_there_at_once_and_computed_once() -> None:
    results, calls = AgedResults(), []
    for _ in range(5):
        found = results.get("key", lambda: calls.append(1) or len(calls))  # type: ignore[func-returns-value]
        assert (found.value, found.waits) == (1, False)
    assert results.get("other", lambda: 7).value == 7


def test_a_slow_result_is_promised_and_the_last_one_shown_meanwhile() -> None:
    results, go = AgedResults(), threading.Event()
    first = results.get("key", lambda: go.wait(20), fresh_s=0.0)
    assert (first.value, first.waits) == (None, True)
    go.set()
    until(lambda: results.get("key", lambda: True, fresh_s=0.0).value is True)
    again = threading.Event()
    until(lambda: results.get("key", lambda: again.wait(20), fresh_s=0.0).waits)
    began = time.monotonic()
    shown = results.get("key", lambda: again.wait(20), fresh_s=0.0)
    assert time.monotonic() - began < 0.09
    assert (shown.value, shown.waits) == (True, True)
    assert shown.age_s > 0.0
    again.set()


def test_what_took_long_is_shown_for_longer() -> None:
    """Or it would be too old as soon as it is there, and be computed without end."""
    results, n = AgedResults(), []

    def slow() -> int:
        n.append(1)
        time.sleep(0.3)
        return len(n)

    until(lambda: results.get("key", slow, fresh_s=0.1).value is not None)
    time.sleep(0.3)  # longer than fresh_s
    found = results.get("key", slow, fresh_s=0.1)
    assert (found.value, found.waits) == (1, False)


def test_a_result_from_before_a_change_is_not_shown_after_it() -> None:
    results, n = AgedResults(), [1]
    assert results.get("key", lambda: n[0]).value == 1
    n[0] = 2
    assert results.get("key", lambda: n[0]).value == 1
    assert results.get("key", lambda: n[0], since=time.time()).value == 2
    begun = threading.Event()

    def old() -> int:
        value = n[0]
        begun.set()
        time.sleep(0.4)
        return value

    results.get("slow", old)
    assert begun.wait(10)
    n[0] = 3  # while the old value is being computed
    assert results.get("slow", old, since=time.time()).value == 3


def test_an_error_is_told_once_however_late_it_comes() -> None:
    results = AgedResults()

    def fail() -> int:
        time.sleep(0.3)
        raise EncoderError("the model is not there")

    assert results.get("key", fail).waits
    time.sleep(0.6)
    with pytest.raises(EncoderError, match="the model is not there"):
        results.get("key", fail)
    assert results.get("key", lambda: 5).value == 5


def test_the_least_recently_used_are_dropped() -> None:
    results, n = AgedResults(), []
    for key in (*range(250), 249, 0):
        results.get(key, lambda: n.append(1))
    assert len(n) == 251
