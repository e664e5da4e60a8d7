"""Limits for how long something that only looks may take."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rag_flywheel.store.connection import Connection

LIMIT_S = 0.03
"""Seconds of the processor that `health` spends on rows, each time, and on hashing files."""
WALL_S = 0.15
"""Seconds after which it stops though it has not had these, on a busy machine or a cold disk."""
_STEPS = 1_000  # of SQLite's machine, between two looks at the clock


class Limit:
    """A limit that begins now. over: whether it was reached when it was last asked for."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.thread_time() + LIMIT_S, time.monotonic() + WALL_S
        self.over = False

    def reached(self) -> bool:
        """Whether the time is over."""
        self.over = time.thread_time() > self._cpu or time.monotonic() > self._wall
        return self.over


@contextmanager
def limited(conn: Connection) -> Iterator[Limit]:
    """End the block when its statements reach the limit; in a read transaction."""
    limit = Limit()
    if not isinstance(conn, sqlite3.Connection):
        from rag_flywheel.store.postgres import limited_statements

        with limited_statements(conn, WALL_S) as was_ended:
            yield limit
        limit.over = was_ended()
        return
    conn.set_progress_handler(lambda: int(limit.reached()), _STEPS)
    try:
        yield limit
        limit.over = False  # it was reached after the last statement, if at all
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorname", "") != "SQLITE_INTERRUPT":
            raise
        limit.over = True
    finally:
        conn.set_progress_handler(None, 0)
