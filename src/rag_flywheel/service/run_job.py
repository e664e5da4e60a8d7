"""The process of one job: python -m rag_flywheel.service.run_job STATE_FILE JOB_ID.

Standard input says what to do, as JSON: {"folder": ..., "kind": ...}, and the arguments of the call.
"""

import json
import sys
import time
from pathlib import Path

from rag_flywheel.errors import FlywheelError, InputError
from rag_flywheel.flywheel import Flywheel
from rag_flywheel.service.answers import encoded
from rag_flywheel.store.service import jobs
from rag_flywheel.store.service.file import open_file

_EVERY_S = 0.25  # at most as often is it noted how far it is


def main(state_file: str, id_: str) -> int:
    """Do the job, and note how it ended."""
    database = open_file(Path(state_file))
    try:
        given = json.load(sys.stdin)
        kind, folder = given.pop("kind"), given.pop("folder")
        try:
            jobs.note_started(database, id_)
        except InputError:  # it was cancelled before it began
            return 1
        noted = 0.0

        def progress(step: str, done: int, total: int) -> None:
            nonlocal noted
            now = time.monotonic()
            if now - noted >= _EVERY_S:
                noted = now
                jobs.note_progress(database, id_, step, done, total)

        try:
            with Flywheel.open(folder, create=False) as fw:
                if kind == "refresh":
                    result: object = fw.refresh(**given, progress=progress)
                else:
                    result = fw.forget(**given)
        except FlywheelError as error:
            jobs.end(
                database,
                id_,
                "failed",
                error={"type": type(error).__name__, "message": str(error)},
            )
            return 1
        jobs.end(database, id_, "done", result=json.loads(encoded(result)))
        return 0
    finally:
        database.close()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
