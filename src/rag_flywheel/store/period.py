"""A span of time, for events that are read by when they were."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import TypeAlias

from rag_flywheel.errors import InputError, quoted

Moment: TypeAlias = str | date
"""A day or a time: as ISO 8601 text, such as "2026-11-30" or "2026-11-30T08:00Z", or as an object of
`datetime`. A day is its first moment, and a time without a zone is UTC."""


@dataclass(frozen=True)
class Period:
    """From `since` on, up to but without `until`; both in seconds since 1970."""

    since: float = -math.inf
    until: float = math.inf

    @classmethod
    def of(cls, since: Moment | None, until: Moment | None) -> "Period":
        """The period between two moments; None: without an end. Raises InputError."""
        period = cls(
            -math.inf if since is None else _seconds("since", since),
            math.inf if until is None else _seconds("until", until),
        )
        if period.since >= period.until:
            raise InputError(
                f"since is {quoted(since)}, which is not before until, {quoted(until)}; expected a "
                "time before it"
            )
        return period

    def holds(self, at: float) -> bool:
        """Whether a time in seconds since 1970 is in the period."""
        return self.since <= at < self.until

    @staticmethod
    def sql(column: str) -> str:
        """SQL to append to a condition: that a column of times is in the period, by its `values`."""
        return f" AND {column} >= :since AND {column} < :until"

    @property
    def values(self) -> Mapping[str, float]:
        """The values of `sql`."""
        return {"since": self.since, "until": self.until}


ALWAYS = Period()


def _seconds(name: str, moment: object) -> float:
    if isinstance(moment, str):
        try:
            found = datetime.fromisoformat(moment.strip())
        except ValueError:
            found = None
    elif isinstance(moment, datetime):
        found = moment
    else:
        found = datetime.combine(moment, time()) if isinstance(moment, date) else None
    if found is None:
        raise InputError(
            f"{name} is {quoted(moment)}; expected a day or time such as 2026-11-30 or "
            "2026-11-30T08:00Z"
        )
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
