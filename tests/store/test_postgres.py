"""PostgreSQL as the store of an index: what holds there and has no like in SQLite."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from fakes import WordEncoder
from folders import PASSAGES, QUERY
from on_postgres import server_url, url_of
from rag_flywheel import Flywheel, InputError, LockedError, Passage, StorageError
from rag_flywheel.deploy.lock import refresh_lock
from rag_flywheel.errors import BusyError, ReadOnlyError, UnreachableError
from rag_flywheel.store.migrations import migrate
from rag_flywheel.store.mutes import append_mutes
from rag_flywheel.store.passages import advance_clock
from rag_flywheel.store.postgres import Address, PostgresDatabase
from rag_flywheel.store.postgres_sql import translated

WRITERS, EVENTS = 8, 200


def on_server(schema: str, folder: Path) -> PostgresDatabase:
    """An empty index there, without a folder."""
    database = PostgresDatabase(Address.of(url_of(schema)), folder)
    database.make_schema()
    migrate(database, lambda _, id_: id_)
    return database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[PostgresDatabase]:
    with closing(on_server("alone", tmp_path)) as made:
        yield made


def end_connections(database: PostgresDatabase) -> None:
    """What a server does that is shut down, to all connections of an index."""
    with closing(database.connect().raw) as conn:
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = %s AND pid != pg_backend_pid()",
            (f"rag-flywheel {database.address.schema}",),
        )


def test_a_reader_that_asks_for_later_events_skips_none(
    database: PostgresDatabase, tmp_path: Path
) -> None:
    """Numbers are drawn and committed by many at once: whoever sees one has seen all before it."""
    begin, failed = threading.Barrier(WRITERS + 1), list[BaseException]()

    def write(name: int) -> None:
        own = PostgresDatabase(database.address, tmp_path)
        try:
            begin.wait()
            for n in range(EVENTS):
                many = 1 + n % 3
                with suppress(KeyError), own.transaction(durable=n % 2 == 0) as conn:
                    first = advance_clock(conn, many)
                    if n % 5 == 0:
                        time.sleep(0.001)
                    users = [f"{name} {n} {i}" for i in range(many)]
                    append_mutes(conn, users, muted=True, first_seq=first)
                    if n % 17 == 16:
                        raise KeyError  # what is rolled back leaves no gap
        except BaseException as error:
            failed.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=write, args=(n,)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    begin.wait()
    seen, n_polls = 0, 0
    while True:
        alive = any(thread.is_alive() for thread in threads)
        with database.reading() as conn:
            rows = conn.execute("SELECT seq FROM mutes WHERE seq > ? ORDER BY seq", (seen,))
            found = [row[0] for row in rows]
        assert found == list(range(seen + 1, seen + 1 + len(found)))
        seen += len(found)
        n_polls += 1
        if not alive and not found:
            break
    assert not failed
    assert seen > WRITERS * EVENTS
    assert n_polls > 50


def test_the_next_call_after_connections_were_ended_opens_others(
    database: PostgresDatabase,
) -> None:
    with database.reading() as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
    end_connections(database)
    time.sleep(0.1)
    with database.transaction() as conn:
        assert advance_clock(conn) == 1


def test_a_transaction_whose_connection_ends_is_a_clear_error_and_leaves_nothing(
    database: PostgresDatabase,
) -> None:
    with pytest.raises(UnreachableError, match="cannot be reached"), database.transaction() as conn:
        advance_clock(conn)
        end_connections(database)
    with database.transaction() as conn:  # the lock is free again
        assert advance_clock(conn) == 1


def test_a_server_that_is_not_there_is_named_and_no_folder_is_left(tmp_path: Path) -> None:
    server_url()
    url = f"postgresql://nobody@/kb?host={tmp_path}"
    with pytest.raises(UnreachableError, match="cannot be reached"):
        Flywheel.open(url, cache=tmp_path / "kb", encoder=WordEncoder())
    assert list(tmp_path.iterdir()) == []


def test_one_process_refreshes_at_a_time_whatever_folder_it_has(
    database: PostgresDatabase, tmp_path: Path
) -> None:
    roots = [tmp_path / name for name in ("one", "two")]
    for root in roots:
        root.mkdir()
    for _ in range(50):  # it is free again as soon as the block is left
        with refresh_lock(roots[0], database):
            pass
    with refresh_lock(roots[0], database):
        with pytest.raises(LockedError), refresh_lock(roots[1], database):
            raise AssertionError
        end_connections(database)  # as when the machine of the holder dies
        time.sleep(0.1)
        with refresh_lock(roots[1], database):
            pass


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("postgresql://ann@db/kb?schema=Two words", "the schema is 'Two words'"),
        ("postgresql://ann@db/kb?schema=pg_kb", "the schema is 'pg_kb'"),
        ("postgresql://ann@db/kb?schema=", "the schema is ''"),
        ("postgresql://[ann@db/kb", "cannot be read"),
    ],
)
def test_a_bad_schema_is_refused(url: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        Address.of(url)


@pytest.mark.parametrize(
    "url", ["postgresql://ann:s3cret@db/kb", "postgres://ann@db/kb?password=s3cret&sslmode=require"]
)
def test_a_password_in_the_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(InputError, match="PGPASSWORD") as refused:
        Address.of(url)
    assert "s3cret" not in str(refused.value)


def test_an_address_without_a_schema_has_one() -> None:
    address = Address.of("postgres://ann@db:5433/kb?sslmode=require")
    assert address.url == "postgresql://ann@db:5433/kb?sslmode=require&schema=flywheel"
    assert address.conninfo.startswith(
        "postgresql://ann@db:5433/kb?sslmode=require&connect_timeout=10&"
    )
    assert Address.of(address.url) == address


def test_options_of_the_url_are_kept_as_libpq_reads_them() -> None:
    url = "postgresql://ann@one,two:5433/kb?connect_timeout=3&options=-c%20geqo%3Doff&host=/a+b&schema=x"
    address = Address.of(url)
    assert "options=-c%20geqo%3Doff&host=/a%2Bb" in address.url
    assert address.conninfo.count("connect_timeout") == 1
    psycopg = pytest.importorskip("psycopg", reason="needs the extra postgres")
    read = psycopg.conninfo.conninfo_to_dict(address.conninfo)
    assert (read["options"], read["host"], read["connect_timeout"]) == ("-c geqo=off", "/a+b", "3")


def test_a_url_and_its_cache_belong_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected cache=FOLDER"):
        Flywheel.open("postgresql://ann@db/kb")
    with pytest.raises(InputError, match="expected cache= only with the URL"):
        Flywheel.open(tmp_path / "kb", cache=tmp_path)


def test_the_folder_knows_its_store_and_no_other_folder_or_store_takes_its_place(
    tmp_path: Path,
) -> None:
    url, root = url_of("known"), tmp_path / "kb"
    with Flywheel.open(url, cache=root, encoder=WordEncoder()) as fw:
        fw.add(PASSAGES[:5])
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        assert fw.status().n_passages == 5
    with pytest.raises(StorageError, match="lie in another folder"):
        Flywheel.open(url, cache=tmp_path / "other", encoder=WordEncoder())
    with pytest.raises(InputError, match="holds the versions of the index at"):
        Flywheel.open(url_of("unknown"), cache=root, encoder=WordEncoder())
    with Flywheel.open(tmp_path / "lite", encoder=WordEncoder()) as fw:
        fw.add(PASSAGES[:5])
    with pytest.raises(InputError, match="holds an index in SQLite"):
        Flywheel.open(url_of("unknown"), cache=tmp_path / "lite", encoder=WordEncoder())


def test_text_that_it_cannot_store_is_refused_and_the_next_call_goes_on(tmp_path: Path) -> None:
    with Flywheel.open(url_of("nul"), cache=tmp_path / "kb", encoder=WordEncoder()) as fw:
        with pytest.raises(InputError, match="without NUL"):
            fw.add([Passage("a", "one\0two")])
        assert fw.add(PASSAGES[:2]).added == 2


def test_a_reader_alone_writes_nothing(tmp_path: Path) -> None:
    url, root = url_of("readers"), tmp_path / "kb"
    with Flywheel.open(url, cache=root, encoder=WordEncoder()) as fw:
        fw.add(PASSAGES)
        fw.refresh()
    with Flywheel.open(root, encoder=WordEncoder(), read_only=True) as fw:
        assert fw.retrieve(QUERY, k=3).id is None
        with pytest.raises(ReadOnlyError):
            fw.add(PASSAGES)
    database = PostgresDatabase(Address.of(url), root, read_only=True)
    with closing(database), pytest.raises(ReadOnlyError), database.reading() as conn:
        conn.execute("UPDATE clock SET seq = 1000")


def test_another_schema_of_the_database_is_another_index(tmp_path: Path) -> None:
    found = []
    for schema, n in (("left", 3), ("right", 4)):
        with Flywheel.open(url_of(schema), cache=tmp_path / schema, encoder=WordEncoder()) as fw:
            fw.add(PASSAGES[:n])
            found.append(fw.status().n_passages)
    assert found == [3, 4]


def test_each_transaction_is_as_durable_as_it_asks_for(database: PostgresDatabase) -> None:
    stored: dict[bool, list[bool]] = {True: [], False: []}
    for n in range(40):
        durable = n % 2 == 0
        with database.transaction(durable=durable) as conn:
            advance_clock(conn)
            (until,) = conn.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
        with database.reading() as conn:
            sql = "SELECT pg_current_wal_flush_lsn() >= ?::pg_lsn"
            stored[durable] += conn.execute(sql, (until,)).fetchone()
    assert all(stored[True])
    assert not all(stored[False])


def test_busy_says_so_and_takes_no_longer_than_was_asked_for(database: PostgresDatabase) -> None:
    other = PostgresDatabase(database.address, database.path.parent)
    began = time.monotonic()
    with closing(other), database.transaction():
        with pytest.raises(BusyError, match="being written to"), other.transaction(wait_s=0.2):
            raise AssertionError
        assert time.monotonic() - began < 2
    with database.transaction() as conn:
        assert advance_clock(conn) == 1


@pytest.mark.parametrize(
    ("lite", "server"),
    [
        ("SELECT b IS ? AND c IS NOT NULL", "SELECT b IS NOT DISTINCT FROM %s AND c IS NOT NULL"),
        ("SELECT '?' || :name, x IS NOT y", "SELECT '?' || %(name)s, x IS DISTINCT FROM y"),
        ("SELECT a WHERE b LIKE 'a%' AND c = 5 % 2", "SELECT a WHERE b LIKE 'a%%' AND c = 5 %% 2"),
        ("SELECT a FROM t INDEXED BY t_a LIMIT -1 OFFSET ?", "SELECT a FROM t  LIMIT ALL OFFSET %s"),
        ("CREATE TABLE t (a INTEGER REFERENCES u) WITHOUT ROWID", "CREATE TABLE t (a BIGINT)"),
        ("CREATE TABLE t (b TEXT)", 'CREATE TABLE t (b TEXT COLLATE "C")'),
        ("ALTER TABLE t ADD COLUMN c BLOB, d REAL", "ALTER TABLE t ADD COLUMN c BYTEA, d DOUBLE PRECISION"),
    ],
)  # fmt: skip
def test_statements_are_translated(lite: str, server: str) -> None:
    assert translated(lite) == server


@pytest.fixture
def stranger() -> Iterator[str]:
    """The URL of the database for a user who may do nothing there."""
    psycopg = pytest.importorskip("psycopg")
    with closing(psycopg.connect(server_url(), autocommit=True)) as conn:
        conn.execute("DROP ROLE IF EXISTS stranger")
        conn.execute("CREATE ROLE stranger LOGIN")
        path, at, query = server_url().partition("?")
        yield f"{path}?{query}{'&' if at else ''}user=stranger"
        conn.execute("DROP ROLE stranger")


def test_a_user_who_may_not_make_the_schema_is_told_who_may(stranger: str, tmp_path: Path) -> None:
    url = f"{stranger}&schema=of_a_stranger"
    says = "CREATE SCHEMA of_a_stranger AUTHORIZATION"
    with pytest.raises(ReadOnlyError, match=says):
        Flywheel.open(url, cache=tmp_path / "kb", encoder=WordEncoder())


def test_a_server_that_lets_nobody_in_is_told_from_one_that_is_gone(tmp_path: Path) -> None:
    head, at, query = server_url().partition("?")
    url = f"{head.rpartition('/')[0]}/nowhere{at}{query}"
    with pytest.raises(UnreachableError, match=r"refuses the connection .*see the user and the"):
        Flywheel.open(url, cache=tmp_path / "kb", encoder=WordEncoder())
