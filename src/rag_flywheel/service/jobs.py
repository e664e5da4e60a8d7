"""Long work, in processes of its own: begun by one request, watched and cancelled by others.

A job is a row in the service's file, so every process of the service knows it. A refresh that is cancelled
or killed leaves the index as it was.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rag_flywheel.errors import InputError, LockedError, UnknownIdError, quoted
from rag_flywheel.store import wall_clock
from rag_flywheel.store.database import Database

JobKind: TypeAlias = Literal["refresh", "forget"]
JobState: TypeAlias = Literal["waiting", "running", "done", "failed", "cancelled"]
KINDS: tuple[JobKind, ...] = ("refresh", "forget")
_COLUMNS = (
    "id, index_name, kind, state, step, done, total, created, started, ended, result, error, cancelled, pid"
)
_STAY_S = 7 * 86400.0  # for which ended jobs are listed
_BEGIN_S = 60.0  # within which a process reports that it has begun


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


def begin(
    database: Database, name: str, folder: Path, kind: JobKind, arguments: Mapping[str, Any]
) -> Job:
    """Begin a job in a process of its own. Raises LockedError while the index has another under way."""
    now, id_ = wall_clock.now(), secrets.token_hex(8)
    with database.transaction(durable=True) as conn:
        conn.execute("DELETE FROM jobs WHERE ended < ?", (now - _STAY_S,))
        for job, pid in [(_job(*row), row[-1]) for row in _rows(conn, name)]:
            if job.ended is None and _lives(job, pid, now):
                raise LockedError(f"job {job.id} is under way for this index; wait for it or cancel it")
            if job.ended is None:
                _end(conn, job.id, "failed", error=_DIED)
        conn.execute(
            "INSERT INTO jobs (id, number, index_name, kind, state, step, done, total, created) "
            "VALUES (?, (SELECT coalesce(max(number), 0) + 1 FROM jobs), ?, ?, 'waiting', '', 0, 0, ?)",
            (id_, name, kind, now),
        )
    words = [sys.executable, "-m", "rag_flywheel.service.run_job", str(database.path), id_]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin as pipe:  # not by the file: it may name a user
        pipe.write(json.dumps({"folder": str(folder), "kind": kind, **arguments}).encode())
    with database.transaction(durable=False) as conn:
        conn.execute("UPDATE jobs SET pid = ? WHERE id = ?", (process.pid, id_))
    _children[id_] = process
    return find(database, id_)


_children: dict[str, "subprocess.Popen[bytes]"] = {}  # or they would stay as zombies
_DIED = {"type": "Died", "message": "the process of the job ended without a result; begin it again"}


def reap() -> None:
    """Let go of the processes of this one that have ended."""
    for id_, process in list(_children.items()):
        if process.poll() is not None:
            del _children[id_]


def find(database: Database, id_: str) -> Job:
    """A job by its id. Raises UnknownIdError."""
    reap()
    now = wall_clock.now()
    with database.transaction(durable=False) as conn:
        row = conn.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (id_,)).fetchone()
        if row is None:
            raise UnknownIdError(f"found no job {quoted(id_)}; ended ones are listed for a week")
        job, pid = _job(*row), row[-1]
        if job.ended is None and not _lives(job, pid, now):
            _end(conn, id_, "cancelled" if row[-2] else "failed", error=None if row[-2] else _DIED)
            job = _job(*conn.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (id_,)).fetchone())
    return job


def listed(database: Database, name: str) -> list[Job]:
    """The jobs of an index, the newest first."""
    reap()
    with database.reading() as conn:
        ids = [row[0] for row in _rows(conn, name)]
    return [find(database, id_) for id_ in ids]


def cancel(database: Database, id_: str) -> Job:
    """Stop a job; one that has ended stays as it is. Raises UnknownIdError."""
    job = find(database, id_)
    if job.ended is not None:
        return job
    with database.transaction(durable=True) as conn:
        conn.execute("UPDATE jobs SET cancelled = 1 WHERE id = ? AND ended IS NULL", (id_,))
        (pid,) = conn.execute("SELECT pid FROM jobs WHERE id = ?", (id_,)).fetchone()
    if pid is not None and is_job(pid, id_):
        os.kill(pid, signal.SIGTERM)
        if (process := _children.get(id_)) is not None:
            try:
                process.wait(10.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return find(database, id_)


def started(database: Database, id_: str) -> None:
    """Note that this process does the job from now on. Raises UnknownIdError, InputError."""
    with database.transaction(durable=False) as conn:
        row = conn.execute("SELECT state FROM jobs WHERE id = ?", (id_,)).fetchone()
        if row is None:
            raise UnknownIdError(f"found no job {quoted(id_)}")
        if row[0] != "waiting":
            raise InputError(f"job {id_} is {row[0]}; expected one that waits")
        conn.execute(
            "UPDATE jobs SET state = 'running', started = ?, pid = ? WHERE id = ?",
            (wall_clock.now(), os.getpid(), id_),
        )


def progress(database: Database, id_: str, step: str, done: int, total: int) -> None:
    """Note how far a job is."""
    with database.transaction(durable=False) as conn:
        conn.execute(
            "UPDATE jobs SET step = ?, done = ?, total = ? WHERE id = ?", (step, done, total, id_)
        )


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
        _end(conn, id_, state, result=result, error=error)


def _end(
    conn: Any,
    id_: str,
    state: JobState,
    *,
    result: object = None,
    error: Mapping[str, str] | None = None,
) -> None:
    conn.execute(
        "UPDATE jobs SET state = ?, ended = ?, result = ?, error = ? WHERE id = ? AND ended IS NULL",
        (
            state,
            wall_clock.now(),
            None if result is None else json.dumps(result),
            None if error is None else json.dumps(dict(error)),
            id_,
        ),
    )


def _rows(conn: Any, name: str) -> list[Any]:
    sql = f"SELECT {_COLUMNS} FROM jobs WHERE index_name = ? ORDER BY number DESC"
    return list(conn.execute(sql, (name,)))


def _lives(job: Job, pid: int | None, now: float) -> bool:
    """Whether the process of a job that has not ended is there, or may yet begin."""
    if job.state == "waiting" and now - job.created < _BEGIN_S:
        return pid is None or is_job(pid, job.id)
    return pid is not None and is_job(pid, job.id)


def is_job(pid: int, id_: str) -> bool:
    """Whether the process with this number is the one of the job, and no other that has the number now."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return id_.encode() in words


def _job(
    id_: str,
    name: str,
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
    return Job(
        id_,
        name,
        kind,
        state,
        step,
        done,
        total,
        created,
        started,
        ended,
        None if result is None else json.loads(result),
        None if error is None else json.loads(error),
    )
