"""The copy of the texts of an index on a server: what it saves, and that it never says anything else."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fakes import WordEncoder
from folders import PASSAGES, QUERY
from on_postgres import url_of
from rag_flywheel import Flywheel, Passage, restore
from rag_flywheel.store.place import open_database
from rag_flywheel.store.postgres import PostgresDatabase, _Pause
from rag_flywheel.store.text_copy import FILE_NAME, TextCopy
from rag_flywheel.store.timeline import Moment, begin_timeline, is_of, read_moment


@pytest.fixture
def fw(tmp_path: Path) -> Iterator[Flywheel]:
    """An index on a server with a version, asked once."""
    with Flywheel.open(url_of("texts"), cache=tmp_path / "kb", encoder=WordEncoder()) as fw:
        fw.add(PASSAGES)
        fw.refresh()
        fw.retrieve(QUERY, record=False)
        yield fw


def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each exchange with the server from now on."""
    import psycopg

    waited, wait = list[int](), psycopg.Connection.wait
    monkeypatch.setattr(
        psycopg.Connection, "wait", lambda *a, **b: (waited.append(1), wait(*a, **b))[1]
    )
    return waited


def test_a_question_takes_one_exchange_and_a_recorded_one_five(
    fw: Flywheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fw.retrieve(QUERY, user_id="ann")
    counted = exchanges(monkeypatch)
    fw.retrieve(f"{QUERY} word4", k=8, record=False)
    assert len(counted) == 1
    fw.retrieve(f"{QUERY} word5", k=8, user_id="ann")
    assert len(counted) == 6
    where = {"lang": {"exists": False}}
    fw.retrieve(f"{QUERY} word6", k=8, where=where, record=False)
    assert len(counted) == 7


def texts(fw: Flywheel, k: int = 50) -> dict[str, tuple[str, object]]:
    found = fw.retrieve(QUERY, k=k, record=False)
    return {hit.passage_id: (hit.text, hit.metadata) for hit in found.hits}


def test_it_follows_what_others_change_and_keeps_no_word_of_what_is_gone(
    fw: Flywheel, tmp_path: Path
) -> None:
    root = tmp_path / "kb"
    with Flywheel.open(root, encoder=WordEncoder()) as other:
        assert texts(other) == texts(fw)
        other.add([Passage("more", f"{QUERY} xylophone", metadata={"n": 1})])
        assert texts(fw)["more"] == (f"{QUERY} xylophone", {"n": 1})
        other.add([Passage("more", f"{QUERY} xylophone", metadata={"n": 2})])  # in its place
        assert texts(fw)["more"] == (f"{QUERY} xylophone", {"n": 2})
        found = fw.retrieve(QUERY, k=50, where={"n": 2}, record=False)
        assert [hit.passage_id for hit in found.hits] == ["more"]
        other.add([Passage("more", f"{QUERY} zither")])
        assert texts(fw)["more"] == (f"{QUERY} zither", {})
        other.add([], remove=["more"])
        assert "more" not in texts(fw)
    held = b"".join(path.read_bytes() for path in root.glob(f"{FILE_NAME}*"))
    assert b"xylophone" not in held and b"zither" not in held
    assert PASSAGES[0].text.encode() in held


def test_one_that_is_damaged_or_of_another_state_is_made_anew(fw: Flywheel, tmp_path: Path) -> None:
    root, expected = tmp_path / "kb", texts(fw)
    for content in (b"no database", b"", None):
        for beside in ("-wal", "-shm"):
            (root / f"{FILE_NAME}{beside}").unlink(missing_ok=True)
        (root / FILE_NAME).unlink()
        if content is not None:
            (root / FILE_NAME).write_bytes(content)
        with Flywheel.open(root, encoder=WordEncoder()) as other:
            assert texts(other) == expected
        assert PASSAGES[0].text.encode() in b"".join(
            p.read_bytes() for p in root.glob(f"{FILE_NAME}*")
        )
    fw.backup(tmp_path / "saved")
    fw.add([Passage("later", QUERY)])
    assert "later" in texts(fw)
    restore(tmp_path / "saved", root)
    assert texts(fw) == expected
    assert fw.verify() == []
    fw.add([Passage("later", f"{QUERY} again")])
    assert texts(fw)["later"] == (f"{QUERY} again", {})


def test_where_none_can_be_written_texts_come_from_the_server(
    fw: Flywheel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, expected = tmp_path / "kb", texts(fw)
    for beside in ("", "-wal", "-shm"):
        (root / f"{FILE_NAME}{beside}").unlink(missing_ok=True)
    (root / FILE_NAME).mkdir()
    with Flywheel.open(root, encoder=WordEncoder()) as other:
        assert texts(other) == expected
        fw.add([Passage("more", QUERY)])
        assert "more" in texts(other)
    assert caplog.text.count("texts are read from the server") == 1


def test_processes_that_follow_at_once_end_with_the_same(fw: Flywheel, tmp_path: Path) -> None:
    database = open_database(tmp_path / "kb")
    copies = [TextCopy(tmp_path / "shared.db") for _ in range(4)]
    failed = list[BaseException]()

    def follow(copy: TextCopy) -> None:
        try:
            for _ in range(20):
                with database.snapshot() as conn:
                    assert copy.follow(conn)
                    now = read_moment(conn)
                with copy.reading(now) as held:
                    assert held is not None
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=follow, args=(copy,)) for copy in copies]
    for thread in threads:
        thread.start()
    for n in range(10):
        fw.add([Passage(f"n{n}", f"{QUERY} n{n}")], remove=[f"n{n - 1}"] if n else [])
    for thread in threads:
        thread.join()
    assert failed == []
    with closing(database), database.snapshot() as conn:
        copies[0].follow(conn)
        sql = "SELECT pid, text FROM passages WHERE ended IS NULL ORDER BY pid"
        expected = conn.execute(sql).fetchall()
        with copies[1].reading(read_moment(conn)) as held:
            assert held is not None
            assert held.execute(sql).fetchall() == expected
        with copies[1].reading(Moment("another", 0)) as held:
            assert held is None
    for copy in copies:
        copy.close()


