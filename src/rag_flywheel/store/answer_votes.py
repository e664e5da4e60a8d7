"""What was said of whole answers, with the part of each hit in it: appended, and never changed here.

It must not know how parts are worked out, nor what they do to a ranking.
"""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class NewAnswerVote:
    """To append: what was said of retrieval row `rid`; credits: {pid: its part, 0 to 1}."""

    rid: int
    kind: str
    verdict: str
    user_id: str | None
    credits: Mapping[int, float]
    why: str | None = None


def append(conn: sqlite3.Connection, new: NewAnswerVote, *, seq: int, at: float) -> None:
    """Append it under an event number."""
    conn.execute(
        "INSERT INTO answer_votes (seq, rid, kind, verdict, user_id, at, why) "
        "VALUES (?,?,?,?,?,?,?)",
        (seq, new.rid, new.kind, new.verdict, new.user_id, at, new.why),
    )
    conn.executemany(
        "INSERT INTO credits (seq, pid, credit) VALUES (?,?,?)",
        [(seq, pid, credit) for pid, credit in new.credits.items()],
    )


def named_before(conn: sqlite3.Connection, rid: int, user_id: str | None) -> list[int]:
    """Pids that a user has named as the answer of retrieval row `rid`."""
    rows = conn.execute(
        "SELECT DISTINCT c.pid FROM answer_votes v JOIN credits c ON c.seq = v.seq "
        "WHERE v.rid = ? AND v.kind = 'correction' AND v.user_id IS ?",
        (rid, user_id),
    )
    return [int(row[0]) for row in rows]


def drop_loose_credits(conn: sqlite3.Connection) -> None:
    """Delete the parts of events that are no longer stored."""
    conn.execute(
        "DELETE FROM credits WHERE NOT EXISTS "
        "(SELECT 1 FROM answer_votes v WHERE v.seq = credits.seq)"
    )
