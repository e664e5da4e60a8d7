"""Transactions and snapshots of the database: what they promise to callers that know no SQL of locks."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from on_postgres import url_of
from rag_flywheel.errors import BusyError
from rag_flywheel.store.connection import in_chunks
from rag_flywheel.store.database import Database
from rag_flywheel.store.place import open_database
from rag_flywheel.store.postgres import Address, PostgresDatabase


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Database, Database]]:
    """One file, or one schema of a server, opened twice."""
    address = Address.of(url_of("pair")) if request.param == "postgresql" else None
    with ExitStack() as stack:
        pair = open_database(tmp_path, address=address), open_database(tmp_path, address=address)
        for each in pair:
            stack.callback(each.close)
        if isinstance(pair[0], PostgresDatabase):
            pair[0].make_schema()
        with pair[0].transaction() as conn:
            conn.execute("CREATE TABLE numbers (n INTEGER)")
        yield pair


def numbers(database: Database) -> list[int]:
    with database.reading() as conn:
        return [row[0] for row in conn.execute("SELECT n FROM numbers ORDER BY n")]


def add(database: Database, n: int) -> None:
    with database.transaction() as conn:
        conn.execute("INSERT INTO numbers VALUES (?)", (n,))


def test_a_transaction_has_the_write_lock_from_its_first_moment(
    pair: tuple[Database, Database],
) -> None:
    """Else two could read the same state, and each write what follows from it."""
    one, two = pair
    with one.transaction() as conn:
        with pytest.raises(BusyError), two.transaction(wait_s=0.0):
            raise AssertionError
        conn.execute("INSERT INTO numbers VALUES (1)")
        assert numbers(two) == []  # whose readers go on
    add(two, 2)
    assert numbers(one) == [1, 2]


def test_an_error_leaves_nothing_of_a_transaction(pair: tuple[Database, Database]) -> None:
    one, two = pair
    with pytest.raises(KeyError), one.transaction() as conn:
        conn.execute("INSERT INTO numbers VALUES (1)")
        raise KeyError
    assert numbers(one) == numbers(two) == []
    for database in pair:
        add(database, 2)
    assert numbers(two) == [2, 2]


def test_a_snapshot_is_one_state(pair: tuple[Database, Database]) -> None:
    one, two = pair
    add(one, 1)
    with one.snapshot() as conn:
        for n in (2, 3):
            assert [row[0] for row in conn.execute("SELECT n FROM numbers")] == [1]
            add(two, n)
    assert numbers(one) == [1, 2, 3]


def test_a_snapshot_ends_with_its_block(pair: tuple[Database, Database]) -> None:
    one, two = pair
    with pytest.raises(KeyError), one.snapshot() as conn:
        conn.execute("SELECT n FROM numbers").fetchall()
        raise KeyError
    add(two, 1)
    assert numbers(one) == [1]
    add(one, 2)
    assert two.compact()  # nobody reads an older state


@pytest.mark.parametrize("pair", ["sqlite"], indirect=True)
def test_a_reader_of_an_older_state_keeps_the_log(pair: tuple[Database, Database]) -> None:
    one, two = pair
    log = one.path.with_name("flywheel.db-wal")
    with one.snapshot() as conn:
        conn.execute("SELECT n FROM numbers").fetchall()
        add(two, 1)
        assert not two.empty_log()
        assert log.stat().st_size
    assert two.empty_log()
    assert log.stat().st_size == 0
    assert numbers(one) == [1]


@pytest.mark.parametrize("n", [0, 1, 499, 500, 501, 1_000, 1_203])
def test_each_of_many_values_is_asked_for_once(pair: tuple[Database, Database], n: int) -> None:
    with pair[0].transaction() as conn:
        conn.executemany("INSERT INTO numbers VALUES (?)", [(i,) for i in range(n + 5)])
        wanted = list(range(n))
        sql = "SELECT n FROM numbers WHERE n IN (%s) AND n >= ?"
        assert sorted(row[0] for row in in_chunks(conn, sql, wanted, (0,))) == wanted


def test_each_transaction_is_as_durable_as_it_asks_for(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    found = []
    for durable in (True, True, False, False, True, False, None, True, True):
        if durable is None:
            database.close_connections()
            continue
        with database.transaction(durable=durable) as conn:
            found.append(conn.execute("PRAGMA synchronous").fetchone()[0])
    full, normal = 2, 1
    assert found == [full, full, normal, normal, full, normal, full, full]
    database.close()
