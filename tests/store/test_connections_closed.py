"""No connection stays open when what opened it fails, at whichever statement and with whichever error."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from rag_flywheel import Flywheel, InputError, restore

ERRORS: dict[str, Callable[[], BaseException]] = {
    "sqlite": lambda: sqlite3.OperationalError("disk I/O error"),
    "message": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "memory": MemoryError,
    "ctrl-c": KeyboardInterrupt,
}


class Connections:
    """Every connection made since, and at which of their statements to fail."""

    def __init__(self) -> None:
        self.made: list[sqlite3.Connection] = []
        self.left = -1
        self.error: Callable[[], BaseException] = KeyboardInterrupt

    def count(self) -> None:
        """Called before each statement."""
        self.left -= 1
        if self.left == 0:
            raise self.error()

    def open(self) -> list[sqlite3.Connection]:
        """Those that nobody closed; they are held here, so that being dropped does not count."""
        return [conn for conn in self.made if _is_open(conn)]


def _is_open(conn: sqlite3.Connection) -> bool:
    try:
        conn.total_changes  # noqa: B018 - no statement
    except sqlite3.ProgrammingError:
        return False
    return True


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    watched, connect = Connections(), sqlite3.connect

    class Watched(sqlite3.Connection):
        def execute(self, *given: Any) -> sqlite3.Cursor:
            watched.count()
            return super().execute(*given)

    def made(*given: Any, **options: Any) -> sqlite3.Connection:
        watched.made.append(connect(*given, factory=Watched, **options))
        return watched.made[-1]

    monkeypatch.setattr(sqlite3, "connect", made)
    return watched


def fails_everywhere(connections: Connections, call: Callable[[], object], *, step: int = 1) -> int:
    """Let a call fail at its first statement, one later, and so on until it ends; returns the last.

    step: how many statements later to fail each time.
    """
    for at in range(1, 5_000, step):
        connections.made.clear()
        connections.left = at
        try:
            call()
        except (
            Exception,
            KeyboardInterrupt,
        ) as error:  # held, and with it all that it went through
            assert not connections.open(), (at, error)
        assert not connections.open(), at
        if connections.left > 0:
            return at
    raise AssertionError("it never ended")


@pytest.mark.parametrize("kind", ERRORS)
def test_an_index_that_cannot_be_opened(folder: Path, connections: Connections, kind: str) -> None:
    connections.error = ERRORS[kind]
    assert fails_everywhere(connections, lambda: opened(folder).close()) > 20


def test_a_new_index_that_cannot_be_made(tmp_path: Path, connections: Connections) -> None:
    names = iter(range(10_000))
    assert fails_everywhere(
        connections, lambda: opened(tmp_path / str(next(names))).close(), step=7
    )


def test_a_backup_and_a_restore_that_fail(
    folder: Path, tmp_path: Path, connections: Connections
) -> None:
    with opened(folder) as fw:
        fw.backup(tmp_path / "saved")
    names = iter(range(10_000))

    def again() -> None:
        with opened(folder) as fw:
            fw.backup(tmp_path / "saved")

    def restored() -> None:
        restore(tmp_path / "saved", tmp_path / str(next(names)))

    assert fails_everywhere(connections, again, step=3) > 20
    assert fails_everywhere(connections, restored, step=3) > 20
    connections.error = ERRORS["sqlite"]
    assert fails_everywhere(connections, lambda: restore(tmp_path / "saved", folder), step=3) > 20


def test_an_index_whose_class_cannot_be_made(folder: Path, connections: Connections) -> None:
    class Refusing(Flywheel):
        def __init__(self, *_: object) -> None:
            raise InputError("refused")

    with pytest.raises(InputError, match="refused") as held:
        Refusing.open(folder, encoder=WordEncoder())
    assert connections.made and not connections.open(), held  # and with it the database


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder())
