"""The terms under which a vote counts: how far its user is trusted, how many count in a day, and whose
are left out."""

from collections.abc import Sequence
from dataclasses import dataclass

from rag_flywheel.store import mutes, votes
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.passages import advance_clock

_DAY_S = 86_400.0


@dataclass(frozen=True)
class Terms:
    """trust: the factor that the application gives the user. votes_per_day, corrections_per_day: how many
    of one user, or of one session without a user, count within 24 hours; None: all."""

    trust: float = 1.0
    votes_per_day: int | None = None
    corrections_per_day: int | None = None

    def left(
        self, conn: Connection, user_id: str | None, rid: int, *, kind: str, at: float
    ) -> float:
        """How many more votes of this kind count, of whoever votes on retrieval row `rid`."""
        corrections = kind == "correction"
        most = self.corrections_per_day if corrections else self.votes_per_day
        if most is None:
            return float("inf")
        since = at - _DAY_S
        n = votes.count_of_voice(conn, user_id, rid, since=since, until=at, corrections=corrections)
        return float(max(most - n, 0))

    def left_of_users(
        self, conn: Connection, users: Sequence[str], *, at: float
    ) -> dict[str, float]:
        """How many more votes of each of these users count, found out for all of them together."""
        most = self.votes_per_day
        if most is None:
            return dict.fromkeys(users, float("inf"))
        cast = votes.count_of_users(conn, users, since=at - _DAY_S, until=at)
        return {user: float(max(most - cast[user], 0)) for user in users}

    def trust_of(
        self, conn: Connection, user_id: str | None, rid: int, *, kind: str, at: float
    ) -> float:
        """The trust in one more vote of this kind: none beyond what counts in a day."""
        return self.trust if self.left(conn, user_id, rid, kind=kind, at=at) > 0 else 0.0


NO_TERMS = Terms()


def set_muted(database: Database, users: Sequence[str], *, muted: bool) -> int:
    """Leave out all votes of these users, given as hashes, or hear them again, in one durable commit;
    returns how many this changes."""
    with database.transaction(durable=True) as conn:
        now = mutes.muted(conn)
        changed = [user for user in dict.fromkeys(users) if (user in now) != muted]
        if changed:
            first = advance_clock(conn, len(changed))
            mutes.append_mutes(conn, changed, muted=muted, first_seq=first)
    return len(changed)
