"""Nothing is left in the bytes of the database and its log: by several safeguards, each of which is
needed, or enough without another, and without which the bytes are there.

The index stays open: SQLite empties the log when the last program closes the database.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.config import config_text
from rag_flywheel.errors import DiskFullError
from rag_flywheel.store import wall_clock
from rag_flywheel.store.sqlite import SqliteDatabase
from recorded_disk import without

SECURE_DELETE, VACUUM = "PRAGMA secure_delete=ON", "VACUUM"
EMPTY_LOG = "PRAGMA wal_checkpoint(TRUNCATE)"
SECRET = b"zebrafish4711"
N = 40


def opened(root: Path) -> Flywheel:
    config = Config(encoder="", retention_days=30)
    return Flywheel.open(root, encoder=WordEncoder(), config=config)


def used(fw: Flywheel) -> None:
    """One user's texts, so long that they lie in pages of their own, between those of another."""
    fw.add([Passage("reset", "press reset for a password"), Passage("cats", "cats sleep")])
    for n in range(N):
        for user in ("ann", "bob"):
            word = SECRET.decode() if user == "ann" else "ordinary"
            found = fw.retrieve(f"reset {n} {word}", user_id=user)
            fw.answer(str(found.id), f"{word} " * (20 * (n % 10) + 1))
            fw.feedback(found.id, "reset", "helpful", user_id=user, reason=f"{word} " * 30)
            if n % 4 == 0:
                fw.adopted(found.id, used=True, why=f"{word} said why", user_id=user)


def seen(root: Path) -> bool:
    """Whether the bytes are in any file of the index."""
    return any(SECRET in p.read_bytes() for p in root.rglob("*") if p.is_file())


def in_free_pages(root: Path) -> int:
    with closing(sqlite3.connect(root / "flywheel.db")) as conn:
        return int(conn.execute("PRAGMA freelist_count").fetchone()[0])


def grow_old(root: Path) -> None:
    with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
        conn.execute("PRAGMA secure_delete=ON")
        for table in ("retrievals", "votes", "answer_votes"):
            conn.execute(f"UPDATE {table} SET at = at - 31 * 86400")


@pytest.mark.parametrize(
    ("off", "left"),
    [
        ((), False),
        ((SECURE_DELETE,), False),
        ((SECURE_DELETE, VACUUM), True),
        ((EMPTY_LOG,), True),
    ],
    ids=str,
)
def test_of_a_forgotten_past_nothing_is_left_while_the_index_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: tuple[str, ...], left: bool
) -> None:
    root = tmp_path / "kb"
    with without(monkeypatch, *off), opened(root) as fw, opened(root) as other:
        used(fw)
        other.retrieve("reset", record=False)
        with fw._database.transaction() as conn:  # questions nobody voted on
            conn.execute("DELETE FROM votes")
            conn.execute("DELETE FROM credits")
            conn.execute("DELETE FROM answer_votes")
        grow_old(root)
        assert seen(root)
        assert fw.refresh().outcome == "promoted"
        assert fw.status().n_retrievals == 0
        assert seen(root) == left


def test_what_stands_says_no_longer_why(tmp_path: Path) -> None:
    """Questions with votes stay; answers, reasons, and why an answer was used go."""
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add([Passage("reset", "press reset for a password"), Passage("cats", "cats sleep")])
        for n in range(N):
            found = fw.retrieve(f"reset {n}", user_id="ann")
            fw.answer(str(found.id), f"press {SECRET.decode()}")
            fw.feedback(found.id, "reset", "helpful", user_id="ann", reason=SECRET.decode())
            fw.adopted(found.id, used=bool(n % 2), why=f"as {SECRET.decode()} said", user_id="bob")
        fw.refresh()
        grow_old(root)
        with fw._database.reading() as conn:
            (why,) = conn.execute("SELECT DISTINCT why FROM answer_votes").fetchall()
        assert why == (f"as {SECRET.decode()} said",)
        fw.refresh()
        assert not seen(root)
        assert (fw.status().n_retrievals, fw.verify()) == (N, [])
        with fw._database.reading() as conn:
            kept = conn.execute("SELECT kind, why FROM answer_votes").fetchall()
    assert kept == [("adopted", None)] * N


@pytest.mark.parametrize(
    ("off", "left"),
    [
        ((), False),
        ((SECURE_DELETE,), False),
        ((SECURE_DELETE, VACUUM), True),
        ((EMPTY_LOG,), True),
    ],
    ids=str,
)
def test_of_a_forgotten_user_nothing_is_left_while_the_index_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: tuple[str, ...], left: bool
) -> None:
    root = tmp_path / "kb"
    with without(monkeypatch, *off), opened(root) as fw, opened(root) as other:
        used(fw)
        other.retrieve("reset", record=False)
        assert fw.refresh().outcome == "promoted"
        assert seen(root)
        fw.forget("ann")
        assert seen(root) == left
        assert fw.status().n_retrievals == N
        if not off:
            assert in_free_pages(root) == 0


