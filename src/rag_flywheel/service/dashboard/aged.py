"""What takes long to compute is computed aside, and shown with its age until it is there anew."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
FRESH_S = 5.0
"""So long a result is shown as it is."""
WAIT_S = 0.1
"""So long a page waits for its results before it says that they will come; an older one is shown at once."""
_WAIT_AFTER_CHANGE_S = 10.0
_SELDOM = 5.0  # times as long as its computation took is a result shown, at least
_MOST = 200  # results that are kept


@dataclass(frozen=True)
class Aged(Generic[T]):
    """A result, and how old it is in seconds. value: None: it is not there yet. waits: a newer one is
    being computed."""

    value: T | None
    age_s: float
    waits: bool


@dataclass
class _Entry:
    """at: when the computation of the value began, in seconds since 1970, None: there is no value; fresh_s:
    how long it is shown as it is. began: the same of the computation under way, `running`. error: what the
    last one raised, until somebody is told."""

    value: Any = None
    at: float | None = None
    fresh_s: float = 0.0
    began: float = 0.0
    running: "Future[None] | None" = None
    error: Exception | None = None


class AgedResults:
    """Results by key; the least recently used are dropped.

    Two threads compute them, so that what is quick passes by what is not. What takes long is computed
    seldom: a page that goes on asking keeps a thread busy for a fraction of the time.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(2, "rag-flywheel-dashboard")

    def get(
        self,
        key: Hashable,
        compute: Callable[[], T],
        *,
        since: float = 0.0,
        fresh_s: float = FRESH_S,
        until: float | None = None,
    ) -> Aged[T]:
        """The result of `compute`, or the last one while the next is being computed.

        since: a time since 1970: a result from before is waited for longer, since the visitor changed
            something then.
        fresh_s: so long a result is shown as it is; one that took long for longer.
        until: a time since 1970, when the page goes out with what is there; None: in WAIT_S.
        Raises what the last computation raised.
        """
        while True:
            now = time.time()
            with self._lock:
                entry = self._entry(key)
                if entry.error is not None:
                    error, entry.error = entry.error, None
                    raise error
                if entry.at is not None and entry.at >= since and now < entry.at + entry.fresh_s:
                    return Aged(entry.value, now - entry.at, False)
                if entry.running is None:
                    entry.began = now
                    entry.running = self._pool.submit(self._run, entry, compute, fresh_s)
                running = entry.running
            if now - since < _WAIT_AFTER_CHANGE_S:
                wait = _WAIT_AFTER_CHANGE_S
            elif entry.at is not None:
                wait = 0.0
            else:
                wait = WAIT_S if until is None else max(0.0, until - now)
            try:
                running.result(wait)
            except NotYet:
                age = 0.0 if entry.at is None else now - entry.at
                return Aged(entry.value, age, True)

    def _entry(self, key: Hashable) -> _Entry:
        entry = self._entries.setdefault(key, _Entry())
        self._entries.move_to_end(key)
        while len(self._entries) > _MOST:
            self._entries.popitem(last=False)
        return entry

    def _run(self, entry: _Entry, compute: Callable[[], Any], fresh_s: float) -> None:
        began = time.time()
        try:
            value = compute()
        except Exception as error:  # the next visitor is told
            with self._lock:
                entry.error, entry.running = error, None
            return
        took = time.time() - began
        with self._lock:
            entry.value, entry.at, entry.running = value, began, None
            entry.fresh_s = took + max(fresh_s, _SELDOM * took)
