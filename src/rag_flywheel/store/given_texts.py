"""Deletes the texts of an application's own candidates that nothing refers to any more."""

import sqlite3

_NAMED_IN_LOG = (
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


def drop_unused_given(conn: sqlite3.Connection) -> int:
    """Delete them, and return how many. A retrieval and the texts it names are written in one
    transaction, so that none is deleted in between."""
    sql = f"DELETE FROM passages WHERE origin = 'rerank' AND pid NOT IN ({_NAMED})"
    n = conn.execute(sql).rowcount
    return n + (drop_unused_given(conn) if n else 0)  # those whose votes the deleted ones inherited
