"""Which votes an export may rest on: none of people who opted out, and none on their questions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rag_flywheel.records import TenantScope
from rag_flywheel.store import passages, users, votes
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.event_types import VoteEvent
from rag_flywheel.store.period import Period

AsText = Callable[[str], str]


@dataclass(frozen=True)
class Asked:
    """What an export was asked for.

    root: the index folder, in which nothing is written. last: the number of the last event that counts,
    None: all do. masked: a text that people wrote as it may be passed on.
    """

    root: Path
    scope: TenantScope
    period: Period
    last: int | None
    masked: AsText

    def until(self, conn: Connection) -> int:
        """The number of the last event that counts, of those that this connection sees."""
        now = passages.read_clock(conn)
        return now if self.last is None else min(self.last, now)


class Allowed:
    """Tells events that may be exported from those of people who opted out, and on their questions."""

    def __init__(self, conn: Connection, asked: Asked) -> None:
        self._asked = asked
        self._out = users.every_opted_out(conn)
        self._theirs = users.retrievals_of_opted_out(conn) if self._out else set()

    def holds(self, event: VoteEvent) -> bool:
        """Whether an event may be exported, and was asked for."""
        return (
            event.user_id not in self._out
            and event.retrieval not in self._theirs
            and self._asked.scope.holds(event.tenant)
            and self._asked.period.holds(event.at)
        )

    def user(self, user_id: str | None) -> bool:
        """Whether what a user wrote may be exported."""
        return user_id not in self._out


def allowed_votes(conn: Connection, asked: Asked) -> Iterator[VoteEvent]:
    """The votes that may be exported, and were asked for, in order."""
    return filter(Allowed(conn, asked).holds, votes.votes_until(conn, asked.until(conn)))
