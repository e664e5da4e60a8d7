"""When which question was asked, and how good its best hit was.

It must not know what makes an answer a good one.
"""

import sqlite3
from dataclasses import dataclass

from rag_flywheel.store import cells


@dataclass(frozen=True)
class Asked:
    """A question that was asked; question: the hash of its text, and its tenant as JSON; best: the
    score of its first hit, -inf without one."""

    question: tuple[bytes, str | None]
    query: str
    at: float
    best: float


def asked_since(conn: sqlite3.Connection, since: float) -> list[Asked]:
    """Every retrieval since a time in seconds since 1970, the oldest first."""
    rows = conn.execute(
        "SELECT query_hash, tenant, query, at, hits FROM retrievals WHERE at >= ? ORDER BY rid",
        (since,),
    )
    return [
        Asked(
            (
                cells.hashed("retrievals.query_hash", hashed),
                cells.optional_text("retrievals.tenant", tenant),
            ),
            cells.text("retrievals.query", query),
            cells.seconds("retrievals.at", at),
            max((s for _, _, s in cells.hits("retrievals.hits", hits)), default=-float("inf")),
        )
        for hashed, tenant, query, at, hits in rows
    ]
