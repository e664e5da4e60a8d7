"""Backs up an index while it is used, and reads backups: one state of it, in parts named by their content.

    backup.json      written last, in one step: the files of the index, each with its hash and parts
    parts/SHA256     up to 256 KiB of a file; a part that is there already is not written again

Until backup.json is replaced, the backup before is whole; only then are its other parts deleted.
"""

import dataclasses
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeAlias

from msgspec import Meta

from rag_flywheel import config as settings
from rag_flywheel import disk
from rag_flywheel.deploy.current import current_text, live_of
from rag_flywheel.deploy.manifest import Manifest, parse_manifest
from rag_flywheel.deploy.origin import origin_problems
from rag_flywheel.deploy.versions import (
    CURRENT,
    MANIFEST,
    VERSIONS,
    list_versions,
    read_manifest,
)
from rag_flywheel.disk import disk_errors, exactly, parsed_json, read_bytes, regular_file
from rag_flywheel.errors import (
    CorruptFileError,
    InputError,
    LockedError,
    NewerFormatError,
    StorageError,
    UnknownIdError,
)
from rag_flywheel.records import BackupReport, Current
from rag_flywheel.store import users, wall_clock
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.copies import make_one_file, write_copy
from rag_flywheel.store.database import FILE_NAME as DATABASE
from rag_flywheel.store.database import Database
from rag_flywheel.store.journal import last_live_change
from rag_flywheel.store.sqlite import SqliteDatabase
from rag_flywheel.store.timeline import Moment, read_moment

NAME, PARTS = "backup.json", "parts"
FORMAT_VERSION = 1
_LOCK = "backup.lock"
_PART_BYTES = 2**18
_MOST_BYTES = 2**30  # of backup.json
_TRIES = 20
_Sha256: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Bytes: TypeAlias = Annotated[int, Meta(ge=0, lt=2**50)]
_PART = r"(?!\.)[A-Za-z0-9_.-]{1,100}"
_Name: TypeAlias = Annotated[str, Meta(pattern=rf"\A{_PART}(?:/{_PART}){{0,6}}\Z")]


@dataclass(frozen=True)
class SavedFile:
    """One file of a backup: the hash of its bytes, how many there are, and its parts in order."""

    sha256: _Sha256
    n_bytes: _Bytes
    parts: tuple[_Sha256, ...]


@dataclass(frozen=True)
class Backup:
    """What is in a backup.

    made: seconds since 1970; index: a name of the index, which copies of it share; timeline, seq: the
    state of the database; version: the live one, None: none was; files: by their names in the index
    folder.
    """

    made: float
    index: str
    timeline: str
    seq: Annotated[int, Meta(ge=0, le=2**62)]
    version: str | None
    files: dict[_Name, SavedFile]


def back_up(root: Path, database: Database, dest: str | Path) -> BackupReport:
    """Write the state of the index at this moment into the folder `dest`, which is new, empty, or holds
    an earlier backup of the same index.

    Nothing waits for it and it waits for nothing. Raises InputError, LockedError while another backup
    is written there, CorruptFileError, StorageError.
    """
    if not isinstance(dest, str | Path):
        raise InputError(f"dest is {type(dest).__name__}; expected the name of a folder")
    out = Path(dest).resolve()
    with disk_errors(out):
        with database.reading() as conn:
            index = index_name(conn)
        _require_place(out, root.resolve(), index)
        disk.make_folders(out, 0o700)
        with disk.opened_folder(out, PARTS, create=True):
            pass
        with _locked(out):
            _clean(out)
            return _written(root, database, out, index)


def index_name(conn: Connection) -> str:
    """A name of an index that all copies of it share, and no other index has."""
    return hashlib.blake2b(users.user_key(conn), digest_size=16, person=b"index").hexdigest()


def read_backup(source: Path) -> Backup:
    """What is in the backup at `source`. Raises InputError, CorruptFileError, NewerFormatError."""
    path = source / NAME
    try:
        values = parsed_json(read_bytes(path, most=_MOST_BYTES), NAME, dict[str, Any])
        found = values.pop("format_version", None)
        if type(found) is int and found > FORMAT_VERSION:
            raise NewerFormatError(
                f"{path} has format {found}; this release reads up to {FORMAT_VERSION}. Upgrade "
                "rag-flywheel to restore it"
            )
        if found != FORMAT_VERSION:
            raise ValueError(f"its format_version is {found!r}")
        backup: Backup = exactly(Backup, values)
        _require_names(backup)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{source} holds no backup: it has no {NAME}. Give the folder that `rag-flywheel backup` wrote"
        ) from error
    except ValueError as error:
        raise CorruptFileError(
            f"{path} is no usable list of a backup ({error}); restore another backup"
        ) from error
    return backup


