"""Questions of one session, one after the other.

It must not know what makes one a rephrasing of another.
"""

import sqlite3
from dataclasses import dataclass

from rag_flywheel.store import cells
from rag_flywheel.store.vectors import known_vectors


@dataclass(frozen=True)
class Pair:
    """A question and the one before it in its session: the id of the latter, who asked, how many
    seconds lie between, and the cosine of their vectors."""

    before: str
    user_id: str | None
    seconds: float
    cosine: float


def with_the_one_before(
    conn: sqlite3.Connection, retrieval_id: str, revision: str, dim: int
) -> Pair | None:
    """The pair that a retrieval ends; None without a session, a question before it in other words
    and for the same tenant and user, or the vector of either."""
    row = conn.execute(
        "SELECT b.id, a.user_id, a.at - b.at, a.query_hash, b.query_hash, a.tenant IS b.tenant "
        "AND a.user_id IS b.user_id FROM retrievals a JOIN retrievals b "
        "ON b.session_id = a.session_id AND b.rid < a.rid "
        "WHERE a.id = ? ORDER BY b.rid DESC LIMIT 1",
        (retrieval_id,),
    ).fetchone()
    if row is None or row[3] == row[4] or not row[5]:
        return None
    found = known_vectors(conn, [row[3], row[4]], revision, dim)
    if len(found) < 2:
        return None
    return Pair(
        cells.text("retrievals.id", row[0]),
        cells.optional_text("retrievals.user_id", row[1]),
        max(0.0, cells.number("retrievals.at", row[2])),
        float(found[row[3]] @ found[row[4]]),
    )
