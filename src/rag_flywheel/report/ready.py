"""Tells in milliseconds whether an index can answer and record now; `health` says why not, and looks further.

What it says names no file, index or text, so that anybody may read it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rag_flywheel import disk
from rag_flywheel.deploy.current import live_of
from rag_flywheel.errors import BusyError, FlywheelError
from rag_flywheel.report.health_of_refreshes import lock_holder
from rag_flywheel.store import attempts, wall_clock
from rag_flywheel.store.database import Database
from rag_flywheel.store.timeline import read_moment

if TYPE_CHECKING:
    from rag_flywheel.deploy.published import Published

_LOOK = "`rag-flywheel health` says what is wrong"


@dataclass(frozen=True)
class Readiness:
    """problems: why it cannot, with what to do, a sentence each. refresh_running_s: how long a refresh has
    been running, which changes nothing; 0: none."""

    problems: tuple[str, ...] = ()
    refresh_running_s: float = 0.0


def readiness(root: Path, database: Database, published: "Published | None" = None) -> Readiness:
    """Whether the database can be read and written to, the live version is known, and a disk has room.

    published: the database of vectors that passages are found in, which has to answer.
    """
    problems = []
    running = 0.0
    try:
        with database.snapshot() as conn:
            read_moment(conn)
            newest = attempts.newest(conn, 1)
        live_of(root, database)
        if newest and newest[0].state == "open" and lock_holder(root) is not None:
            running = max(0.0, wall_clock.now() - newest[0].at)
    except FlywheelError as error:
        problems.append(f"the index cannot be read ({type(error).__name__}); {_LOOK}")
    if published is not None and not published.server.answers():
        problems.append(
            f"the database of vectors that passages are found in does not answer; {_LOOK}"
        )
    if not database.read_only and not problems:
        problems += _of_writing(root, database)
    return Readiness(tuple(problems), running)


def _of_writing(root: Path, database: Database) -> list[str]:
    if disk.is_full(root):
        return ["the disk is full, so that nothing can be recorded; free some space"]
    try:
        with database.transaction(durable=False, wait_s=0.0):
            pass
    except BusyError:
        pass  # another process writes, and so can this one after it
    except FlywheelError as error:
        return [f"the database cannot be written to ({type(error).__name__}); {_LOOK}"]
    return []
