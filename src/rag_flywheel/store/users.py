"""Stores the key that user ids are hashed under, and the users who opted out of being recorded.

Users are hashes here; this module must not know how they are computed.
"""

import re
import secrets
from collections.abc import Collection

from rag_flywheel.store import column_checks, wall_clock
from rag_flywheel.store.connection import Connection, in_chunks, scalar
from rag_flywheel.store.event_types import ONE_TIME

USER_KEY = "user_key"
_KEY_BYTES = 32


def new_user_key() -> str:
    """A random key, as hex, for the table `meta`."""
    return secrets.token_hex(_KEY_BYTES)


def user_key(conn: Connection) -> bytes:
    """The key of this index, 32 bytes, which a migration stored once for all processes.

    Raises CorruptFileError when there is none: another key would hash no user as before.
    """
    text = scalar(conn, "SELECT value FROM meta WHERE key = ?", (USER_KEY,))
    if type(text) is not str or not re.fullmatch(f"[0-9a-f]{{{2 * _KEY_BYTES}}}", text):
        shown = None if text is None else "(not shown)"  # most of it may still be the secret
        column_checks.refuse(f"meta {USER_KEY!r}", shown, f"{2 * _KEY_BYTES} hexadecimal digits")
    return bytes.fromhex(text)


def one_time_user() -> str:
    """SQL: a new random user id for each row, so that events of different users stay distinct."""
    return f"'{ONE_TIME}' || lower(hex(randomblob(16)))"


def set_opted_out(conn: Connection, user: str, out: bool) -> None:
    """Store that a user is not to be recorded, or may be again."""
    if out:
        conn.execute(
            "INSERT INTO opted_out (user_id, at) VALUES (?, ?) ON CONFLICT DO NOTHING",
            (user, wall_clock.now()),
        )
    else:
        conn.execute("DELETE FROM opted_out WHERE user_id = ?", (user,))


def has_opted_out(conn: Connection, user_id: str | None) -> bool:
    """Whether this user is not to be recorded; never without an id."""
    return user_id is not None and bool(opted_out(conn, {user_id}))


def opted_out(conn: Connection, users: Collection[str]) -> set[str]:
    """Those of these users that are not to be recorded."""
    rows = in_chunks(conn, "SELECT user_id FROM opted_out WHERE user_id IN (%s)", list(users))
    return {str(row[0]) for row in rows}


def not_opted_out(user: str) -> str:
    """SQL: whether a user, a column, has not opted out; nobody known has not."""
    return f"NOT EXISTS (SELECT 1 FROM opted_out o WHERE o.user_id = {user})"


def every_opted_out(conn: Connection) -> set[str]:
    """All users that are not to be recorded."""
    return {str(row[0]) for row in conn.execute("SELECT user_id FROM opted_out")}


def retrievals_of_opted_out(conn: Connection) -> set[int]:
    """The rows of the retrievals that users asked for who have opted out since."""
    rows = conn.execute(
        "SELECT rid FROM retrievals WHERE user_id IN (SELECT user_id FROM opted_out)"
    )
    return {column_checks.whole("retrievals.rid", row[0]) for row in rows}
