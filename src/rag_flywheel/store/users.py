"""The key that user ids are hashed under, and who does not want to be recorded.

Users are hashes here; this module must not know how they are made.
"""

import re
import secrets
import sqlite3
import time
from collections.abc import Collection

from rag_flywheel.store import column_checks
from rag_flywheel.store.database import in_chunks
from rag_flywheel.store.event_types import ONE_TIME

USER_KEY = "user_key"
_KEY_BYTES = 32


def new_user_key() -> str:
    """A random key, as hex, for the table `meta`."""
    return secrets.token_hex(_KEY_BYTES)


def user_key(conn: sqlite3.Connection) -> bytes:
    """The key of this index, 32 bytes; the migration made it, once for all processes.

    Raises CorruptFileError when there is none: with another one, no user would be known again.
    """
    row = conn.execute("SELECT value FROM meta WHERE key = ?", (USER_KEY,)).fetchone()
    text = None if row is None else row[0]
    if type(text) is not str or not re.fullmatch(f"[0-9a-f]{{{2 * _KEY_BYTES}}}", text):
        found = None if row is None else "(not shown)"  # most of it may still be the secret
        column_checks.refuse(f"meta {USER_KEY!r}", found, f"{2 * _KEY_BYTES} hexadecimal digits")
    return bytes.fromhex(text)


def one_time_user() -> str:
    """SQL: a new user id for each row, in place of one that must go; two voices stay two."""
    return f"'{ONE_TIME}' || lower(hex(randomblob(16)))"


def set_opted_out(conn: sqlite3.Connection, user: str, out: bool) -> None:
    """Note that a user is not to be recorded, or may be again."""
    if out:
        conn.execute(
            "INSERT OR IGNORE INTO opted_out (user_id, at) VALUES (?, ?)", (user, time.time())
        )
    else:
        conn.execute("DELETE FROM opted_out WHERE user_id = ?", (user,))


def opted_out(conn: sqlite3.Connection, users: Collection[str]) -> set[str]:
    """Which of these users are not to be recorded."""
    rows = in_chunks(conn, "SELECT user_id FROM opted_out WHERE user_id IN (%s)", list(users))
    return {str(row[0]) for row in rows}