def put_together(source: Path, name: str, saved: SavedFile, target: Path) -> None:
    """Write a file of a backup to `target`, which is new; the caller syncs it. Raises CorruptFileError when a
    part is not what its name says."""
    whole, n_bytes = hashlib.sha256(), 0
    with target.open("xb") as file:
        for part in saved.parts:
            path = source / PARTS / part
            try:
                data = read_bytes(path, most=_PART_BYTES)
            except (OSError, ValueError) as error:
                raise _damaged(path, name, str(error)) from error
            if hashlib.sha256(data).hexdigest() != part:
                raise _damaged(path, name, "its bytes are not those that were written")
            whole.update(data)
            n_bytes += len(data)
            file.write(data)
    if (whole.hexdigest(), n_bytes) != (saved.sha256, saved.n_bytes):
        raise _damaged(source / NAME, name, "its parts do not make the file that was backed up")


def _damaged(path: Path, name: str, why: str) -> CorruptFileError:
    return CorruptFileError(
        f"{path}, a part of {name}, cannot be used ({why}). Nothing was restored; restore another backup"
    )


def _require_names(backup: Backup) -> None:
    """Only files that an index has, so that a restore writes nothing else."""
    below = re.escape(f"{VERSIONS}/{backup.version}/")
    for name in backup.files:
        known = name in {DATABASE, settings.FILE_NAME, CURRENT}
        if not known and (backup.version is None or not re.match(below, name)):
            raise ValueError(f"it lists {name!r}, which is no file of an index")
    if not {DATABASE, settings.FILE_NAME} <= set(backup.files):
        raise ValueError(f"it lists no {DATABASE} or no {settings.FILE_NAME}")


def _require_place(out: Path, root: Path, index: str) -> None:
    if out == root or root in out.parents:
        raise InputError(f"{out} is in the index folder; expected a folder outside it")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; expected the name of a folder")
    if not out.exists():
        return
    if (out / NAME).exists():
        if read_backup(out).index != index:
            raise InputError(f"{out} holds a backup of another index; give another folder")
    elif left := {p.name for p in out.iterdir()} - {PARTS, _LOCK}:
        raise InputError(
            f"{out} is not empty and holds no backup, but {min(left)!r}; give a new folder, or that of an "
            "earlier backup of this index"
        )


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(out / _LOCK, mode=disk.new_file_mode(out))
    try:
        lock.acquire(timeout=0.0)
    except Timeout as error:
        raise LockedError(f"another backup is being written to {out}; wait for it") from error
    try:
        yield
    finally:
        lock.release()


def _clean(out: Path) -> None:
    """Delete what a backup that died left, apart from parts, which the next may use."""
    for place in ("", PARTS):
        for name in disk.names_in(out, place):
            if name.startswith("."):
                disk.delete(out, f"{place}/{name}" if place else name)


@dataclass(frozen=True)
class _State:
    """One state of an index: a copy of its database, and open files of the version that is live in it."""

    moment: Moment
    current: Current | None
    copy: Path
    files: dict[str, BinaryIO]


def _written(root: Path, database: Database, out: Path, index: str) -> BackupReport:
    toml = read_bytes(root / settings.FILE_NAME, most=_MOST_BYTES, follow=True)
    saved: dict[str, SavedFile] = {}
    n_new = 0
    with _state(root, database, out) as state, state.copy.open("rb") as copy:
        manifest = _manifest(state)
        current = b"" if state.current is None else current_text(state.current).encode()
        small = {settings.FILE_NAME: io.BytesIO(toml), CURRENT: io.BytesIO(current)}
        for name, file in {**state.files, DATABASE: copy, **small}.items():
            saved[name], n = _saved(out, file)
            n_new += n
    if manifest is None:
        del saved[CURRENT]
    else:
        _require_sound(manifest, saved)
    version = None if manifest is None else manifest.id
    backup = Backup(wall_clock.now(), index, *state.moment, version, saved)
    values = {"format_version": FORMAT_VERSION, **dataclasses.asdict(backup)}
    disk.write_file(out, NAME, json.dumps(values, indent=1).encode())
    used = {part for file in saved.values() for part in file.parts}
    for name in set(disk.names_in(out, PARTS)) - used:
        disk.delete(out, f"{PARTS}/{name}")
    n_bytes = sum(file.n_bytes for file in saved.values())
    return BackupReport(str(out), state.moment.seq, version, len(saved), n_bytes, n_new)


