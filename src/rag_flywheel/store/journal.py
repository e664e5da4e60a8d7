"""What was refreshed and which version was made live when, and the encoder of the index.

Rows about moves of the live version are intents: the file CURRENT decides, and what it says is
written down here when the two differ.
"""

import json
import sqlite3
import time
from dataclasses import dataclass

from rag_flywheel.records import Current, RefreshReport
from rag_flywheel.store import column_checks


def read_meta(conn: sqlite3.Connection, key: str) -> str | None:
    """A value kept under a name, None when there is none."""
    row = conn.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else column_checks.text(f"meta {key!r}", row[0])


def write_meta(conn: sqlite3.Connection, key: str, value: str) -> None:
    """Keep a value under a name."""
    conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))


def record_refresh(conn: sqlite3.Connection, report: RefreshReport) -> None:
    """Append what a refresh did."""
    conn.execute(
        "INSERT INTO refreshes (at, outcome, version, parameters, reason, scores, seconds) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            time.time(),
            report.outcome,
            report.version,
            report.parameters,
            report.reason,
            json.dumps(dict(report.scores), sort_keys=True),
            report.seconds,
        ),
    )


@dataclass(frozen=True)
class Look:
    """A look of the gate: at which version, by how many votes, and what it spent and decided.

    arm: what came before the gate, "weights" or "encoder".
    """

    version: str
    n_votes: int
    alpha: float
    p: float | None
    outcome: str
    arm: str = "weights"


def record_look(conn: sqlite3.Connection, look: Look) -> None:
    """Append a look of the gate."""
    conn.execute(
        "INSERT INTO looks (at, version, n_votes, alpha, p, outcome, arm) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (time.time(), look.version, look.n_votes, look.alpha, look.p, look.outcome, look.arm),
    )


def looks(conn: sqlite3.Connection, arm: str = "weights") -> tuple[int, int]:
    """(looks since an arm last replaced what was live, votes that there were at its last one).

    A reset is one of every arm. One that spent nothing, since nothing came before the gate, is not
    counted.
    """
    mine = "(arm = :arm OR outcome = 'reset')"
    row = conn.execute(
        f"SELECT (SELECT count(*) FROM looks WHERE {mine} AND alpha > 0 AND id > (SELECT "
        f"coalesce(max(id), 0) FROM looks WHERE {mine} AND outcome IN ('better', 'reset'))), "
        f"coalesce((SELECT n_votes FROM looks WHERE {mine} ORDER BY id DESC LIMIT 1), 0)",
        {"arm": arm},
    ).fetchone()
    return int(row[0]), int(row[1])


def last_promoted(conn: sqlite3.Connection) -> str | None:
    """The version that the last refresh which promoted one made live."""
    row = conn.execute(
        "SELECT version FROM refreshes WHERE outcome = 'promoted' ORDER BY id DESC LIMIT 1"
    ).fetchone()
    return None if row is None else column_checks.optional_text("refreshes.version", row[0])


def last_refresh_at(conn: sqlite3.Connection) -> float | None:
    """When a refresh last ended, in seconds since 1970 UTC."""
    row = conn.execute("SELECT at FROM refreshes ORDER BY id DESC LIMIT 1").fetchone()
    return None if row is None else column_checks.seconds("refreshes.at", row[0])


def record_live_change(conn: sqlite3.Connection, action: str, current: Current) -> None:
    """Append the intent to make a version live."""
    conn.execute(
        "INSERT INTO moves (at, action, version, frozen_at, held) VALUES (?, ?, ?, ?, ?)",
        (time.time(), action, current.version, current.frozen_at, int(current.held)),
    )


def count_by_hand(conn: sqlite3.Connection) -> int:
    """How many moves were not those of a refresh, but rollbacks, releases, or found in CURRENT."""
    sql = "SELECT count(*) FROM moves WHERE action != 'promote'"
    return int(conn.execute(sql).fetchone()[0])


def was_intended(conn: sqlite3.Connection, current: Current) -> bool:
    """Whether this was ever to be live, according to the journal."""
    sql = "SELECT 1 FROM moves WHERE version = ? AND frozen_at IS ? AND held = ?"
    values = (current.version, current.frozen_at, int(current.held))
    return conn.execute(sql, values).fetchone() is not None


def was_promoted(conn: sqlite3.Connection, version: str) -> bool:
    """Whether it was built from the events of this database, and not from those of one that this
    has taken the place of, out of a backup."""
    sql = "SELECT 1 FROM moves WHERE version = ? AND action = 'promote'"
    return conn.execute(sql, (version,)).fetchone() is not None


def last_live_change(conn: sqlite3.Connection) -> Current | None:
    """The live version according to the journal."""
    row = conn.execute(
        "SELECT version, frozen_at, held FROM moves ORDER BY id DESC LIMIT 1"
    ).fetchone()
    if row is None:
        return None
    frozen_at = column_checks.optional_whole("moves.frozen_at", row[1])
    held = column_checks.whole("moves.held", row[2])
    return Current(column_checks.text("moves.version", row[0]), frozen_at, bool(held))
