"""Reads and replaces CURRENT, the file that names the live version, and updates the journal with it."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from rag_flywheel.deploy.versions import CURRENT, is_version_id
from rag_flywheel.disk import read_bytes, replace_text, sync, version_file_errors
from rag_flywheel.errors import CorruptFileError, StorageError
from rag_flywheel.records import Current
from rag_flywheel.store import journal
from rag_flywheel.store.database import Database
from rag_flywheel.store.journal import Look

log = logging.getLogger("rag_flywheel")
_MOST_CURRENT = 200  # bytes


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
    frozen = "" if current.frozen_at is None else f" {current.frozen_at}"
    held = " held" if current.held else ""
    replace_text(root / CURRENT, f"{current.version}{frozen}{held}\n")


def withdraw(root: Path) -> None:
    """Leave no version live, as before the first promotion. Call only while holding the lock."""
    (root / CURRENT).unlink(missing_ok=True)
    sync(root)


def make_live(
    root: Path, database: Database, action: str, current: Current, looks: Sequence[Look] = ()
) -> None:
    """Write the intent, then CURRENT. Call only while holding the refresh lock.

    looks: the looks of the gate that this version passed.
    """
    with database.transaction() as conn:
        journal.record_live_change(conn, action, current)
    write_current(root, current)
    if looks:  # last: a look whose version never went live must not be on record
        try:
            with database.transaction() as conn:
                for look in looks:
                    journal.record_look(conn, look)
        except StorageError as error:
            log.warning("%s is live, but by which look of the gate is lost: %s", current, error)


def reconcile(root: Path, database: Database) -> None:
    """Write into the journal which version CURRENT names, when the last intent never reached it."""
    try:
        current = read_current(root)
    except CorruptFileError:
        return  # `verify` names it, `refresh` replaces it
    with database.reading() as conn:
        intended = journal.last_live_change(conn)
    if current is not None and current != intended:
        with database.transaction() as conn:
            journal.record_live_change(conn, "found", current)
