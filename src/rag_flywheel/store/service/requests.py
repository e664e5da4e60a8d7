"""Requests that are to be done once: what was asked under which key, and how it was answered.

Ages are by the clock of the database, which is one for all hosts.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from rag_flywheel.store import wall_clock
from rag_flywheel.store.database import Database

KNOWN_FOR_S = 24 * 3600.0
UNDER_WAY_S = 120.0
"""After so long without an answer the process that took a request is held to be dead."""
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
    caller, key = attempt.caller, attempt.key
    with database.transaction(durable=True) as conn:
        now = wall_clock.now_of(conn)
        conn.execute("DELETE FROM requests WHERE at < ?", (now - KNOWN_FOR_S,))
        row = conn.execute(
            "SELECT digest, at, status, headers, body, seen FROM requests "
            "WHERE caller = ? AND key = ?",
            (caller, key),
        ).fetchone()
        tried = None
        if row is not None:
            before, at, status, headers, body, seen_before = row
            if status is not None or bytes(before) != digest or at >= now - UNDER_WAY_S:
                found = json.loads(headers or "{}")
                return StoredAnswer(bytes(before), status, found, bytes(body or b""))
            tried = json.loads(seen_before or "{}")
        conn.execute(
            "INSERT INTO requests (caller, key, digest, at, tried_at, seen, taker) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (caller, key) DO UPDATE SET "
            "at = excluded.at, status = NULL, taker = excluded.taker",
            (caller, key, digest, now, now, json.dumps(dict(seen)), attempt.taker),
        )
    return Begun(tried)


_OURS = "WHERE caller = ? AND key = ? AND taker = ?"


def end(database: Database, attempt: Attempt, answer: StoredAnswer) -> None:
    """Store the answer of a request that was under way."""
    stored = answer.status, json.dumps(dict(answer.headers)), answer.body
    with database.transaction(durable=False) as conn:
        conn.execute(
            f"UPDATE requests SET status = ?, headers = ?, body = ? {_OURS}",
            (*stored, *_named(attempt)),
        )


def leave(database: Database, attempt: Attempt) -> None:
    """Let a request be done again at once, as one whose first attempt may have written something."""
    with database.transaction(durable=False) as conn:
        conn.execute(
            f"UPDATE requests SET at = at - ? {_OURS} AND status IS NULL",
            (UNDER_WAY_S + 1, *_named(attempt)),
        )


def drop(database: Database, attempt: Attempt) -> None:
    """Forget a request, which may then be done again."""
    with database.transaction(durable=False) as conn:
        conn.execute(f"DELETE FROM requests {_OURS}", _named(attempt))


def _named(attempt: Attempt) -> tuple[str, str, str]:
    return attempt.caller, attempt.key, attempt.taker