def test_what_a_reader_keeps_in_the_log_goes_with_the_next_refresh(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_flywheel.refresh.refresh._WAIT_S", 0.0)
    root = tmp_path / "kb"
    with opened(root) as fw:
        used(fw)
        fw.refresh()
        grow_old(root)
        with closing(sqlite3.connect(root / "flywheel.db")) as conn:
            conn.execute("BEGIN")
            conn.execute("SELECT count(*) FROM votes").fetchone()
            assert fw.refresh().outcome == "unchanged"
            assert "may still hold what was folded" in caplog.text
            assert SECRET in (root / "flywheel.db-wal").read_bytes()
        assert fw.refresh().outcome == "unchanged"
        assert (root / "flywheel.db-wal").stat().st_size == 0


def left_in(folder: Path, how: str, seed: int) -> bool:
    """Whether the bytes are left of a history whose rows SQLite moved between pages as they grew."""
    random = np.random.default_rng(seed)
    root = folder / f"{how}-{seed}"
    with opened(root) as fw, opened(root) as other:
        fw.add([Passage("reset", "press reset for a password"), Passage("cats", "cats sleep")])
        found = list[tuple[str, str]]()
        for n in range(60):
            user = ["ann", "bob"][random.integers(2)]
            word = SECRET.decode() if user == "ann" else "ordinary"
            query = f"reset {n} " + f"{word} " * random.integers(1, 60)
            found.append((str(fw.retrieve(query, user_id=user).id), word))
        for i in random.permutation(len(found)):
            fw.answer(found[i][0], f"{found[i][1]} " * random.integers(1, 250))
        for id_, word in found:
            if word == "ordinary":  # these questions stay
                fw.feedback(id_, "reset", "helpful")
        fw.refresh()
        other.retrieve("reset", record=False)
        assert seen(root)
        if how == "forgotten":
            fw.forget("ann")
        else:
            grow_old(root)
            fw.refresh()
        assert 0 < fw.status().n_retrievals < 60
        return seen(root)


@pytest.mark.parametrize("how", ["forgotten", "old"])
def test_nothing_is_left_wherever_rows_lay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    assert not any(left_in(tmp_path, how, seed) for seed in range(4))
    with without(monkeypatch, VACUUM):  # overwriting what is deleted is not enough
        assert any(left_in(tmp_path / "without", how, seed) for seed in range(30))


def test_what_one_refresh_could_not_wipe_the_next_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> bool:
        raise DiskFullError("no space to write the file anew")

    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add([Passage("reset", "press reset for a password")])
        for n in range(N):
            fw.retrieve(f"reset {SECRET.decode()} {n}")
        fw.refresh()
        grow_old(root)
        with monkeypatch.context() as patch:
            patch.setattr(SqliteDatabase, "compact", full)
            assert fw.refresh().outcome == "unchanged"
            assert fw.refresh().outcome == "unchanged"
        said = "what was folded is in unused bytes until the next refresh: no space"
        assert [said in r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
            True
        ] * 2
        compacted = list[int]()
        compact = SqliteDatabase.compact
        monkeypatch.setattr(
            SqliteDatabase, "compact", lambda self, **kw: compacted.append(1) or compact(self, **kw)
        )
        fw.refresh()
        fw.refresh()
        assert compacted == [1]
        assert not seen(root)


def test_what_is_old_is_folded_once_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the file is not written anew by each of a day's refreshes."""
    noon = 1_800_000_000 // 86_400 * 86_400 + 43_200
    now = [float(noon)]
    monkeypatch.setattr(wall_clock, "now", lambda: now[0])
    left = list[int]()
    with opened(tmp_path / "kb") as fw:
        fw.add([Passage("reset", "press reset for a password")])
        for hour in range(24):
            now[0] = noon + 3_600.0 * hour
            fw.retrieve(f"reset {hour}")
        for hour in range(0, 49, 6):
            now[0] = noon + 30 * 86_400 + 3_600.0 * hour
            fw.refresh()
            left.append(fw.status().n_retrievals)
    assert left == [24, 24, 12, 12, 12, 12, 0, 0, 0]


@pytest.mark.parametrize("settings", [{"retention_days": 30}, {"store_queries": "hash"}], ids=str)
def test_while_a_reader_stays_the_file_is_written_anew_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """Each time puts the whole file into the log, which cannot be emptied meanwhile."""
    for module in ("refresh.refresh", "privacy.question_texts"):
        monkeypatch.setattr(f"rag_flywheel.{module}._WAIT_S", 0.0)
    root, written = tmp_path / "kb", list[int]()
    with opened(root) as fw:
        fw.add([Passage("reset", "press reset for a password")])
        for n in range(N):
            fw.retrieve(f"reset {SECRET.decode()} {n}")
        fw.refresh()
    grow_old(root)
    (root / "flywheel.toml").write_text(config_text(Config(encoder="", **settings)))
    compact = SqliteDatabase.compact
    monkeypatch.setattr(
        SqliteDatabase, "compact", lambda self, **kw: written.append(1) or compact(self, **kw)
    )
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        with closing(sqlite3.connect(root / "flywheel.db")) as conn:
            conn.execute("BEGIN")
            conn.execute("SELECT count(*) FROM votes").fetchone()
            for _ in range(3):
                fw.refresh()
            assert seen(root)
        fw.refresh()
        assert (written, seen(root)) == ([1], False)
