"""Finds the passages in the index that came from files, by the names of their sources."""

from collections.abc import Iterator

from rag_flywheel.store.connection import Connection
from rag_flywheel.store.passages import PRESENT

_PRESENT = f"FROM passages WHERE {PRESENT}"


def ids_cut_from(conn: Connection, source: str) -> list[str]:
    """Ids of the passages that a document was cut into: SOURCE#..., with this source in the metadata."""
    sql = f"SELECT id {_PRESENT} AND id >= ? AND id < ? AND json_extract(metadata, '$.source') = ?"
    return [row[0] for row in conn.execute(sql, (f"{source}#", f"{source}$", source))]


def ids_added_from(conn: Connection, source: str) -> list[str]:
    """Ids of the passages whose metadata says that they were added from this file as they are."""
    sql = f"SELECT id {_PRESENT} AND json_extract(metadata, '$.added_from') = ?"
    return [row[0] for row in conn.execute(sql, (source,))]


def ids_with_source(conn: Connection) -> Iterator[tuple[str, str]]:
    """Yield (id, source) of every passage that came from a file."""
    columns = "json_extract(metadata, '$.source'), json_extract(metadata, '$.added_from')"
    for id_, source, added_from in conn.execute(f"SELECT id, {columns} {_PRESENT}"):
        if isinstance(added_from, str):
            yield id_, added_from
        elif isinstance(source, str) and id_.startswith(f"{source}#"):
            yield id_, source
