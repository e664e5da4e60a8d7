"""Long work, in processes of its own: begun by one request, watched and cancelled by others.

Every process and host of the service knows every job. A refresh that is cancelled or killed leaves the index
as it was.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rag_flywheel.store.database import Database
from rag_flywheel.store.service import jobs
from rag_flywheel.store.service.jobs import Job, JobKind
from rag_flywheel.store.service.state import named

_ENDS_S = 10.0  # within which a process that is asked to has to end
_LOOK_S = 0.2  # between two looks whether a job of another host has ended
_children: dict[str, "subprocess.Popen[bytes]"] = {}  # or they would stay as zombies


def begin(
    database: Database, index: str, folder: Path, kind: JobKind, arguments: Mapping[str, Any]
) -> Job:
    """Begin a job in a process of its own. Raises LockedError while the index has another under way."""
    _reap()
    id_ = jobs.add(database, index, kind, is_job)
    words = [sys.executable, "-m", "rag_flywheel.service.run_job", named(database), id_]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )
    _children[id_] = process
    jobs.set_process(database, id_, process.pid)
    given = json.dumps({"folder": str(folder), "kind": kind, **arguments})
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin as pipe:  # not by a file: it may name a user
        pipe.write(given.encode())
    return find(database, index, id_)


def find(database: Database, index: str, id_: str) -> Job:
    """A job of an index by its id. Raises UnknownIdError."""
    _reap()
    found = jobs.find(database, id_, is_job)
    if found.index != index:
        raise jobs.unknown_job(id_)
    return found


def listed(database: Database, index: str) -> list[Job]:
    """The jobs of an index, the newest first."""
    _reap()
    return jobs.listed(database, index, is_job)


def cancel(database: Database, index: str, id_: str) -> Job:
    """Stop a job; one that has ended stays as it is. Raises UnknownIdError."""
    job = find(database, index, id_)
    if job.ended is not None:
        return job
    jobs.note_cancelled(database, id_)
    pid = jobs.process_of(database, id_)
    if pid is None:  # on another host, where it looks for this now and then
        until = time.monotonic() + _ENDS_S
        while find(database, index, id_).ended is None and time.monotonic() < until:
            time.sleep(_LOOK_S)
    elif is_job(pid, id_):
        os.kill(pid, signal.SIGTERM)
        if (process := _children.get(id_)) is not None:
            try:
                process.wait(_ENDS_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return find(database, index, id_)


def is_job(pid: int, id_: str) -> bool:
    """Whether the process with this number is the one of the job, and no other that has the number now."""
    process = Path(f"/proc/{pid}")
    try:
        line = (process / "cmdline").read_bytes()
        if not line:  # it has just begun, or it has ended and nobody asked for its exit code yet
            return (process / "stat").read_bytes().rpartition(b")")[2].split()[0] not in b"ZX"
    except OSError:
        return False
    return id_.encode() in line.split(b"\0")


def _reap() -> None:
    """Let go of the processes of this one that have ended."""
    for id_, process in list(_children.items()):
        if process.poll() is not None:
            _children.pop(id_, None)
