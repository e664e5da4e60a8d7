"""How many calls and votes a minute: counted by the library `limits`, for all processes of the service."""

import hashlib
import logging
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limits import RateLimitItemPerMinute
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from rag_flywheel.errors import StorageError
from rag_flywheel.service.problems import Refused
from rag_flywheel.store.service.counts import Counts

log = logging.getLogger("rag_flywheel")
CALLS, VOTES = 12_000, 120
"""What a key may call, and a user vote, in a minute, unless the settings say otherwise."""
_WINDOW_S = 60


class SharedStorage(Storage):  # type: ignore[misc]  # checked without the library
    """A storage of `limits` on counters that processes share.

    Where the file of the counters fails, everything is allowed: a limit must not end the service.
    """

    STORAGE_SCHEME = None

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._counts = Counts(path)

    @property
    def base_exceptions(self) -> type[Exception]:
        """What the counters raise."""
        return StorageError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count; returns the sum within the present window."""
        try:
            return self._counts.add(key, amount, expiry)
        except StorageError as error:
            log.warning("the limits of calls and votes are not kept: %s", error)
            return 0

    def get(self, key: str) -> int:
        """The sum within the present window."""
        return self._found(key)[0]

    def get_expiry(self, key: str) -> float:
        """When the present window ends, in seconds since 1970."""
        return self._found(key)[1]

    def _found(self, key: str) -> tuple[int, float]:
        try:
            return self._counts.find(key)
        except StorageError:
            return 0, time.time()

    def check(self) -> bool:
        """Whether the counters can be read."""
        try:
            self._counts.find("")
        except StorageError:
            return False
        return True

    def reset(self) -> int:
        """Forget all counters."""
        return self._counts.drop()

    def clear(self, key: str) -> None:
        """Forget one counter."""
        self._counts.drop(key)

    def close(self) -> None:
        """Close the file of the counters."""
        self._counts.close()


@dataclass(frozen=True)
class Use:
    """How much of a limit is used, as the draft of the RateLimit headers says it.

    name: of the limit; most: in a window; left: of them; ends_in_s: when the window ends.
    """

    name: str
    most: int
    left: int
    ends_in_s: int

    @property
    def headers(self) -> dict[str, str]:
        """draft-ietf-httpapi-ratelimit-headers."""
        return {
            "RateLimit-Policy": f'"{self.name}";q={self.most};w={_WINDOW_S}',
            "RateLimit": f'"{self.name}";r={self.left};t={self.ends_in_s}',
        }


class Rates:
    """The limits of one service. None for a number: the default; 0: no limit."""

    def __init__(
        self, path: Path, calls_per_minute: int | None, votes_per_minute: int | None
    ) -> None:
        self._storage = SharedStorage(path)
        self._limiter = FixedWindowRateLimiter(self._storage)
        self._calls, self._votes = calls_per_minute, votes_per_minute

    def call(self, caller: str, *, free: bool) -> Use | None:
        """Count a call; None: there is no limit. free: there is none by default.

        Raises Refused with 429 beyond it.
        """
        most = self._most(self._calls, CALLS, free)
        if not most:
            return None
        return self._take("calls", most, caller, 1, "calls by this key")

    def votes(self, votes: Iterable[tuple[str | None, str]], index: str, *, free: bool) -> None:
        """Count votes, given as (the hash of the user, the retrieval), by user and by retrieval.

        The votes on one retrieval are limited as those of one user are, whoever casts them: so a
        caller gains nothing from making up users. Raises Refused with 429.
        """
        most = self._most(self._votes, VOTES, free)
        if not most:
            return
        voices: Mapping[str, int] = Counter(
            voice
            for user, retrieval in votes
            for voice in (f"r {retrieval}", *((f"u {user}",) if user is not None else ()))
        )
        for voice, n in voices.items():
            whose = "of this user" if voice.startswith("u") else "on this retrieval"
            self._take("votes", most, f"{index} {voice}", n, f"votes {whose}")

    def close(self) -> None:
        """Close the file of the counters."""
        self._storage.close()

    def _most(self, given: int | None, default: int, free: bool) -> int:
        return given if given is not None else 0 if free else default

    def _take(self, name: str, most: int, whose: str, n: int, what: str) -> Use:
        item = RateLimitItemPerMinute(most)
        voice = hashlib.blake2b(whose.encode(errors="replace"), digest_size=16).hexdigest()
        allowed = self._limiter.hit(item, name, voice, cost=n)
        found: Any = self._limiter.get_window_stats(item, name, voice)
        ends_in_s = max(math.ceil(found.reset_time - time.time()), 1)
        use = Use(name, most, max(int(found.remaining), 0), ends_in_s)
        if not allowed:
            message = (
                f"more than {most} {what} in a minute; wait {ends_in_s} s, or raise "
                f"{name}_per_minute in the settings of the service"
            )
            raise Refused(429, "TooMany", message, {"Retry-After": str(ends_in_s), **use.headers})
        return use
