"""Makes a version live: in the journal, in CURRENT of the folder and, where hosts share versions, for all of
them."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rag_flywheel.deploy.current import name_encoder, note_encoder, withdraw, write_current
from rag_flywheel.deploy.lock import note_change, require_lock
from rag_flywheel.deploy.shared import share, store_of, tell
from rag_flywheel.errors import CorruptFileError, StorageError
from rag_flywheel.records import Current
from rag_flywheel.store import journal
from rag_flywheel.store.database import Database
from rag_flywheel.store.journal import Look

if TYPE_CHECKING:
    from rag_flywheel.deploy.published import Published

log = logging.getLogger("rag_flywheel")


def make_live(
    root: Path,
    database: Database,
    action: str,
    current: Current,
    looks: Sequence[Look] = (),
    published: "Published | None" = None,
) -> None:
    """Write the intent, then CURRENT, then the encoder of that version into the settings. Call only while
    holding the refresh lock.

    Where hosts share versions, this one is sent to where they find it first, and the intent decides.
    looks: the looks of the gate that this version passed; published: whose alias is to follow. Raises
    LockedError where the lock was lost meanwhile.
    """
    _share(root, database, action, current)
    with database.transaction() as conn:
        require_lock(root, database, conn)
        journal.record_live_change(conn, action, current)
        note_change(database, conn)
        note_encoder(root, conn, current)
    write_current(root, current)
    if published is not None:
        published.point(root, current.version)
    name_encoder(root, database)
    tell(database)
    if looks:  # last: a look whose version never went live must not be on record
        try:
            with database.transaction() as conn:
                for look in looks:
                    journal.record_look(conn, look)
        except StorageError as error:
            log.warning("%s is live, but by which look of the gate is lost: %s", current, error)


def make_none_live(root: Path, database: Database) -> None:
    """Leave no version live, for any host. Call only while holding the refresh lock."""
    if store_of(database) is not None:
        with database.transaction() as conn:
            require_lock(root, database, conn)
            journal.record_none_live(conn)
            note_change(database, conn)
    withdraw(root)


def _share(root: Path, database: Database, action: str, current: Current) -> None:
    """Send a version to where hosts share them. One that was live before can go live again without: some
    hosts have it, others answer from the last one until it can be fetched."""
    if action == "release":
        return
    try:
        share(root, database, current.version)
    except StorageError as error:
        if action == "promote" or isinstance(error, CorruptFileError):
            raise
        log.warning("version %s may not be where hosts fetch it: %s", current.version, error)
