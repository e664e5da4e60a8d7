"""Every refresh that fails leaves a trace, in words that quote nothing of what users wrote."""

import errno
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from fakes import Vectors, WordEncoder
from folders import PASSAGES, QUERY, opened
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.cli.app import main
from rag_flywheel.deploy import failure_file
from rag_flywheel.deploy.lock import refresh_lock
from rag_flywheel.errors import (
    ClosedError,
    CorruptFileError,
    DiskFullError,
    EncoderError,
    LockedError,
)
from rag_flywheel.refresh import failures, next_version
from rag_flywheel.refresh import refresh as refreshing
from rag_flywheel.report.health import health
from rag_flywheel.store.database import FILE_NAME

SECRET = "zanzibar secret"
FULL = OSError(errno.ENOSPC, f"{SECRET}")
ERRORS: dict[str, tuple[BaseException, str]] = {
    "disk full": (FULL, "there was no space left on the disk"),
    "our own": (DiskFullError(SECRET), "there was no space left on the disk"),
    "no permission": (PermissionError(errno.EACCES, SECRET), "the folder could not be written to"),
    "damage": (CorruptFileError(SECRET), "a file of the index is damaged"),
    "encoder": (EncoderError(SECRET), "the encoder failed, or returned what cannot be used"),
    "memory": (MemoryError(SECRET), "there was not enough memory"),
    "a bug": (ValueError(SECRET), "an error that was not foreseen, ValueError in "),
    "interrupted": (KeyboardInterrupt(), "it was interrupted"),
}


