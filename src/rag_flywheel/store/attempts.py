"""Records when refreshes begin, end and fail, so that one that was killed leaves a trace too.

Rows are only ever appended: one when a version begins to be built, one when that has ended or failed.
"""

import os
from dataclasses import dataclass
from typing import Literal

from rag_flywheel.store import column_checks, wall_clock
from rag_flywheel.store.connection import Connection, append_rows, scalar

AttemptState = Literal["ended", "failed", "open"]
_ROWS = (
    "SELECT b.id, b.at, b.pid, e.state, e.at, e.error, e.reason, e.to_do FROM attempts b "
    "LEFT JOIN attempts e ON e.attempt = b.id WHERE b.attempt IS NULL ORDER BY b.id DESC LIMIT ?"
)


@dataclass(frozen=True)
class Attempt:
    """A refresh that began to build a version, or failed before it did.

    at: when it began; over_at: when it ended or failed, None: it is going on, or was killed; pid: of its
    process; error: the name of the exception; reason: a sentence; to_do: what to do about it.
    """

    at: float
    pid: int
    state: AttemptState
    over_at: float | None = None
    error: str | None = None
    reason: str | None = None
    to_do: str | None = None


def begin(conn: Connection) -> int:
    """Note that a refresh begins to build a version; returns the number of the row."""
    sql = "INSERT INTO attempts (at, state, pid) VALUES (?, 'begun', ?) RETURNING id"
    return int(scalar(conn, sql, (wall_clock.now(), os.getpid())))


def end(conn: Connection, begun: int) -> None:
    """Note that it came to a result, whatever that is."""
    row = {"at": wall_clock.now(), "state": "ended", "attempt": begun, "pid": os.getpid()}
    append_rows(conn, "attempts", row)


def fail(conn: Connection, begun: int | None, error: str, reason: str, to_do: str) -> None:
    """Note that it failed; begun: the number of its row, None: it failed before it began."""
    if begun is None:
        begun = begin(conn)
    row = {"state": "failed", "attempt": begun, "error": error, "reason": reason, "to_do": to_do}
    append_rows(conn, "attempts", {"at": wall_clock.now(), "pid": os.getpid(), **row})


def end_open(conn: Connection) -> None:
    """Note that the newest attempt ended, if it is open: in a copy of the database it goes on nowhere."""
    sql = (
        "SELECT max(id) FROM attempts b WHERE attempt IS NULL AND NOT EXISTS "
        "(SELECT 1 FROM attempts e WHERE e.attempt = b.id) AND id = "
        "(SELECT max(id) FROM attempts WHERE attempt IS NULL)"
    )
    if (begun := scalar(conn, sql)) is not None:
        end(conn, begun)


def count_failed(conn: Connection) -> int:
    """How many refreshes failed, of all time; those that were killed are not counted."""
    return int(scalar(conn, "SELECT count(*) FROM attempts WHERE state = 'failed'"))


def newest(conn: Connection, n: int) -> list[Attempt]:
    """The n newest attempts, the newest first. Raises CorruptFileError."""
    found = []
    for _, at, pid, state, over_at, *words in conn.execute(_ROWS, (n,)):
        found.append(
            Attempt(
                column_checks.seconds("attempts.at", at),
                column_checks.whole("attempts.pid", pid),
                "open" if state is None else "failed" if state == "failed" else "ended",
                None if over_at is None else column_checks.seconds("attempts.at", over_at),
                *(column_checks.optional_text("attempts", each) for each in words),
            )
        )
    return found
