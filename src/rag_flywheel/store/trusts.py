"""How much signals of each kind are to be believed, kept for every process.

It must not know how that is estimated.
"""

import sqlite3
from collections.abc import Mapping

from rag_flywheel.store import cells


def replace_trusts(conn: sqlite3.Connection, found: Mapping[str, float]) -> None:
    """Keep these factors, and no others."""
    conn.execute("DELETE FROM trusts")
    conn.executemany("INSERT INTO trusts (kind, trust) VALUES (?, ?)", list(found.items()))


def stored_trusts(conn: sqlite3.Connection) -> dict[str, float]:
    """The factor for each kind of signal that there is one for."""
    rows = conn.execute("SELECT kind, trust FROM trusts ORDER BY kind")
    return {cells.text("trusts.kind", k): cells.trust("trusts.trust", t) for k, t in rows}


def has_signals(conn: sqlite3.Connection) -> bool:
    """Whether any signal, or any trust in one, is stored."""
    row = conn.execute(
        "SELECT EXISTS (SELECT 1 FROM answer_votes WHERE kind NOT IN ('answer', 'correction')) "
        "OR EXISTS (SELECT 1 FROM trusts)"
    ).fetchone()
    return bool(row[0])
