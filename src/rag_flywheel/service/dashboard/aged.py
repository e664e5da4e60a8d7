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
    value: Any = None
    at: float | None = None  # since 1970, when its computation began
    began: float = 0.0
    future: "Future[Any] | None" = None


class AgedResults:
    """Results by key; the least recently used are dropped.

    Two threads compute them, so that what is quick passes by what is not.
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

        until: a time since 1970, when the page goes out with what is there; None: in WAIT_S.
        since: a time since 1970: a result from before is waited for longer, since the visitor changed
            something then. Raises what `compute` raised.
        """
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            while len(self._entries) > _MOST:
                self._entries.popitem(last=False)
            now = time.time()
            if entry.at is not None and now - entry.at < fresh_s and entry.at >= since:
                return Aged(entry.value, now - entry.at, False)
            if entry.future is None:
                entry.future, entry.began = self._pool.submit(self._run, entry, compute), now
            future, began = entry.future, entry.began
        if now - since < _WAIT_AFTER_CHANGE_S:
            wait = _WAIT_AFTER_CHANGE_S
        elif entry.at is not None:
            wait = 0.0
        else:
            wait = WAIT_S if until is None else max(0.0, until - now)
        try:
            future.result(wait)
        except NotYet:
            age = 0.0 if entry.at is None else time.time() - entry.at
            return Aged(entry.value, age, True)
        if began < since:
            return self.get(key, compute, since=since, fresh_s=fresh_s, until=until)
        return Aged(entry.value, 0.0, False)

    def _run(self, entry: _Entry, compute: Callable[[], Any]) -> None:
        began = time.time()
        try:
            value = compute()
            with self._lock:
                entry.value, entry.at = value, began
        finally:
            with self._lock:
                entry.future = None
