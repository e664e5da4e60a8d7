"""Requests that are to be done once: what was asked under which key, and how it was answered."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from rag_flywheel.store import wall_clock
from rag_flywheel.store.database import Database

KNOWN_FOR_S = 24 * 3600.0
UNDER_WAY_S = 120.0
"""After so long without an answer the process that took a request is held to be dead."""


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

    tried_at: when its first attempt began, of which nothing is known: its process died. None: it is the
        first one.
    """

    tried_at: float | None


def begin(database: Database, caller: str, key: str, digest: bytes) -> StoredAnswer | Begun:
    """What an earlier request with this key is; or this one is under way now."""
    now = wall_clock.now()
    with database.transaction(durable=True) as conn:
        conn.execute("DELETE FROM requests WHERE at < ?", (now - KNOWN_FOR_S,))
        row = conn.execute(
            "SELECT digest, at, tried_at, status, headers, body FROM requests "
            "WHERE caller = ? AND key = ?",
            (caller, key),
        ).fetchone()
        if row is not None:
            before, at, tried_at, status, headers, body = row
            if status is not None or bytes(before) != digest or at >= now - UNDER_WAY_S:
                found = json.loads(headers or "{}")
                return StoredAnswer(bytes(before), status, found, bytes(body or b""))
        first = None if row is None else tried_at
        conn.execute(
            "INSERT OR REPLACE INTO requests (caller, key, digest, at, tried_at) "
            "VALUES (?, ?, ?, ?, ?)",
            (caller, key, digest, now, now if first is None else first),
        )
    return Begun(first)


def end(database: Database, caller: str, key: str, answer: StoredAnswer) -> None:
    """Store the answer of a request that was under way."""
    with database.transaction(durable=False) as conn:
        conn.execute(
            "UPDATE requests SET status = ?, headers = ?, body = ? WHERE caller = ? AND key = ?",
            (answer.status, json.dumps(dict(answer.headers)), answer.body, caller, key),
        )


def drop(database: Database, caller: str, key: str) -> None:
    """Forget a request, which may then be done again."""
    with database.transaction(durable=False) as conn:
        conn.execute("DELETE FROM requests WHERE caller = ? AND key = ?", (caller, key))
