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
WAIT_S = 0.15
"""So long a page waits for a result before it shows the last one, or says that it will come."""
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
    """Results by key, computed by one thread at a time; the least recently used are dropped."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, "rag-flywheel-dashboard")

    def get(
        self,
        key: Hashable,
        compute: Callable[[], T],
        *,
        since: float = 0.0,
        fresh_s: float = FRESH_S,
    ) -> Aged[T]:
        """The result of `compute`, or the last one while the next is being computed.

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
        has_just_changed = now - since < _WAIT_AFTER_CHANGE_S
        try:
            future.result(_WAIT_AFTER_CHANGE_S if has_just_changed else WAIT_S)
        except NotYet:
            age = 0.0 if entry.at is None else time.time() - entry.at
            return Aged(entry.value, age, True)
        if began < since:
            return self.get(key, compute, since=since, fresh_s=fresh_s)
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

    def close(self) -> None:
        """Start nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
