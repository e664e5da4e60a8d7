"""Reads and replaces CURRENT, the file that names the live version, and tells by it and the journal what is
live, and which encoder new texts are embedded with: that of the live version.
"""

import logging
import re
from pathlib import Path

from rag_flywheel import config as settings
from rag_flywheel import disk
from rag_flywheel.deploy.origin import foreign_versions, is_foreign
from rag_flywheel.deploy.quarantine import quarantine
from rag_flywheel.deploy.versions import (
    CURRENT,
    VERSIONS,
    is_version_id,
    list_versions,
    read_manifest,
)
from rag_flywheel.disk import read_bytes, replace_text, version_file_errors
from rag_flywheel.errors import (
    BusyError,
    CorruptFileError,
    FlywheelError,
)
from rag_flywheel.records import Current
from rag_flywheel.store import encoders, journal
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import BUSY_TIMEOUT_S, Database
from rag_flywheel.store.postgres import PostgresDatabase

log = logging.getLogger("rag_flywheel")
_MOST_CURRENT = 200  # bytes
_FOREIGN = "which was built from another state of the database; it is not used"


def read_current(root: Path) -> Current | None:
    """Which version is live; None before the first promotion. Raises CorruptFileError."""
    path = root / CURRENT
    with version_file_errors(path, of=(ValueError,)):
        try:
            text = read_bytes(path, most=_MOST_CURRENT).decode("utf-8")
        except FileNotFoundError:
            return None
        found = re.fullmatch(r"(\S+)(?: (\d{1,18}))?( held)?\n?", text, re.ASCII)
        if not found or not is_version_id(found[1]):
            raise ValueError(f"it holds {text[:80]!r}; expected a version id")
    return Current(found[1], None if found[2] is None else int(found[2]), found[3] is not None)


def write_current(root: Path, current: Current) -> None:
    """Make a version live: the commit point."""
    replace_text(root / CURRENT, current_text(current))


def current_text(current: Current) -> str:
    """What CURRENT holds; `read_current` of it gives an equal one."""
    frozen = "" if current.frozen_at is None else f" {current.frozen_at}"
    held = " held" if current.held else ""
    return f"{current.version}{frozen}{held}\n"


def withdraw(root: Path) -> None:
    """Leave no version live, as before the first promotion. Call only while holding the lock."""
    disk.delete(root, CURRENT)


def note_encoder(root: Path, conn: Connection, current: Current) -> None:
    """Let new texts be embedded with the encoder of this version."""
    try:
        manifest = read_manifest(root, current.version)
    except FlywheelError:
        return  # whoever serves it says what is wrong
    found = encoders.Identity(manifest.encoder, manifest.revision, manifest.dim)
    if encoders.identity(conn) != found:
        encoders.write_identity(conn, found)


def name_encoder(root: Path, database: Database) -> bool:
    """Write into the settings the encoder of the live version, where they name another one that the index
    has; whether that was done. Until then, what the database notes of encoders counts.

    Call only while holding the refresh lock.
    """
    with database.reading() as conn:
        live, known = encoders.identity(conn), encoders.known(conn)
    if live is None or live.revision not in known:
        return False
    spec, path = known[live.revision].spec, root / settings.FILE_NAME
    found = settings.read_config(path)
    if found.encoder == spec or found.encoder not in {each.spec for each in known.values()}:
        return False
    try:
        if path.is_symlink():
            raise OSError("it is a link, and only read")
        replace_text(path, settings.with_encoder(path, found, spec))
    except OSError as error:
        log.warning(
            "%s still names encoder %r, instead of %r: %s", path, found.encoder, spec, error
        )
        return False
    return True


def reconcile(root: Path, database: Database, *, wait_s: float = BUSY_TIMEOUT_S) -> None:
    """Write into the journal which version CURRENT names, when the last intent never reached it; not where
    hosts share versions, whose folders may be behind.

    wait_s: for how long to wait while another program writes; after it, that is left to the next call.
    """
    try:
        current = read_current(root)
    except CorruptFileError:
        return  # `verify` names it, `refresh` replaces it
    if current is None:
        return
    with database.reading() as conn:
        if isinstance(database, PostgresDatabase) and journal.is_shared(conn):
            return
        intended = journal.last_live_change(conn)
        foreign = current != intended and is_foreign(root, conn, current.version)
    if foreign:
        log.warning("%s names version %s, %s", root / CURRENT, current.version, _FOREIGN)
    elif current != intended:
        try:
            with database.transaction(wait_s=wait_s) as conn:
                journal.record_live_change(conn, "found", current)
                note_encoder(root, conn, current)
        except BusyError as error:
            log.warning(
                "that version %s was found live is not recorded: %s", current.version, error
            )


def live_of(root: Path, database: Database) -> Current | None:
    """What queries are answered from: what CURRENT names, unless that was built from another state of
    the database; then the last version of this one, if it is on the disk.

    Raises CorruptFileError, StorageError.
    """
    current = read_current(root)
    if current is None:
        return None
    with database.reading() as conn:
        if not is_foreign(root, conn, current.version):
            return current
        return _last_own(root, conn)


def live_now(root: Path, database: Database) -> Current | None:
    """Which version is live: where hosts share versions, by the database, whether it is in this folder or
    not; else as `live_of`."""
    if isinstance(database, PostgresDatabase):
        with database.reading() as conn:
            if journal.is_shared(conn):
                return journal.last_live_change(conn)
    return live_of(root, database)


def set_aside_foreign(root: Path, database: Database) -> list[str]:
    """Move versions that were built from another state of the database to quarantine/, and make the last
    one of this database live, if it is on the disk; returns what was done, one sentence each.

    Call only while holding the refresh lock.
    """
    with database.reading() as conn:
        foreign = foreign_versions(root, conn)
        last = _last_own(root, conn)
    if not foreign:
        return []
    try:
        current = read_current(root)
    except CorruptFileError:
        current = None
    if current is not None and current.version in foreign:
        if last is None:
            withdraw(root)
        else:
            write_current(root, last)
    done = [quarantine(root, f"{VERSIONS}/{version}", _FOREIGN) for version in foreign]
    for each in done:
        log.warning("%s", each)
    return done


def _last_own(root: Path, conn: Connection) -> Current | None:
    """The live version by the journal, if it is on the disk and was built from this database."""
    last = journal.last_live_change(conn)
    if last is None or last.version not in list_versions(root):
        return None
    return None if is_foreign(root, conn, last.version) else last