@contextmanager
def _state(root: Path, database: Database, out: Path) -> Iterator[_State]:
    """One state: what is live by a snapshot of the database, whatever is built or deleted meanwhile.

    An open file can be read to its end after a refresh has deleted its name.
    """
    copy = out / f".{DATABASE}.{os.getpid()}-{os.urandom(4).hex()}"
    try:
        for tries_left in reversed(range(_TRIES)):
            with ExitStack() as stack:
                with database.snapshot() as conn:
                    moment = read_moment(conn)
                    current = live_of(root, database)
                    if current is None and tries_left and last_live_change(conn) is not None:
                        continue  # another one went live after the snapshot, and its own is deleted
                    try:
                        files = {} if current is None else _opened(root, current.version, stack)
                    except (UnknownIdError, FileNotFoundError, CorruptFileError):
                        if current is None or current.version in list_versions(root):
                            raise
                        continue  # it was deleted meanwhile, so another one is live
                    write_copy(conn, copy)
                yield _State(moment, current, copy, files)
                return
        raise StorageError(f"the live version of {root} changed at every try to open it; try again")
    finally:
        for beside in ("", "-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                copy.with_name(copy.name + beside).unlink()


def _opened(root: Path, version: str, stack: ExitStack) -> dict[str, BinaryIO]:
    manifest, place = read_manifest(root, version), root / VERSIONS / version
    names = [*manifest.files, MANIFEST]
    return {
        f"{VERSIONS}/{version}/{name}": stack.enter_context(regular_file(place / name))[0]
        for name in names
    }


def _manifest(state: _State) -> Manifest | None:
    """The manifest of the version. Raises CorruptFileError when it is not of the database beside it."""
    if state.current is None:
        return None
    version = state.current.version
    path = Path(VERSIONS) / version / MANIFEST
    file = state.files[path.as_posix()]
    manifest = parse_manifest(path, version, data=file.read())
    file.seek(0)
    with closing(SqliteDatabase(state.copy)) as copied, copied.snapshot() as conn:
        wrong = origin_problems(conn, manifest)
    make_one_file(state.copy)
    if wrong:
        raise CorruptFileError(f"the index cannot be backed up: {wrong[0]}")
    return manifest


def _require_sound(manifest: Manifest, saved: dict[str, SavedFile]) -> None:
    """Raises CorruptFileError when a file of the version is not what its manifest says."""
    for name, expected in manifest.files.items():
        file = saved[f"{VERSIONS}/{manifest.id}/{name}"]
        if (file.sha256, file.n_bytes) != expected:
            raise CorruptFileError(
                f"{VERSIONS}/{manifest.id}/{name} is not what its manifest says, so that it cannot be backed "
                "up. The backup before is as it was; run `rag-flywheel repair`"
            )


def _saved(out: Path, file: BinaryIO) -> tuple[SavedFile, int]:
    """A file in parts, and how many bytes of them are new."""
    whole, parts, n_bytes, n_new = hashlib.sha256(), [], 0, 0
    while data := file.read(_PART_BYTES):
        whole.update(data)
        parts.append(_hash(data))
        n_bytes += len(data)
        n_new += _put(out, data)
    return SavedFile(whole.hexdigest(), n_bytes, tuple(parts)), n_new


def _put(out: Path, data: bytes) -> int:
    """Write a part, unless it is there, and read it back; returns how many bytes were written."""
    name = _hash(data)
    with suppress(OSError, ValueError):
        if read_bytes(out / PARTS / name, most=_PART_BYTES) == data:
            return 0
    disk.write_file(out, f"{PARTS}/{name}", data)
    if read_bytes(out / PARTS / name, most=_PART_BYTES) != data:
        raise StorageError(
            f"{out / PARTS / name} does not hold what was written to it; the disk is not to be trusted. "
            "Back up to another"
        )
    return len(data)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
