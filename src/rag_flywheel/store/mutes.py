"""Stores which users are not heard, as events of which the last on a user holds.

Users are hashes here.
"""

from collections.abc import Sequence

from rag_flywheel.store import column_checks, wall_clock
from rag_flywheel.store.connection import Connection, append_rows


def not_muted(user: str) -> str:
    """SQL: whether a user, a column, is heard; events without a user are."""
    return (
        f"NOT EXISTS (SELECT 1 FROM mutes m WHERE m.user_id = {user} AND m.muted = 1 AND NOT EXISTS "
        "(SELECT 1 FROM mutes l WHERE l.user_id = m.user_id AND l.seq > m.seq))"
    )


def append_mutes(conn: Connection, users: Sequence[str], *, muted: bool, first_seq: int) -> None:
    """Append an event for each of these users, under consecutive event numbers from `first_seq`."""
    at = wall_clock.now()
    rows = (
        {"seq": seq, "user_id": user, "muted": int(muted), "at": at}
        for seq, user in enumerate(users, first_seq)
    )
    append_rows(conn, "mutes", *rows)


def muted(conn: Connection) -> set[str]:
    """The users who are not heard."""
    rows = conn.execute(
        "SELECT user_id FROM mutes m WHERE muted = 1 AND NOT EXISTS "
        "(SELECT 1 FROM mutes l WHERE l.user_id = m.user_id AND l.seq > m.seq)"
    )
    return {column_checks.text("mutes.user_id", row[0]) for row in rows}


def last_change(conn: Connection) -> int:
    """The number of the last event on any user; 0 without one."""
    found = conn.execute("SELECT coalesce(max(seq), 0) FROM mutes").fetchone()[0]
    return column_checks.whole("mutes.seq", found)


def changed_since(conn: Connection, after: int) -> list[str]:
    """The users who were muted, or heard again, after an event number."""
    rows = conn.execute("SELECT DISTINCT user_id FROM mutes WHERE seq > ?", (after,))
    return sorted(column_checks.text("mutes.user_id", row[0]) for row in rows)
