"""Counts over the store, for reports and checks."""

import sqlite3

from rag_flywheel.store.passages import ALL_PRESENT

_PRESENT = "ended IS NULL AND origin = 'index'"


def passages(conn: sqlite3.Connection, after: int = 0) -> int:
    """How many texts are in the index now that were begun after event number `after`."""
    sql = f"SELECT count(*) FROM passages WHERE {_PRESENT} AND born > ?"
    return int(conn.execute(sql, (after,)).fetchone()[0])


def corpus_changes(conn: sqlite3.Connection, after: int) -> int:
    """How many texts of the index were begun or ended after event number `after`."""
    sql = "SELECT count(*) FROM passages WHERE origin = 'index' AND (born > ? OR ended > ?)"
    return int(conn.execute(sql, (after, after)).fetchone()[0])


def without_vector(conn: sqlite3.Connection, revision: str) -> int:
    """How many texts of the index have no vector of this encoder revision."""
    sql = (
        f"SELECT count(*) FROM {ALL_PRESENT} "
        "AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.text_hash = p.text_hash AND v.revision = ?)"
    )
    return int(conn.execute(sql, (revision,)).fetchone()[0])
