"""Limits for how long statements on a database may take."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

LIMIT_S = 0.08
"""For how long `health` reads rows, each time, and for how long it hashes files."""
_STEPS = 1_000  # of SQLite's machine, between two looks at the clock


class Left:
    """Whether a limit of time was over before the block ended."""

    def __init__(self) -> None:
        self.over = False


@contextmanager
def limited(conn: sqlite3.Connection) -> Iterator[Left]:
    """End the block when its statements take longer than LIMIT_S."""
    until, left = time.monotonic() + LIMIT_S, Left()
    conn.set_progress_handler(lambda: int(time.monotonic() > until), _STEPS)
    try:
        yield left
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorname", "") != "SQLITE_INTERRUPT":
            raise
        left.over = True
    finally:
        conn.set_progress_handler(None, 0)
