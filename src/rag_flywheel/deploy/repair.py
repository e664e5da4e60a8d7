"""Repairs an index folder: moves damaged files away, and rebuilds what it can from the database.

It deletes nothing of the user's, and leaves a damaged database alone.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rag_flywheel.deploy.current import read_current, reconcile
from rag_flywheel.deploy.follow import follow
from rag_flywheel.deploy.lock import refresh_lock
from rag_flywheel.deploy.quarantine import quarantine
from rag_flywheel.deploy.shared import store_of
from rag_flywheel.deploy.verify import database_problems, encoder_identity, version_problems
from rag_flywheel.deploy.versions import CURRENT, VERSIONS, list_versions, strays
from rag_flywheel.disk import disk_errors
from rag_flywheel.errors import CorruptFileError, ObjectStoreError, counted
from rag_flywheel.records import RefreshReport
from rag_flywheel.store import journal
from rag_flywheel.store.database import Database
from rag_flywheel.store.row_checks import bad_vectors, drop_vectors


def repair(root: Path, database: Database, refresh: Callable[[], RefreshReport]) -> list[str]:
    """Move damaged versions and strays to quarantine/, drop vectors that cannot be used, and
    refresh when anything was done; returns what was done, one sentence each.

    A rollback stays in force. Raises CorruptFileError, and changes nothing, when the database is
    damaged; LockedError.
    """
    with disk_errors(root):
        with refresh_lock(root, database):
            n_bad = _bad_vectors(database)  # raises before anything is changed
            done = _moved_away(root, database)
            if n_bad:
                with database.transaction() as conn:
                    drop_vectors(conn, n_bad)
                done.append(f"dropped {counted(len(n_bad), 'vector')} that could not be used")
            if store_of(database) is None:
                reconcile(root, database)
            elif done:
                with suppress(ObjectStoreError):  # then a refresh builds another
                    follow(root, database, refreshing=True)
        if done or _has_no_version(root, database):
            report = refresh()
            done.append(f"refreshed: {report.outcome}, version {report.version}: {report.reason}")
    return done


def _bad_vectors(database: Database) -> list[int]:
    """Rows of vectors that cannot be used. Raises CorruptFileError for any other damage."""
    wrong = [p for p in database_problems(database) if not p.startswith("flywheel.db: vectors: ")]
    if wrong:
        raise CorruptFileError(
            f"the database is damaged and cannot be repaired: {wrong[0]}. Nothing was changed. "
            "Restore flywheel.db from a backup, or save what can be read of it with `sqlite3 "
            'flywheel.db ".recover" | sqlite3 saved.db`'
        )
    with database.snapshot() as conn:
        revision, dim = encoder_identity(conn)
        if revision is None or dim is None:
            return []
        return [row for row, _ in bad_vectors(conn, revision, dim)]


def _moved_away(root: Path, database: Database) -> list[str]:
    """Quarantine everything damaged; returns what was done, one sentence each."""
    folder = root / VERSIONS
    if os.path.lexists(folder) and not folder.is_dir():
        return [quarantine(root, VERSIONS, "it is no folder")]
    done = [quarantine(root, f"{VERSIONS}/{name}", "it is no version") for name in strays(root)]
    for version in list_versions(root):
        if wrong := version_problems(root, version, database):
            done.append(quarantine(root, f"{VERSIONS}/{version}", wrong[0]))
    try:
        current = read_current(root)
        if current is not None and current.version not in list_versions(root):
            done.append(quarantine(root, CURRENT, f"it names {current.version}"))
    except CorruptFileError as error:
        done.append(quarantine(root, CURRENT, str(error)))
    return done


def _has_no_version(root: Path, database: Database) -> bool:
    """Whether a version was live once and none is now."""
    if read_current(root) is not None:
        return False
    with database.reading() as conn:
        return journal.last_live_change(conn) is not None
