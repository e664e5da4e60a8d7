"""Requests that are to be done once: what was asked under which key, and how it was answered.

Ages are by the clock of the database, which is one for all hosts.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from rag_flywheel.store import wall_clock
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.service.state import writing

KNOWN_FOR_S = 24 * 3600.0
UNDER_WAY_S = 120.0
"""After so long without an answer the process that took a request is held to be dead."""
_PURGES = "00"  # an attempt in 256 has a name that begins so, and deletes what is too old
_INSERT = (
    "INSERT INTO requests (caller, key, digest, at, tried_at, seen, taker) "
    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (caller, key) DO NOTHING"
)
_FIND = "SELECT digest, at, status, headers, body, seen FROM requests WHERE caller = ? AND key = ?"
_TAKE = (
    "UPDATE requests SET at = ?, taker = ? "
    "WHERE caller = ? AND key = ? AND at = ? AND status IS NULL"
)
_OURS = "WHERE caller = ? AND key = ? AND taker = ?"
Seen: TypeAlias = Mapping[str, int]
"""The number of the newest event of an index, by the name of the index."""


@dataclass(frozen=True)
class StoredAnswer:
    """The answer to an earlier request; digest: of what that asked for. status None: it is under way."""

    digest: bytes
    status: int | None
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Begun:
    """A request that is under way from now on.

    tried: what the indexes held when its first attempt began, of whose outcome nothing is known: its
        process died, or lost the server. None: this is the first one.
    """

    tried: Seen | None


@dataclass(frozen=True)
class Attempt:
    """One attempt of a request. key: the caller's own. taker: the name of the attempt, which no other has."""

    caller: str
    key: str
    taker: str


def begin(database: Database, attempt: Attempt, digest: bytes, seen: Seen) -> StoredAnswer | Begun:
    """What an earlier request with this key is; or this one is under way now.

    seen: what the indexes hold that it may write to.
    """
    with writing(database, durable=True) as conn:
        now = wall_clock.now_of(conn)
        if attempt.taker.startswith(_PURGES):
            conn.execute("DELETE FROM requests WHERE at < ?", (now - KNOWN_FOR_S,))
        row = (attempt.caller, attempt.key, digest, now, now, json.dumps(dict(seen)), attempt.taker)
        if conn.execute(_INSERT, row).rowcount:
            return Begun(None)
        return _begin_again(conn, attempt, digest, now, row)


def _begin_again(
    conn: Connection, attempt: Attempt, digest: bytes, now: float, row: tuple[object, ...]
) -> StoredAnswer | Begun:
    """The same of a request that came before; row: of this attempt."""
    of_key = (attempt.caller, attempt.key)
    found = conn.execute(_FIND, of_key).fetchone()
    if found is None:  # it was just dropped
        return StoredAnswer(digest, None, {}, b"")
    before, at, status, headers, body, seen = found
    if at < now - KNOWN_FOR_S:
        conn.execute("DELETE FROM requests WHERE caller = ? AND key = ? AND at = ?", (*of_key, at))
        if conn.execute(_INSERT, row).rowcount:
            return Begun(None)
    elif status is None and bytes(before) == digest and at < now - UNDER_WAY_S:
        if conn.execute(_TAKE, (now, attempt.taker, *of_key, at)).rowcount:
            return Begun(json.loads(seen or "{}"))
    else:
        return StoredAnswer(bytes(before), status, json.loads(headers or "{}"), bytes(body or b""))
    return StoredAnswer(digest, None, {}, b"")


def end(database: Database, attempt: Attempt, answer: StoredAnswer) -> None:
    """Store the answer of a request that was under way."""
    stored = answer.status, json.dumps(dict(answer.headers)), answer.body
    with writing(database, durable=False) as conn:
        conn.execute(
            f"UPDATE requests SET status = ?, headers = ?, body = ? {_OURS}",
            (*stored, *_named(attempt)),
        )


def leave(database: Database, attempt: Attempt) -> None:
    """Let a request be done again at once, as one whose first attempt may have written something."""
    with writing(database, durable=False) as conn:
        conn.execute(
            f"UPDATE requests SET at = at - ? {_OURS} AND status IS NULL",
            (UNDER_WAY_S + 1, *_named(attempt)),
        )


def drop(database: Database, attempt: Attempt) -> None:
    """Forget a request, which may then be done again."""
    with writing(database, durable=False) as conn:
        conn.execute(f"DELETE FROM requests {_OURS}", _named(attempt))


def _named(attempt: Attempt) -> tuple[str, str, str]:
    return attempt.caller, attempt.key, attempt.taker
