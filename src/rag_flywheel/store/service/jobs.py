"""Jobs: long work in processes of its own, and how far it is."""

import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from rag_flywheel.errors import InputError, LockedError, UnknownIdError, quoted
from rag_flywheel.store import wall_clock
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database

JobKind: TypeAlias = Literal["refresh", "forget"]
JobState: TypeAlias = Literal["waiting", "running", "done", "failed", "cancelled"]
Lives: TypeAlias = Callable[[int, str], bool]
"""Whether the process with a number is that of the job with an id."""
_COLUMNS = (
    "id, index_name, kind, state, step, done, total, created, started, ended, result, error, "
    "cancelled, pid"
)
_STAY_S = 7 * 86_400.0  # for which ended jobs are listed
_BEGIN_S = 60.0  # within which a process notes that it has begun
_DIED = {"type": "Died", "message": "the process of the job ended without a result; begin it again"}


@dataclass(frozen=True)
class Job:
    """Long work. step, done, total: how far it is. created, started, ended: seconds since 1970, UTC.

    result: what the library's call returned, once it is done. error: {"type", "message"} if it failed.
    """

    id: str
    index: str
    kind: JobKind
    state: JobState
    step: str
    done: int
    total: int
    created: float
    started: float | None
    ended: float | None
    result: Mapping[str, Any] | None
    error: Mapping[str, str] | None


def add(database: Database, index: str, kind: JobKind, lives: Lives) -> str:
    """Add a job that waits for its process; returns its id.

    Raises LockedError while the index has another under way.
    """
    now, id_ = wall_clock.now(), secrets.token_hex(8)
    with database.transaction(durable=True) as conn:
        conn.execute("DELETE FROM jobs WHERE ended < ?", (now - _STAY_S,))
        for row in _rows(conn, "index_name = ? AND ended IS NULL", index):
            if _settled(conn, row, lives, now).ended is None:
                raise LockedError(
                    f"job {row[0]} is under way for this index; wait for it or cancel it"
                )
        conn.execute(
            "INSERT INTO jobs (id, number, index_name, kind, state, step, done, total, created) "
            "VALUES (?, (SELECT coalesce(max(number), 0) + 1 FROM jobs), ?, ?, 'waiting', '', 0, 0, ?)",
            (id_, index, kind, now),
        )
    return id_


def set_process(database: Database, id_: str, pid: int) -> None:
    """Note the process of a job."""
    with database.transaction(durable=False) as conn:
        conn.execute("UPDATE jobs SET pid = ? WHERE id = ?", (pid, id_))


def process_of(database: Database, id_: str) -> int | None:
    """The number of the process of a job that has not ended."""
    with database.reading() as conn:
        row = conn.execute("SELECT pid FROM jobs WHERE id = ? AND ended IS NULL", (id_,)).fetchone()
    return None if row is None else row[0]


def find(database: Database, id_: str, lives: Lives) -> Job:
    """A job by its id; one whose process is gone has ended. Raises UnknownIdError."""
    with database.transaction(durable=False) as conn:
        for row in _rows(conn, "id = ?", id_):
            return _settled(conn, row, lives, wall_clock.now())
    raise unknown_job(id_)


def unknown_job(id_: str) -> UnknownIdError:
    """The error for a job that there is not."""
    return UnknownIdError(f"found no job {quoted(id_)}; those that ended are listed for a week")


def listed(database: Database, index: str, lives: Lives) -> list[Job]:
    """The jobs of an index, the newest first."""
    with database.transaction(durable=False) as conn:
        now = wall_clock.now()
        return [_settled(conn, row, lives, now) for row in _rows(conn, "index_name = ?", index)]


def note_cancelled(database: Database, id_: str) -> None:
    """Note that a job is to end without a result."""
    with database.transaction(durable=True) as conn:
        conn.execute("UPDATE jobs SET cancelled = 1 WHERE id = ? AND ended IS NULL", (id_,))


def note_started(database: Database, id_: str) -> None:
    """Note that this process does the job from now on. Raises InputError."""
    with database.transaction(durable=False) as conn:
        n = conn.execute(
            "UPDATE jobs SET state = 'running', started = ?, pid = ? "
            "WHERE id = ? AND state = 'waiting' AND NOT cancelled",
            (wall_clock.now(), os.getpid(), id_),
        ).rowcount
    if not n:
        raise InputError(f"job {quoted(id_)} does not wait; expected one that was just added")


def note_progress(database: Database, id_: str, step: str, done: int, total: int) -> None:
    """Note how far a job is."""
    sql = "UPDATE jobs SET step = ?, done = ?, total = ? WHERE id = ?"
    with database.transaction(durable=False) as conn:
        conn.execute(sql, (step, done, total, id_))


def end(
    database: Database,
    id_: str,
    state: JobState,
    *,
    result: object = None,
    error: Mapping[str, str] | None = None,
) -> None:
    """Note how a job ended."""
    with database.transaction(durable=True) as conn:
        _end(conn, id_, state, result, error)


def _end(
    conn: Connection,
    id_: str,
    state: JobState,
    result: object = None,
    error: Mapping[str, str] | None = None,
) -> None:
    stored = [None if each is None else json.dumps(each) for each in (result, error)]
    conn.execute(
        "UPDATE jobs SET state = ?, ended = ?, result = ?, error = ? WHERE id = ? AND ended IS NULL",
        (state, wall_clock.now(), *stored, id_),
    )


def _rows(conn: Connection, where: str, value: str) -> list[tuple[Any, ...]]:
    sql = f"SELECT {_COLUMNS} FROM jobs WHERE {where} ORDER BY number DESC"
    return list(conn.execute(sql, (value,)))


def _settled(conn: Connection, row: tuple[Any, ...], lives: Lives, now: float) -> Job:
    """The job of a row, which has ended when its process is gone."""
    job, cancelled, pid = _job(*row), row[-2], row[-1]
    begins = job.state == "waiting" and pid is None and now - job.created < _BEGIN_S
    if job.ended is not None or begins or (pid is not None and lives(pid, job.id)):
        return job
    _end(conn, job.id, "cancelled" if cancelled else "failed", error=None if cancelled else _DIED)
    return _job(*_rows(conn, "id = ?", job.id)[0])


def _job(
    id_: str,
    index: str,
    kind: JobKind,
    state: JobState,
    step: str,
    done: int,
    total: int,
    created: float,
    started: float | None,
    ended: float | None,
    result: str | None,
    error: str | None,
    *_: object,
) -> Job:
    found = None if result is None else json.loads(result)
    why = None if error is None else json.loads(error)
    return Job(id_, index, kind, state, step, done, total, created, started, ended, found, why)
