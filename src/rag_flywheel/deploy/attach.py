"""Lets hosts share an index on PostgreSQL: its versions, of the one folder that had them, go to an object
store."""

import logging
import os
from pathlib import Path

from rag_flywheel.config import Config
from rag_flywheel.deploy.lock import refresh_lock
from rag_flywheel.deploy.shared import claim, objects_at, tell
from rag_flywheel.deploy.shared_settings import agree, text_of
from rag_flywheel.deploy.versions import check, list_versions, read_manifest, version_folder
from rag_flywheel.errors import InputError
from rag_flywheel.store import journal, timeline
from rag_flywheel.store.database import Database
from rag_flywheel.store.journal import OBJECTS, SETTINGS
from rag_flywheel.store.place import FOLDER, is_linked, require_own
from rag_flywheel.store.postgres import Address, PostgresDatabase

log = logging.getLogger("rag_flywheel")
_WAIT_S = 10.0


def address_for(root: Path, address: Address | None, url: str) -> str:
    """The address of an object store for the index in a folder, whose database is at `address`, None: where
    the folder says. Raises InputError for an index in SQLite."""
    from rag_flywheel.deploy.object_store import address_of  # which a plain index does without

    if address is None and not is_linked(root):
        raise InputError(
            f"objects is given for {root}, whose database is in SQLite there; expected the URL of an index "
            "on PostgreSQL, which `rag-flywheel copy` makes of one in SQLite"
        )
    return address_of(url)


def attach(root: Path, database: Database, given: str, config: Config) -> None:
    """Let the index have its versions in the object store at `given`, those of its one folder, `root`, first,
    and its settings in the database.

    Nothing is done where that is so. Raises InputError for another place than it has, or that of another
    index; LockedError, StorageError.
    """
    assert isinstance(database, PostgresDatabase)
    if _is_attached(database, given):
        return
    database.require_writable()
    with refresh_lock(root, database, wait_s=_WAIT_S):
        if _is_attached(database, given):
            return
        require_own(root, database)
        store = objects_at(given, "refresh", os.getpid())
        claim(database, store)
        sound = [v for v in list_versions(root) if _may_be_shared(root, database, v)]
        for version in sound:
            store.publish(version_folder(root, version), read_manifest(root, version))
        with database.transaction() as conn:
            timeline.drop_builds(conn, set(timeline.builds(conn)) - set(sound))
            journal.write_meta(conn, OBJECTS, given)
            journal.write_meta(conn, SETTINGS, text_of(config))
            journal.drop_meta(conn, FOLDER)
        agree(root, config)
        log.info("%s versions of %s are shared at %s", len(sound), database.address, store)
    tell(database)


def _is_attached(database: PostgresDatabase, given: str) -> bool:
    """Whether versions are shared at this address. Raises InputError when they are at another, and when what
    the database has is no address, which may be a secret."""
    from rag_flywheel.deploy.object_store import address_of

    with database.reading() as conn:
        known = journal.read_meta(conn, OBJECTS)
    if known is not None and known != given:
        raise InputError(
            f"the versions of the index at {database.address} are at {address_of(known)}; found "
            f"objects={given!r}. Leave objects= out, or `rag-flywheel copy` the index to another "
            "schema with that place"
        )
    return known is not None


def _may_be_shared(root: Path, database: Database, version: str) -> bool:
    """Whether a version on disk is sound and of this database."""
    if check(root, version):
        return False
    with database.reading() as conn:
        return timeline.token_of(conn, version) == read_manifest(root, version).token
