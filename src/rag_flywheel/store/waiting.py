"""Finds questions with votes that have no vector yet: they wait for the next refresh to embed them.

Questions whose words are not stored do not wait, since nothing can embed them.
"""

import sqlite3

from rag_flywheel.store.database import scalar
from rag_flywheel.store.golden import query_texts
from rag_flywheel.store.retrievals import read_query_hash
from rag_flywheel.store.votes import EVENTS

_VOTED = " UNION ".join(f"SELECT rid FROM {table} WHERE seq > :after" for table in EVENTS)
_WAITING = (
    f"SELECT DISTINCT r.query_hash FROM ({_VOTED}) v JOIN retrievals r ON r.rid = v.rid "
    "WHERE NOT EXISTS (SELECT 1 FROM vectors x WHERE x.text_hash = r.query_hash "
    "AND x.revision = :revision) AND (r.query != '' OR EXISTS "
    "(SELECT 1 FROM retrievals o WHERE o.query_hash = r.query_hash AND o.query != ''))"
)


def waiting_questions(conn: sqlite3.Connection, revision: str) -> dict[bytes, str]:
    """The texts of the questions with votes that have no vector of an encoder of queries, by hash."""
    rows = conn.execute(_WAITING, {"after": 0, "revision": revision})
    return query_texts(conn, [read_query_hash(row[0]) for row in rows])


def count_waiting(conn: sqlite3.Connection, revision: str, after: int) -> int:
    """How many questions with votes after event number `after` have no vector of an encoder of queries."""
    sql = f"SELECT count(*) FROM ({_WAITING})"
    return int(scalar(conn, sql, {"after": after, "revision": revision}))
