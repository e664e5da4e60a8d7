"""Deletes the texts of an application's own candidates that nothing refers to any more.

Of a text that votes, corrections, known answers or other texts still refer to, but no question that is as
it was recorded, the row stays with its id, the digest of the text and the tenant alone: the votes on it
act when the very text is given again.
"""

import json

from msgspec import UNSET

from rag_flywheel.checks import value_at
from rag_flywheel.store import column_checks
from rag_flywheel.store.connection import Connection

_NAMED_IN_LOG = tuple(
    f"SELECT json_extract(each.value, '$[0]') FROM retrievals r, json_each(r.{column}) each "
    "WHERE r.kind = 'rerank'"
    for column in ("hits", "candidates")
)
_NAMED = " UNION ALL ".join(
    [
        *_NAMED_IN_LOG,
        *(
            f"SELECT pid FROM {table}"
            for table in ("votes", "credits", "corrections", "golden", "reviews")
        ),
        "SELECT lineage FROM passages WHERE origin = 'index' OR lineage != pid",
    ]
)


_RECORDED = " UNION ALL ".join(f"{sql} AND r.folded IS NULL" for sql in _NAMED_IN_LOG)


def drop_old_given(conn: Connection, tenant_key: str | None) -> None:
    """Delete the texts that nothing refers to, and erase those that only old or deleted questions had.

    tenant_key: the metadata that an erased row keeps.
    """
    drop_unused_given(conn)
    rows = conn.execute(
        f"SELECT pid, metadata FROM passages WHERE origin = 'rerank' AND text != '' "
        f"AND pid NOT IN ({_RECORDED})"
    ).fetchall()
    conn.executemany(
        "UPDATE passages SET title = '', text = '', metadata = ? WHERE pid = ?",
        [(_tenant_alone(metadata, tenant_key), pid) for pid, metadata in rows],
    )


def _tenant_alone(metadata: object, tenant_key: str | None) -> str:
    if tenant_key is None or metadata == "{}":
        return "{}"
    value = value_at(column_checks.metadata("passages.metadata", metadata), tenant_key)
    if value is None or value is UNSET:
        return "{}"
    return json.dumps({tenant_key: value}, sort_keys=True)


def drop_unused_given(conn: Connection) -> int:
    """Delete them, and return how many. A retrieval and the texts it names are written in one
    transaction, so that none is deleted in between."""
    sql = f"DELETE FROM passages WHERE origin = 'rerank' AND pid NOT IN ({_NAMED})"
    n = conn.execute(sql).rowcount
    return n + (drop_unused_given(conn) if n else 0)  # those whose votes the deleted ones inherited
