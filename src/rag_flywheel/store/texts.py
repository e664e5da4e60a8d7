"""Reads everything that was stored of what people wrote, field by field. It must not know what is looked
for in it."""

from collections.abc import Iterator
from dataclasses import dataclass

from rag_flywheel.store.connection import Connection, each_row, scalar


@dataclass(frozen=True)
class TextField:
    """A column with texts: `record` is a column whose value says which row, and never a text of people."""

    name: str
    table: str
    column: str
    record: str
    where: str = "1 = 1"


_GIVEN, _OWN = "origin = 'rerank'", "origin = 'index'"
WRITTEN = (
    TextField("query", "retrievals", "query", "id"),
    TextField("answer", "retrievals", "answer", "id"),
    TextField("reason", "votes", "reason", "seq"),
    TextField("why", "answer_votes", "why", "seq"),
    TextField("note", "notes", "text", "seq"),
    TextField("known query", "golden", "query", "seq"),
    TextField("reviewed query", "reviews", "query", "seq"),
)
"""What users write."""
BESIDE = (
    TextField("filter", "retrievals", "filter", "id"),
    TextField("tenant", "retrievals", "tenant", "id"),
    TextField("id in another tool", "imports", "external", "coalesce(rid, 0)", "rid IS NOT NULL"),
    *(
        TextField(f"{column} given to rerank", "passages", column, "pid", _GIVEN)
        for column in ("id", "title", "text", "metadata")
    ),
    TextField("id of a passage", "passages", "id", "pid", _OWN),
    TextField("metadata of a passage", "passages", "metadata", "pid", _OWN),
)
"""What applications store beside it."""
PASSAGES = (
    TextField("title of a passage", "passages", "title", "pid", _OWN),
    TextField("text of a passage", "passages", "text", "pid", _OWN),
)
"""What users are shown."""


def texts_of(
    conn: Connection, field: TextField, *, containing: str = ""
) -> Iterator[tuple[str, str]]:
    """(record, text) of every row that has a text in this field; containing: only those that hold this."""
    sql = (
        f"SELECT {field.record}, {field.column} FROM {field.table} WHERE {field.where} "
        f"AND {field.column} IS NOT NULL AND {field.column} != '' AND instr({field.column}, ?) > 0"
    )
    if not containing:
        sql = sql.replace(f" AND instr({field.column}, ?) > 0", "")
    rows = each_row(conn, sql, (containing,) if containing else ())
    return ((str(record), str(text)) for record, text in rows)


def count_texts(conn: Connection, field: TextField) -> int:
    """How many rows have a text in this field."""
    sql = (
        f"SELECT count(*) FROM {field.table} WHERE {field.where} AND {field.column} IS NOT NULL "
        f"AND {field.column} != ''"
    )
    return int(scalar(conn, sql))
