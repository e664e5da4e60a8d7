"""Jobs: long work in processes of its own, and how far it is.

Whether the process of a job lives is asked of the system where it runs; on other hosts it shows by the time,
of the database's clock, of its last sign of life.
"""

import json
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rag_flywheel.errors import InputError, LockedError, UnknownIdError, quoted
from rag_flywheel.store import wall_clock
from rag_flywheel.store.connection import Connection, scalar
from rag_flywheel.store.database import Database

JobKind: TypeAlias = Literal["refresh", "forget"]
JobState: TypeAlias = Literal["waiting", "running", "done", "failed", "cancelled"]
Lives: TypeAlias = Callable[[int, str], bool]
"""Whether the process with a number is that of the job with an id."""
_COLUMNS = (
    "id, index_name, kind, state, step, done, total, created, started, ended, result, error, "
    "cancelled, pid, host, beat"
)
_STAY_S = 7 * 86_400.0  # for which ended jobs are listed
_BEGIN_S = 60.0  # within which a process notes that it has begun
SILENT_S = 30.0
"""After so long without a sign of life, the process of a job on another host is held to be dead."""
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
    id_ = secrets.token_hex(8)
    with database.transaction(durable=True) as conn:
        now = wall_clock.now_of(conn)
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
    """Note the process of a job, which runs on this host."""
    sql = "UPDATE jobs SET pid = ?, host = ?, beat = ? WHERE id = ?"
    with database.transaction(durable=False) as conn:
        conn.execute(sql, (pid, this_host(), wall_clock.now_of(conn), id_))


def process_of(database: Database, id_: str) -> int | None:
    """The number of the process of a job that has not ended and runs on this host."""
    sql = "SELECT pid FROM jobs WHERE id = ? AND ended IS NULL AND coalesce(host, ?) = ?"
    with database.reading() as conn:
        row = conn.execute(sql, (id_, this_host(), this_host())).fetchone()
    return None if row is None else row[0]


@cache
def this_host() -> str:
    """What tells the numbers of processes here from those of another machine or container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # no Linux
        return socket.gethostname()


def find(database: Database, id_: str, lives: Lives) -> Job:
    """A job by its id; one whose process is gone has ended. Raises UnknownIdError."""
    with database.transaction(durable=False) as conn:
        for row in _rows(conn, "id = ?", id_):
            return _settled(conn, row, lives, wall_clock.now_of(conn))
    raise unknown_job(id_)


def unknown_job(id_: str) -> UnknownIdError:
    """The error for a job that there is not."""
    return UnknownIdError(f"found no job {quoted(id_)}; those that ended are listed for a week")


def listed(database: Database, index: str, lives: Lives) -> list[Job]:
    """The jobs of an index, the newest first."""
    with database.transaction(durable=False) as conn:
        now = wall_clock.now_of(conn)
        return [_settled(conn, row, lives, now) for row in _rows(conn, "index_name = ?", index)]


def note_cancelled(database: Database, id_: str) -> None:
    """Note that a job is to end without a result."""
    with database.transaction(durable=True) as conn:
        conn.execute("UPDATE jobs SET cancelled = 1 WHERE id = ? AND ended IS NULL", (id_,))


def note_started(database: Database, id_: str) -> None:
    """Note that this process does the job from now on. Raises InputError."""
    with database.transaction(durable=False) as conn:
        n = conn.execute(
            "UPDATE jobs SET state = 'running', started = ?, beat = ?, pid = ?, host = ? "
            "WHERE id = ? AND state = 'waiting' AND cancelled = 0",
            (now := wall_clock.now_of(conn), now, os.getpid(), this_host(), id_),
        ).rowcount
    if not n:
        raise InputError(f"job {quoted(id_)} does not wait; expected one that was just added")


def note_progress(database: Database, id_: str, step: str, done: int, total: int) -> None:
    """Note how far a job is."""
    sql = "UPDATE jobs SET step = ?, done = ?, total = ? WHERE id = ?"
    with database.transaction(durable=False) as conn:
        conn.execute(sql, (step, done, total, id_))


def beat(database: Database, id_: str) -> bool:
    """Note that the process of a job lives; returns whether it was asked to stop."""
    with database.transaction(durable=False) as conn:
        sql = "UPDATE jobs SET beat = ? WHERE id = ?"
        conn.execute(sql, (wall_clock.now_of(conn), id_))
        return bool(scalar(conn, "SELECT cancelled FROM jobs WHERE id = ?", (id_,)))


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
        "UPDATE jobs SET state = ?, ended = ?, result = ?, error = ? "
        "WHERE id = ? AND (ended IS NULL OR error = ?)",  # what was held to be dead may have slept
        (state, wall_clock.now_of(conn), *stored, id_, json.dumps(_DIED)),
    )


def _rows(conn: Connection, where: str, value: str) -> list[tuple[Any, ...]]:
    sql = f"SELECT {_COLUMNS} FROM jobs WHERE {where} ORDER BY number DESC"
    return list(conn.execute(sql, (value,)))


def _settled(conn: Connection, row: tuple[Any, ...], lives: Lives, now: float) -> Job:
    """The job of a row, which has ended when its process is gone."""
    job, cancelled, pid, host, heard = _job(*row), *row[-4:]
    if pid is None:
        alive = job.state == "waiting" and now - job.created < _BEGIN_S
    elif host in (None, this_host()):
        alive = lives(pid, job.id)
    else:
        alive = now - heard < SILENT_S
    if job.ended is not None or alive:
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
