"""Reads the wall clock, within the years that every part of an index can hold.

The time only says how old something is. The order of events is that of their numbers, which the database
counts by itself, so that a clock that stands wrong or is set back changes no order.
"""

import sqlite3
import time

from rag_flywheel.store.connection import Connection, scalar

_FIRST = 946_684_800.0  # 2000-01-01: what a machine without a battery says is before
_LAST = 32_503_680_000.0  # 3000-01-01


def now() -> float:
    """Seconds since 1970 UTC, from 2000 to 3000, whatever the clock says."""
    return min(max(time.time(), _FIRST), _LAST)


def now_of(conn: Connection) -> float:
    """The same by the clock of the database: that of its server, which is one for all hosts."""
    if isinstance(conn, sqlite3.Connection):
        return now()
    return float(scalar(conn, "SELECT extract(epoch FROM clock_timestamp())::float8"))
