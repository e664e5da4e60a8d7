"""Checks that a database has exactly the tables, indexes and triggers that the migrations create.

A foreign view or trigger would run with every statement. This module must not know any row.
"""

import re
import sqlite3
from contextlib import closing
from functools import cache
from typing import TYPE_CHECKING

from rag_flywheel.errors import CorruptFileError
from rag_flywheel.store.connection import Connection

if TYPE_CHECKING:
    from sqlite_utils.migrations import Migrations

_Schema = dict[tuple[str, str], object]
_OWN = re.compile(r"sqlite_(sequence|stat[134])|sqlite_autoindex_\w+", re.ASCII)
ALIVE = "alive"
"""A table of PostgreSQL alone, which is empty after a crash: `store/postgres.py` says what for."""
MIGRATIONS = "_sqlite_migrations"
"""The table that says which migrations were applied; PostgreSQL has it under the same name."""
_RESTORE = "restore the database from a backup: it is not as this package makes it"


def require_schema(conn: Connection, migrations: "Migrations") -> None:
    """Raises CorruptFileError naming the first table, index or trigger that is not as it must be."""
    problems = schema_problems(conn, migrations)
    if problems:
        raise CorruptFileError(f"flywheel.db: {problems[0]}; {_RESTORE}")


def require_ours(conn: Connection) -> None:
    """Raises CorruptFileError when the database has tables, but no record of migrations in a table."""
    lite = isinstance(conn, sqlite3.Connection)
    rows = conn.execute("SELECT type, name FROM sqlite_master" if lite else _POSTGRES).fetchall()
    if rows and ("table", MIGRATIONS) not in rows:
        raise CorruptFileError(
            f"flywheel.db: it holds {rows[0][0]} {rows[0][1]!r} but no table of migrations; {_RESTORE}"
        )


def schema_problems(conn: Connection, migrations: "Migrations") -> list[str]:
    """The tables, indexes and triggers that are missing, foreign or different, one sentence each."""
    expected = _expected(migrations)
    if isinstance(conn, sqlite3.Connection):
        found = _schema(conn)
    else:
        found, expected = _postgres_schema(conn), _in_postgres(expected)
    problems = []
    for key in sorted(expected.keys() | found.keys()):
        kind, name = key
        if key not in found:
            problems.append(f"the {kind} {name} is missing")
        elif key not in expected:
            problems.append(f"it holds the {kind} {name}, which is not of this package")
        elif found[key] != expected[key]:
            problems.append(f"the {kind} {name} is not as this package makes it")
    return problems


def expected_tables(migrations: "Migrations") -> dict[str, list[str]]:
    """The columns of each table of an index, but for that of migrations."""
    found = {}
    for (kind, name), columns in _expected(migrations).items():
        if kind == "table" and name != MIGRATIONS:
            assert isinstance(columns, list)
            found[name] = [str(column[0]) for column in columns]
    return found


@cache
def _expected(migrations: "Migrations") -> _Schema:
    import sqlite_utils  # 50 ms to load

    with closing(sqlite3.connect(":memory:")) as conn:
        conn.create_function("user_hash", 2, lambda key, id_: id_)  # there is no row to hash
        conn.create_function("query_hash", 1, lambda query: query)
        migrations.apply(sqlite_utils.Database(conn))
        return _schema(conn)


def _schema(conn: sqlite3.Connection) -> _Schema:
    """Tables by their columns, everything else by its SQL, however it is quoted and spaced.

    A column is (name, type, not null, place in the primary key, hidden).
    """
    schema: _Schema = {}
    for kind, name, sql in conn.execute("SELECT type, name, sql FROM sqlite_master").fetchall():
        if not isinstance(name, str) or _OWN.fullmatch(name):
            continue
        plain = re.sub(r"\s+", " ", re.sub(r'["\[\]`]', "", str(sql))).strip()
        if kind == "table" and plain.upper().startswith("CREATE TABLE"):
            rows = conn.execute("SELECT * FROM pragma_table_xinfo(?)", (name,)).fetchall()
            schema[kind, name] = [row[1:4] + row[5:] for row in rows]  # without place and default
        else:
            schema[kind, name] = plain
    return schema


_POSTGRES = (
    "SELECT 'table', tablename FROM pg_tables WHERE schemaname = current_schema() "
    "UNION ALL SELECT 'view', viewname FROM pg_views WHERE schemaname = current_schema()"
)
_POSTGRES_REST = (
    "SELECT 'index', c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
    "WHERE c.relnamespace = current_schema()::regnamespace AND NOT EXISTS "
    "(SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid) UNION ALL "
    "SELECT 'trigger', t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
    "WHERE c.relnamespace = current_schema()::regnamespace AND NOT t.tgisinternal"
)
_POSTGRES_COLUMNS = (
    "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_class c "
    "JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relkind IN ('r', 'v') AND a.attnum > 0 "
    "AND NOT a.attisdropped AND c.relnamespace = current_schema()::regnamespace AND c.relname != ? "
    "ORDER BY c.relname, a.attname"
)
_POSTGRES_TYPES = {
    "INTEGER": "bigint",
    "REAL": "double precision",
    "FLOAT": "double precision",
    "BLOB": "bytea",
    "TEXT": "text",
}


def _postgres_schema(conn: Connection) -> _Schema:
    """Tables by their columns, (name, type) in the order of names; of everything else that it is there."""
    schema: _Schema = {(kind, name): [] for kind, name in conn.execute(_POSTGRES)}
    schema.pop(("table", ALIVE), None)
    for table, *column in conn.execute(_POSTGRES_COLUMNS, (ALIVE,)):
        columns = schema.setdefault(("table", table), [])
        assert isinstance(columns, list)
        columns.append(tuple(column))
    return schema | dict.fromkeys(conn.execute(_POSTGRES_REST))


def _in_postgres(expected: _Schema) -> _Schema:
    """What PostgreSQL has in the place of what SQLite has."""
    schema: _Schema = {}
    for (kind, name), found in expected.items():
        if kind != "table":
            if MIGRATIONS not in name:  # whose table is written by hand there
                schema[kind, name] = None
            continue
        assert isinstance(found, list)
        columns = [(column[0], _POSTGRES_TYPES[column[1]]) for column in found]
        more = [("rowid", "bigint")] if name == "vectors" else []
        schema[kind, name] = sorted([*columns, *more])
    return schema
