"""All bytes that an index stores: those of the files in its folder, and of its rows on a server."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from rag_flywheel.store.place import is_linked, open_database
from rag_flywheel.store.postgres import PostgresDatabase


def stored_bytes(root: Path) -> Iterator[tuple[str, bytes]]:
    """(the name of a file or a table, what it holds)."""
    for path in sorted(root.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(root)), path.read_bytes()
    if (root / "flywheel.toml").exists() and is_linked(root):
        yield from _rows(root)


def _rows(root: Path) -> Iterator[tuple[str, bytes]]:
    database = open_database(root)
    assert isinstance(database, PostgresDatabase)
    with closing(database), database.snapshot() as conn:
        sql = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1"
        for (table,) in conn.execute(sql).fetchall():
            rows = conn.execute(f'SELECT * FROM "{table}"')
            yield table, b"\n".join(_as_bytes(value) for row in rows for value in row)


def _as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