def texts(root: Path) -> list[str]:
    with opened(root) as fw:
        return [entry.text for entry in fw.history() if entry.kind == "failed"]


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_in_history_status_health_and_log(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    error, words = ERRORS[name]

    def fails(*_: object) -> None:
        raise error

    with opened(folder) as fw:
        fw.retrieve(SECRET)
        fw.add([Passage("n", "new words")])
        with monkeypatch.context() as patch:
            patch.setattr(next_version, "_learn", fails)
            with pytest.raises(BaseException) as raised:
                fw.refresh()
        assert raised.value is error or raised.value.__cause__ is error
        (entry,) = [e for e in fw.history() if e.kind == "failed"]
        assert entry.text.startswith(f"a refresh failed: {words}")
        assert "; to do: " in entry.text
        found = fw.status()
        assert found.health == "degraded"
        assert words in found.problems[0] and "1 refresh failed in a row" in found.problems[0]
        fields = [r for r in caplog.records if getattr(r, "event", "") == "refresh_failed"]
        assert len(fields) == 1 and words in fields[0].getMessage()
        with closing(sqlite3.connect(folder / FILE_NAME)) as conn:
            stored = repr(conn.execute("SELECT * FROM attempts").fetchall())
        assert SECRET not in stored + entry.text + repr(found) + fields[0].getMessage()
        assert fw.refresh().outcome == "promoted"
        assert fw.health().state == "ok"
        assert len([e for e in fw.history() if e.kind == "failed"]) == 1
    assert not (folder / failure_file.NAME).exists()


def test_a_refresh_that_fails_before_it_builds_is_told_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise FULL

    with opened(folder) as fw:
        for n in (1, 2):
            with monkeypatch.context() as patch:
                patch.setattr(refreshing, "read_live", fails)
                with pytest.raises(DiskFullError):
                    fw.refresh()
            assert len([e for e in fw.history() if e.kind == "failed"]) == n
            (found,) = (c for c in fw.health().problems if c.name == "refreshes")
            assert f"{n} refresh" in found.found and "no space left" in found.found
        fw.add([Passage("n", "new words")])
        assert fw.refresh().outcome == "promoted"
        assert fw.health().state == "ok"


class Chatty(WordEncoder):
    """Quotes a text when it fails."""

    fails = False

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        if self.fails:
            raise RuntimeError(f"cannot encode {texts[0]!r}")
        return super().encode_passages(texts)


def test_an_encoder_that_quotes_texts_is_not_quoted(tmp_path: Path) -> None:
    encoder = Chatty()
    with Flywheel.open(tmp_path / "kb", encoder=encoder) as fw:
        fw.add([Passage("a", SECRET)])
        with fw._database.transaction() as conn:
            conn.execute("DELETE FROM vectors")
        encoder.fails = True
        with pytest.raises(RuntimeError, match=r"failed on 1 text \(RuntimeError\)") as caught:
            fw.refresh()
        assert SECRET not in str(caught.value) and SECRET in str(caught.value.__cause__)
        (entry,) = [e for e in fw.history() if e.kind == "failed"]
        assert "the encoder failed" in entry.text and SECRET not in entry.text


def test_an_encoder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(encoder="fakes:word_encoder")
    with Flywheel.open(tmp_path / "kb", config=config) as fw:
        fw.add(PASSAGES[:3])
        with fw._database.transaction() as conn:
            conn.execute("DELETE FROM vectors")
    path = tmp_path / "kb" / "flywheel.toml"
    path.write_text(path.read_text().replace("fakes:word_encoder", "no_such_module:factory"))
    with pytest.raises(SystemExit) as done:
        main(["refresh", "--index", str(tmp_path / "kb")])
    assert done.value.code == 1
    (found,) = [c for c in health(tmp_path / "kb").problems if c.name == "refreshes"]
    assert "the encoder could not be found" in found.found and "flywheel.toml" in found.to_do


def test_a_database_that_cannot_be_written_leaves_it_in_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(folder) as fw:
        fw.add([Passage("n", "new words")])
        with closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as other:

            def fails(*_: object) -> None:
                other.execute("BEGIN IMMEDIATE")
                raise FULL

            monkeypatch.setattr(next_version, "_learn", fails)
            monkeypatch.setattr(failures, "_WAIT_S", 0.1)
            with pytest.raises(DiskFullError):
                fw.refresh()
            other.rollback()
        (noted,) = failure_file.noted_failures(folder)
        assert noted.reason == "there was no space left on the disk" and noted.pid == os.getpid()
        assert any(noted.reason in e.text for e in fw.history() if e.kind == "failed")
        (found,) = [c for c in health(folder).problems if c.name == "refreshes"]
        assert noted.reason in found.found
        monkeypatch.undo()
        assert fw.refresh().outcome == "promoted"
        assert fw.health().state == "ok"


def test_a_refresh_that_cannot_open_the_index_leaves_it_in_the_file(folder: Path) -> None:
    (folder / FILE_NAME).write_bytes(b"no database" * 1000)
    for _ in range(failure_file._KEPT + 3):
        with pytest.raises(SystemExit):
            main(["refresh", "--index", str(folder)])
    noted = failure_file.noted_failures(folder)
    assert len(noted) == failure_file._KEPT
    assert {each.error for each in noted} == {"CorruptFileError"}


@pytest.mark.parametrize("data", [b"", b"\xff\x00\n{}\n[1]\n", b"[" * 100_000, b"x" * 2_000_000])
def test_a_file_that_is_damaged_is_left_out(folder: Path, data: bytes) -> None:
    (folder / failure_file.NAME).write_bytes(data)
    assert failure_file.noted_failures(folder) == []
    assert health(folder).state == "ok"
    assert failure_file.note_failure(folder, failure_file.NotedFailure(1e9, 1, "X", "why", "do"))
    assert len(failure_file.noted_failures(folder)) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
from fakes import WordEncoder
from rag_flywheel import Flywheel, Passage
from rag_flywheel.refresh import next_version
next_version._learn = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with Flywheel.open(sys.argv[1], encoder=WordEncoder()) as fw:
    fw.add([Passage("n", "new words")])
    fw.refresh()
"""


def test_a_killed_refresh_is_told_until_one_succeeds(folder: Path) -> None:
    support = str(Path(__file__).parents[1] / "support")
    env = {**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{support}"}
    for n in (1, 2):
        done = subprocess.run([sys.executable, "-c", KILLED, str(folder)], env=env, check=False)
        assert done.returncode == -signal.SIGKILL
        (found,) = health(folder).problems
        assert (
            f"{n} refresh" in found.found and "it was killed, or the machine stopped" in found.found
        )
    assert len(texts(folder)) == 1  # of the newest one it cannot be told whether it goes on
    with opened(folder) as fw:
        assert fw.history()[0].text == "a refresh began; it goes on, or was killed"
        assert fw.refresh().outcome == "promoted"
        assert fw.health().state == "ok"
    assert len(texts(folder)) == 2
    assert all("it was killed" in text for text in texts(folder))


def test_a_lock_that_is_taken_is_no_failure(folder: Path) -> None:
    with opened(folder) as fw:
        with refresh_lock(folder), pytest.raises(LockedError):
            fw.refresh()
        assert [e for e in fw.history() if e.kind == "failed"] == []
        assert fw.retrieve(QUERY).hits
        assert fw.health().state == "ok"


def test_an_index_that_is_closed_while_it_refreshes_is_no_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(folder) as fw:
        fw.add([Passage("n", "new words")])

        def closes(*_: object) -> None:
            fw._database.close()
            fw._database.empty_log()

        monkeypatch.setattr(next_version, "_learn", closes)
        with pytest.raises(ClosedError):
            fw.refresh()
    assert not (folder / failure_file.NAME).exists()


def test_refreshes_with_nothing_to_do_leave_no_attempt(folder: Path) -> None:
    with opened(folder) as fw:
        fw.refresh()
        with fw._database.reading() as conn:
            before = conn.execute("SELECT count(*) FROM attempts").fetchone()
        assert fw.refresh().outcome == "unchanged"
        with fw._database.reading() as conn:
            assert conn.execute("SELECT count(*) FROM attempts").fetchone() == before
        with (
            pytest.raises(sqlite3.IntegrityError),
            closing(sqlite3.connect(folder / FILE_NAME)) as conn,
        ):
            conn.execute("DELETE FROM attempts")
