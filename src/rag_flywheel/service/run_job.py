"""The process of one job: python -m rag_flywheel.service.run_job STATE JOB_ID.

STATE names the records of the service, as a file or a URL. Standard input says what to do, as JSON:
{"folder": ..., "kind": ...}, and the arguments of the call.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from rag_flywheel.errors import BusyError, FlywheelError, InputError, StorageError
from rag_flywheel.flywheel import Flywheel
from rag_flywheel.service.answers import encoded
from rag_flywheel.store.database import Database
from rag_flywheel.store.service import jobs
from rag_flywheel.store.service.state import open_state

_EVERY_S = 0.25  # at most as often is it noted how far it is
_BEAT_S = 2.0  # how often it says that it lives, and looks whether it was cancelled
_WAITS_S = 60.0  # for which it tries to note how it ended, while the records cannot be written
_AGAIN_S = 1.0


def main(state: str, id_: str) -> int:
    """Do the job, and note how it ended."""
    database = open_state(state)
    ended = threading.Event()
    try:
        given = json.load(sys.stdin)
        kind, folder = given.pop("kind"), given.pop("folder")
        try:
            jobs.note_started(database, id_)
        except InputError:  # it was cancelled before it began
            return 1
        threading.Thread(target=_beat, args=(database, id_, ended), daemon=True).start()
        noted = 0.0

        def progress(step: str, done: int, total: int) -> None:
            nonlocal noted
            now = time.monotonic()
            if now - noted >= _EVERY_S:
                noted = now
                with suppress(BusyError):  # the index may be elsewhere, and go on
                    jobs.note_progress(database, id_, step, done, total)

        try:
            with Flywheel.open(folder, create=False) as fw:
                if kind == "refresh":
                    result: object = fw.refresh(**given, progress=progress)
                else:
                    result = fw.forget(**given)
        except FlywheelError as error:
            why = {"type": type(error).__name__, "message": str(error)}
            _note(lambda: jobs.end(database, id_, "failed", error=why))
            return 1
        _note(lambda: jobs.end(database, id_, "done", result=json.loads(encoded(result))))
        return 0
    finally:
        ended.set()
        database.close()


def _beat(database: Database, id_: str, ended: threading.Event) -> None:
    """Say now and then that this process lives, and end it when another host cancels the job."""
    while not ended.wait(_BEAT_S):
        with suppress(StorageError):
            if jobs.beat(database, id_):
                jobs.end(database, id_, "cancelled")
                os.kill(os.getpid(), signal.SIGTERM)


def _note(note: Callable[[], None]) -> None:
    """Write to the records, and wait for them while they cannot be reached."""
    until = time.monotonic() + _WAITS_S
    while True:
        try:
            return note()
        except BusyError:
            if time.monotonic() > until:
                raise
            time.sleep(_AGAIN_S)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
