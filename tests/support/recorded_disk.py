"""What a program asks of the disk, in its order: syncs, renames, deletions, and commits of SQLite.

A cut of power loses what was not synced; killing a process does not show it, since the system goes on.
"""

import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FULL, ON = 2, 1  # as SQLite says them
_WRITE = re.compile(r"(?:INSERT(?: OR \w+)? INTO|UPDATE|DELETE FROM) (\w+)")
_Key = tuple[int, int]


@dataclass(frozen=True)
class Event:
    """One call.

    kind: "rename", "delete", "commit" or "copy".
    place: the new name, the deleted name, or the database; old: the name before.
    unsynced: what is in the renamed thing that changed since it was last synced.
    pending: folders whose entries changed, by renames and deletions, since they were last synced.
    tables: what a commit wrote to; pragmas: synchronous and secure_delete, as they were in force.
    """

    kind: str
    place: Path
    old: Path | None = None
    unsynced: tuple[str, ...] = ()
    pending: frozenset[Path] = frozenset()
    tables: frozenset[str] = frozenset()
    pragmas: tuple[int, int] = (-1, -1)


@dataclass
class Disk:
    """What happened below a folder."""

    top: Path
    events: list[Event] = field(default_factory=list)
    _synced: dict[_Key, tuple[int, int]] = field(default_factory=dict)
    _pending: dict[_Key, Path] = field(default_factory=dict)

    def pending(self) -> frozenset[Path]:
        """Folders that are there whose entries are not synced."""
        return frozenset(path for path in self._pending.values() if path.exists())

    def renames(self) -> list[Event]:
        return [e for e in self.events if e.kind == "rename"]

    def commits(self, table: str | None = None) -> list[Event]:
        """Those that wrote to a table; None: to any."""
        found = [e for e in self.events if e.kind == "commit" and e.tables]
        return [e for e in found if table is None or table in e.tables]

    def synced(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        key = found.st_dev, found.st_ino
        self._synced[key] = found.st_size, found.st_mtime_ns
        self._pending.pop(key, None)

    def changed(self, folder: Path) -> None:
        if self.top in (folder, *folder.parents) and folder.exists():
            found = folder.stat()
            self._pending[found.st_dev, found.st_ino] = folder

    def unsynced(self, path: Path) -> tuple[str, ...]:
        every = [path, *(path.rglob("*") if path.is_dir() else [])]
        return tuple(str(p.relative_to(path.parent)) for p in every if not self._is_synced(p))

    def _is_synced(self, path: Path) -> bool:
        found = path.lstat()
        return self._synced.get((found.st_dev, found.st_ino)) == (found.st_size, found.st_mtime_ns)


def _absolute(name: Any, descriptor: int | None) -> Path:
    where = Path.cwd() if descriptor is None else Path(f"/proc/self/fd/{descriptor}").readlink()
    return where / os.fsdecode(name)


@contextmanager
def recorded(top: Path, patch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Record what is done below a folder in the block, by this process."""
    disk = Disk(top.resolve())
    with patch.context() as patched:
        _record_calls(disk, patched)
        _record_commits(disk, patched)
        yield disk


def _record_calls(disk: Disk, patched: pytest.MonkeyPatch) -> None:
    fsync, mkdir = os.fsync, os.mkdir

    def recorded_fsync(descriptor: int) -> None:
        fsync(descriptor)
        disk.synced(descriptor)

    def recorded_mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        mkdir(path, mode, dir_fd=dir_fd)
        disk.changed(_absolute(path, dir_fd).parent)

    def renaming(call: Callable[..., None]) -> Callable[..., None]:
        def recorded_rename(
            src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
        ) -> None:
            old, new = _absolute(src, src_dir_fd), _absolute(dst, dst_dir_fd)
            if disk.top in new.parents:
                what = disk.unsynced(old)
                disk.events.append(Event("rename", new, old, what, disk.pending()))
            call(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            disk.changed(old.parent)
            disk.changed(new.parent)

        return recorded_rename

    def deleting(call: Callable[..., None]) -> Callable[..., None]:
        def recorded_delete(path: Any, *, dir_fd: int | None = None) -> None:
            place = _absolute(path, dir_fd)
            call(path, dir_fd=dir_fd)
            if disk.top in place.parents:
                disk.events.append(Event("delete", place))
            if not place.name.startswith("."):  # of a temporary file, which the next call deletes
                disk.changed(place.parent)

        return recorded_delete

    patched.setattr(os, "fsync", recorded_fsync)
    patched.setattr(os, "mkdir", recorded_mkdir)
    for name in ("rename", "replace"):
        patched.setattr(os, name, renaming(getattr(os, name)))
    for name in ("unlink", "remove", "rmdir"):
        patched.setattr(os, name, deleting(getattr(os, name)))


def _record_commits(disk: Disk, patched: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    class Recorded(sqlite3.Connection):
        """Says at each commit what it wrote, and under which pragmas."""

        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            super().execute("PRAGMA secure_delete=OFF")  # some builds of SQLite begin with ON
            self.tables: set[str] = set()
            self.set_trace_callback(self._traced)

        def _traced(self, sql: str) -> None:
            if found := _WRITE.match(sql):
                self.tables.add(found[1])

        def pragma(self, name: str) -> int:
            return int(super().execute(f"PRAGMA {name}").fetchone()[0])

        def file(self) -> Path:
            return Path(super().execute("PRAGMA database_list").fetchone()[2])

        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if sql == "BEGIN IMMEDIATE":
                self.tables.clear()
            if sql != "COMMIT":
                return super().execute(sql, *values)
            in_force = self.pragma("synchronous"), self.pragma("secure_delete")
            done = super().execute(sql, *values)
            tables, file = frozenset(self.tables), self.file()
            if disk.top in file.parents:  # not one in memory
                disk.events.append(Event("commit", file, tables=tables, pragmas=in_force))
            return done

        def backup(self, target: sqlite3.Connection, **more: Any) -> None:
            super().backup(target, **more)
            if isinstance(target, Recorded):
                in_force = target.pragma("synchronous"), target.pragma("secure_delete")
                disk.events.append(Event("copy", target.file(), pragmas=in_force))

    def recorded_connect(*arguments: Any, **more: Any) -> sqlite3.Connection:
        return connect(*arguments, **{"factory": Recorded, **more})

    patched.setattr(sqlite3, "connect", recorded_connect)


@contextmanager
def without(patch: pytest.MonkeyPatch, *statements: str) -> Iterator[None]:
    """In the block, SQLite is not told these statements."""
    connect = sqlite3.connect

    class Without(sqlite3.Connection):
        """Answers 0 to those statements."""

        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            super().execute("PRAGMA secure_delete=OFF")  # some builds of SQLite begin with ON

        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            return super().execute("SELECT 0" if sql in statements else sql, *values)

    with patch.context() as patched:
        patched.setattr(
            sqlite3, "connect", lambda *a, **more: connect(*a, **{"factory": Without, **more})
        )
        yield
