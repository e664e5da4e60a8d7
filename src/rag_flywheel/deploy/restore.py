"""Restores a backup: into a new folder, or over the index that it was made of, in use or not.

Over an index, the database is replaced in one transaction, in SQLite or on a server, so that other processes
see the old state or the new one; by the timeline they notice that it is another, and load it anew.
"""

import os
from pathlib import Path

from rag_flywheel import config as settings
from rag_flywheel import disk
from rag_flywheel.deploy.backup import Backup, index_name, put_together, read_backup
from rag_flywheel.deploy.current import (
    read_current,
    set_aside_foreign,
    withdraw,
    write_current,
)
from rag_flywheel.deploy.lock import note_change, refresh_lock
from rag_flywheel.deploy.origin import origin_problems
from rag_flywheel.deploy.promote import make_live, make_none_live
from rag_flywheel.deploy.prune import forget_progress
from rag_flywheel.deploy.quarantine import quarantine
from rag_flywheel.deploy.shared import share, store_of
from rag_flywheel.deploy.shared_settings import agree, text_of
from rag_flywheel.deploy.versions import (
    CURRENT,
    STAGING,
    VERSIONS,
    check,
    list_versions,
    read_manifest,
    stage,
    unstage,
)
from rag_flywheel.disk import disk_errors, new_folder, read_bytes, sync_tree
from rag_flywheel.errors import CorruptFileError, InputError
from rag_flywheel.records import Current, RestoreReport
from rag_flywheel.store import attempts, journal
from rag_flywheel.store.copies import make_one_file, put_in_place, replace_on_server
from rag_flywheel.store.database import FILE_NAME as DATABASE
from rag_flywheel.store.database import Database
from rag_flywheel.store.migrations import Hash, migrate
from rag_flywheel.store.place import is_linked, open_database
from rag_flywheel.store.postgres import PostgresDatabase
from rag_flywheel.store.sqlite import SqliteDatabase
from rag_flywheel.store.timeline import begin_timeline

_WAIT_S = 10.0
_MOST_BYTES = 100_000  # of flywheel.toml
_BESIDE = "-wal", "-shm", "-journal"


def restore(source: str | Path, path: str | Path, *, user_hash: Hash) -> RestoreReport:
    """Make the index folder at `path` the state that the backup at `source` holds.

    path: a new or empty folder, or an index that the backup is of. All is checked before anything there
    is changed. user_hash: as `migrate` takes it.
    Raises InputError, LockedError, CorruptFileError, NewerFormatError, StorageError.
    """
    for name, given in (("source", source), ("path", path)):
        if not isinstance(given, str | Path):
            raise InputError(f"{name} is {type(given).__name__}; expected the name of a folder")
    root, saved = Path(path), Path(source)
    with disk_errors(root):
        backup = read_backup(saved)
        if is_linked(root):
            database = open_database(root)
            try:
                with refresh_lock(root, database, wait_s=_WAIT_S):
                    moved = _restore_over(saved, backup, root, database, user_hash)
            finally:
                database.close()
        elif _is_index(root):
            with refresh_lock(root, wait_s=_WAIT_S):
                database = SqliteDatabase(root / DATABASE)
                try:
                    moved = _restore_over(saved, backup, root, database, user_hash)
                finally:
                    database.close()
        else:
            with new_folder(root.resolve(), outside=saved.resolve()) as staged:
                _put_together(saved, backup, staged, user_hash)
            moved = []
    return RestoreReport(str(root), backup.seq, backup.version, tuple(moved))


def _is_index(root: Path) -> bool:
    return any((root / n).exists() for n in (settings.FILE_NAME, DATABASE, VERSIONS, CURRENT))