def test_after_a_crash_events_up_to_the_newest_are_what_they_were(
    fw: Flywheel, tmp_path: Path
) -> None:
    with closing(open_database(tmp_path / "kb")) as database, database.transaction() as conn:
        before = read_moment(conn)
        begin_timeline(conn, goes_on=True)
        assert is_of(conn, before)
        assert is_of(conn, before._replace(seq=before.seq - 1))
        assert not is_of(conn, before._replace(seq=before.seq + 1))
        assert not is_of(conn, Moment("another", 0))
        begin_timeline(conn)  # a backup is restored
        assert not is_of(conn, before)


def test_who_waits_in_vain_for_a_server_lets_others_not_wait() -> None:
    psycopg = pytest.importorskip("psycopg", reason="needs the extra postgres")
    pause, tried = _Pause(), 0
    with pytest.raises(psycopg.OperationalError, match="first"), pause.attempt():
        time.sleep(0.1)
        raise psycopg.OperationalError("first")
    began = time.monotonic()
    while time.monotonic() < began + 1.0:
        try:
            with pause.attempt():
                tried += 1
                break
        except psycopg.OperationalError as error:
            assert str(error) == "first"
    assert tried == 1
    assert 0.3 < time.monotonic() - began < 0.9  # five times as long as it took
    with pause.attempt():  # nothing is remembered of it
        pass


def test_very_many_rows_come_some_at_a_time(fw: Flywheel, tmp_path: Path) -> None:
    with closing(open_database(tmp_path / "kb")) as database:
        assert isinstance(database, PostgresDatabase)
        sql = "SELECT n FROM generate_series(1, ?) n"
        with database.reading() as conn:
            rows = conn.each(sql, (10,), 4)
            assert next(rows) == (1,)
            assert conn.execute("SELECT 5").fetchone() == (5,)  # in between
            assert [n for (n,) in rows] == list(range(2, 11))
            cut_short = conn.each(sql, (10,), 4)
            assert next(cut_short) == (1,)
            del cut_short
        with database.snapshot() as conn:
            assert sum(n for (n,) in conn.each(sql, (1000,), 7)) == 500_500
            left = "SELECT count(*) FROM pg_cursors WHERE name LIKE 'each%'"
            assert conn.execute(left).fetchone() == (0,)
