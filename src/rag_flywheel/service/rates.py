"""How many calls and votes a minute, in fixed windows that all processes and hosts of the service share."""

import hashlib
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rag_flywheel.errors import StorageError
from rag_flywheel.service.problems import Refused
from rag_flywheel.store.service.counts import Counts

log = logging.getLogger("rag_flywheel")
CALLS, VOTES = 12_000, 120
"""What a key may call, and a user vote, in a minute, unless the settings say otherwise."""
_WINDOW_S = 60


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
    """The limits of one service. None for a number: the default; 0: no limit.

    Where the counters fail, everything is allowed: a limit must not end the service.
    """

    def __init__(
        self, counts: Counts, calls_per_minute: int | None, votes_per_minute: int | None
    ) -> None:
        self._counts = counts
        self._calls, self._votes = calls_per_minute, votes_per_minute
        self._failing = False  # which is logged once

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
        """Close the counters."""
        self._counts.close()

    def _most(self, given: int | None, default: int, free: bool) -> int:
        return given if given is not None else 0 if free else default

    def _take(self, name: str, most: int, whose: str, n: int, what: str) -> Use:
        voice = hashlib.blake2b(whose.encode(errors="replace"), digest_size=16).hexdigest()
        used, ends_in_s = self._counted(f"{name} {voice}", n)
        use = Use(name, most, max(most - used, 0), ends_in_s)
        if used > most:
            message = (
                f"more than {most} {what} in a minute; wait {ends_in_s} s, or raise "
                f"{name}_per_minute in the settings of the service"
            )
            raise Refused(429, "TooMany", message, {"Retry-After": str(ends_in_s), **use.headers})
        return use

    def _counted(self, counter: str, n: int) -> tuple[int, int]:
        """(what a counter is after n more, in how many seconds its window ends)."""
        try:
            used, left_s = self._counts.add(counter, n, _WINDOW_S)
        except StorageError as error:
            if not self._failing:
                log.warning("the limits of calls and votes are not kept: %s", error)
            self._failing = True
            return 0, 1
        self._failing = False
        return used, max(math.ceil(left_s), 1)