def _put_together(saved: Path, backup: Backup, folder: Path, user_hash: Hash) -> None:
    """Write all files of a backup into an empty folder, and check them. Raises CorruptFileError."""
    for name, file in sorted(backup.files.items()):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        put_together(saved, name, file, target)
    wrong = check(folder, backup.version) if backup.version is not None else []
    database = SqliteDatabase(folder / DATABASE)
    try:
        wrong = wrong or database.problems()
        if not wrong:
            migrate(database, user_hash)
        if not wrong and backup.version is not None:
            with database.snapshot() as conn:
                wrong = origin_problems(conn, read_manifest(folder, backup.version))
        if wrong:
            raise CorruptFileError(
                f"the backup in {saved} is not sound: {wrong[0]}. Nothing was restored; restore another"
            )
        with database.transaction() as conn:
            begin_timeline(conn)
            attempts.end_open(conn)
    finally:
        database.close()
    make_one_file(folder / DATABASE)
    disk.make_private(folder)


def _restore_over(
    saved: Path, backup: Backup, root: Path, database: Database, user_hash: Hash
) -> list[str]:
    usable = _is_usable(database, backup)
    staged = stage(root)
    try:
        _put_together(saved, backup, staged, user_hash)
        current = read_current(staged)
        toml = read_bytes(staged / settings.FILE_NAME, most=_MOST_BYTES)
        sync_tree(staged)
        moved = _publish(root, staged, backup)
        if usable and backup.version is not None:
            share(
                root, database, backup.version
            )  # before hosts look for it, if they share versions
        moved += _replace_database(root, staged, database if usable else None)
    finally:
        unstage(root, staged)
    disk.write_file(root, settings.FILE_NAME, toml)
    if store_of(database) is not None:
        _make_live_for_hosts(root, database, current)
    elif current is None:
        withdraw(root)
    else:
        write_current(root, current)
    forget_progress(root)  # of a tuning on other votes
    return moved + set_aside_foreign(root, database)


def _make_live_for_hosts(root: Path, database: Database, current: Current | None) -> None:
    """Let hosts that share versions have the live one and the settings of the backup whose rows the database
    has now."""
    config = settings.read_config(root / settings.FILE_NAME)
    with database.transaction() as conn:
        note_change(database, conn)
        journal.write_meta(conn, journal.SETTINGS, text_of(config))
    agree(root, config)
    if current is None:
        make_none_live(root, database)
    else:
        make_live(root, database, "found", current)


def _is_usable(database: Database, backup: Backup) -> bool:
    """Whether the database that is there can be replaced by a transaction; else it is moved away.

    Raises InputError when it is of another index.
    """
    if isinstance(database, SqliteDatabase) and not database.path.is_file():
        return False
    try:
        with database.reading() as conn:
            index = index_name(conn)
    except CorruptFileError:
        if isinstance(database, SqliteDatabase):
            return False
        raise
    if index != backup.index:
        raise InputError(
            f"{database.path.parent} holds another index than the backup was made of; restore into a new "
            "folder"
        )
    return True


def _publish(root: Path, staged: Path, backup: Backup) -> list[str]:
    """Move the version of a backup into versions/, unless it is there; returns what was moved away."""
    version, moved = backup.version, []
    if version is None:
        return []
    if version in list_versions(root):
        if not check(root, version) and read_manifest(root, version) == read_manifest(
            staged, version
        ):
            return []
        moved = [quarantine(root, f"{VERSIONS}/{version}", "it is not as in the backup")]
    entry = f"{VERSIONS}/{version}"
    disk.move(root, f"{STAGING}/{staged.name}/{entry}", entry)
    return moved


def _replace_database(root: Path, staged: Path, database: Database | None) -> list[str]:
    """Put the database of a backup in place; database: the one that is there, None: it is damaged."""
    if isinstance(database, PostgresDatabase):
        replace_on_server(staged / DATABASE, database)
        return []
    if isinstance(database, SqliteDatabase):
        put_in_place(staged / DATABASE, database)
        return []
    why = "it was damaged, and a backup was restored"
    names = (DATABASE, *(DATABASE + beside for beside in _BESIDE))
    moved = [quarantine(root, n, why) for n in names if os.path.lexists(root / n)]
    disk.move(root, f"{STAGING}/{staged.name}/{DATABASE}", DATABASE)
    return moved
