"""The versions that hosts with folders of their own share: they lie in an object store, and the database says
which of them there are, and which is live.

Of an index that has one folder, or is in SQLite, nothing is shared: the functions here see that by one row,
or by the kind of the database, and then know of the folder alone.
"""

import hashlib
import logging
import os
from collections.abc import Collection, Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rag_flywheel.deploy.lock import require_lock
from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.deploy.versions import (
    delete_versions,
    list_versions,
    read_manifest,
    version_folder,
)
from rag_flywheel.errors import (
    DamagedObjectError,
    FlywheelError,
    InputError,
    MissingObjectError,
    ObjectConflictError,
    StorageError,
    UnknownIdError,
    counted,
)
from rag_flywheel.records import Current
from rag_flywheel.store import fetches, forgetting, journal, timeline, users, wall_clock
from rag_flywheel.store.database import Database
from rag_flywheel.store.journal import DAMAGED, OBJECTS
from rag_flywheel.store.place import host_of
from rag_flywheel.store.postgres import PostgresDatabase

if TYPE_CHECKING:
    from rag_flywheel.deploy.objects import Objects

log = logging.getLogger("rag_flywheel")
_WAIT_S = 10.0
_FETCH_S = 3_600.0  # for which a version that a host is fetching stays
Patience = Literal["refresh", "serve", "look"]
"""How long an object store is waited for: by a refresh, while users wait, and only to see whether it
answers."""
_LATELY_S = 2 * 86_400.0  # longer than a file that belongs to no version stays in the store
_NONE = "none"  # in the place of a version in CURRENT of the store


def store_of(database: Database, *, patience: Patience = "refresh") -> "Objects | None":
    """The object store that the versions of an index are shared in; None: they are in one folder. patience:
    how long it is waited for."""
    if not isinstance(database, PostgresDatabase):
        return None
    with database.reading() as conn:
        url = journal.read_meta(conn, OBJECTS)
    return None if url is None else objects_at(url, patience, os.getpid())


@lru_cache(maxsize=16)
def objects_at(url: str, patience: Patience, process: int) -> "Objects":
    """The versions at an address; `process` has connections of its own."""
    from rag_flywheel.deploy.object_store import ObjectStore, Waits
    from rag_flywheel.deploy.objects import Objects  # which a plain index does without

    waits = {
        "refresh": Waits(),
        "serve": Waits(connect_s=3.0, request_s=20.0, retry_s=20.0, tries=3, pause_s=2.0),
        "look": Waits(connect_s=2.0, request_s=3.0, retry_s=3.0, tries=1),
    }
    return Objects(ObjectStore(url, waits[patience]))


def claim(database: PostgresDatabase, store: "Objects", *, write: bool = True) -> None:
    """See that a place of an object store is that of this index, and write so into one that nobody has.
    Raises InputError when another index has it, or a copy of this one on another server; ObjectStoreError."""
    text, tag = store.current()
    owner = _owner(database)
    if not text and not write:
        raise MissingObjectError(
            f"{store} lacks CURRENT; `rag-flywheel refresh` sends what it lacks again"
        )
    if not text:
        with_it = f"{_NONE}\n{owner}\n"
        try:
            store.set_current(with_it, tag)
            return
        except ObjectConflictError:
            text, _ = store.current()
    if text.splitlines()[1:2] != [owner]:
        raise InputError(
            f"{store} holds the versions of another index than that at {database.address}, or of one that "
            "it is a copy of; give each a place of its own, by objects=. Where the other one is gone, or "
            "was moved here, delete the object CURRENT there, and try again"
        )


def _owner(database: PostgresDatabase) -> str:
    """A name of an index at its place, which a copy of its database at another place does not have."""
    with database.reading() as conn:
        key = users.user_key(conn)
    return hashlib.blake2b(
        database.place().encode(), key=key, digest_size=16, person=b"objects"
    ).hexdigest()


def share(root: Path, database: Database, version: str) -> None:
    """Send a version of the folder at `root` to the object store, if versions are shared, before it goes
    live.

    Call only while holding the refresh lock. Raises LockedError when it was lost, UnknownIdError, InputError,
    ObjectStoreError.
    """
    store = store_of(database)
    if store is None or not isinstance(database, PostgresDatabase):
        return
    with database.reading() as conn:
        require_lock(root, database, conn)
    claim(database, store)
    if version in list_versions(root):
        with database.reading() as conn:
            damaged = journal.read_meta(conn, DAMAGED) is not None
        folder, manifest = version_folder(root, version), read_manifest(root, version)
        try:
            sent = store.publish(folder, manifest, anew=damaged)
        except DamagedObjectError:
            sent = store.publish(folder, manifest, anew=True)
        if damaged:
            with database.transaction() as conn:
                journal.drop_meta(conn, DAMAGED)
        log.info("refresh: sent %s of %s to %s", counted(sent.n_parts, "file"), version, store)
    elif version not in store.versions():
        raise UnknownIdError(f"version {version} is neither in {root} nor at {store}")


def discard(root: Path, database: Database, version: str) -> None:
    """Delete a version that was built, and may not go live since the refresh lock was lost meanwhile.

    Files of it that were sent are deleted by the next refresh, whoever makes it.
    """
    try:
        delete_versions(root, [version])
        if (store := store_of(database)) is not None:
            store.delete([version])
    except FlywheelError as error:
        log.warning("version %s is not live, and could not be deleted: %s", version, error)


def tell(database: Database) -> None:
    """Write into CURRENT of the object store what is live. Nothing goes by it, so what fails is logged, and
    done by the next refresh."""
    store = store_of(database)
    if store is None or not isinstance(database, PostgresDatabase):
        return
    try:
        with database.reading() as conn:
            current = journal.last_live_change(conn)
        text, tag = store.current()
        wanted = f"{_NONE if current is None else in_words(current)}\n{_owner(database)}\n"
        if text != wanted:
            store.set_current(wanted, tag)
    except FlywheelError as error:
        log.warning("CURRENT at %s does not name the live version: %s", store, error)


def in_words(current: Current) -> str:
    """What is live, in one line."""
    frozen = "" if current.frozen_at is None else f" {current.frozen_at}"
    return f"{current.version}{frozen}{' held' if current.held else ''}"


def known_versions(root: Path, database: Database) -> list[str]:
    """Ids of the versions there are, the oldest first: where they are shared, by the database, else on
    disk."""
    if isinstance(database, PostgresDatabase):
        with database.reading() as conn:
            if journal.is_shared(conn):
                return timeline.builds(conn)
    return list_versions(root)


def manifest_of(root: Path, database: Database, version: str) -> Manifest:
    """The manifest of a version, from the disk or from where it is shared. Raises UnknownIdError,
    CorruptFileError, ObjectStoreError."""
    if version not in list_versions(root) and (store := store_of(database)) is not None:
        return store.manifest(version)
    return read_manifest(root, version)


def manifests(root: Path, database: Database) -> list[Manifest]:
    """Those of all versions there are. Raises FlywheelError when one cannot be read."""
    found = []
    for version in known_versions(root, database):
        try:
            found.append(manifest_of(root, database, version))
        except UnknownIdError:
            if store_of(database) is None:
                raise  # else its refresh was ended before it was sent
    return found


def bring(root: Path, database: Database, version: str) -> None:
    """Fetch a version into the folder at `root`, unless it is there, or versions are not shared.

    Raises MissingObjectError when it is not where it should be, ObjectStoreError, StorageError.
    """
    if version in list_versions(root) or database.read_only:
        return
    store = store_of(database, patience="serve")
    if store is None or version not in known_versions(root, database):
        return
    host = host_of(root)
    with database.transaction() as conn:
        fetches.note(conn, host, version)
    try:
        found = store.fetch(root, version)
    except DamagedObjectError:
        with database.transaction() as conn:
            journal.write_meta(conn, DAMAGED, version)  # the next refresh sends all of it again
        raise
    except UnknownIdError as error:
        raise MissingObjectError(
            f"{error}; it was lost there, or deleted meanwhile. `rag-flywheel refresh` on a host that has it "
            "sends it again, and on any other builds one"
        ) from error
    finally:
        try:
            with database.transaction(durable=False) as conn:
                fetches.end(conn, host)
        except StorageError as error:  # the note ages
            log.debug("that %s was fetched is not noted: %s", version, error)
    log.info("fetched %s of %s from %s", counted(found.n_parts, "file"), version, store)


def lacking_in(store: "Objects", version: str) -> list[str]:
    """What a store lacks of a version, by the sizes of its files, a sentence each. Raises
    ObjectStoreError."""
    try:
        manifest = store.manifest(version)
    except UnknownIdError:
        return [f"version {version} is not there"]
    found = []
    for name, (digest, size) in sorted(manifest.files.items()):
        try:
            if store.size_of(digest) != size:
                found.append(f"{version}/{name} has another size than its manifest says")
        except MissingObjectError:
            found.append(f"{version}/{name} is missing")
    return found


def prune_shared(
    root: Path, database: Database, store: "Objects", *, keep: int, never: Collection[str]
) -> list[str]:
    """Delete the oldest shared versions beyond the `keep` newest, but none in `never`, and none that a host
    has begun to fetch within the last hour; returns their ids. Call only while holding the refresh lock."""
    there = set(store.versions()) | set(list_versions(root))
    with database.transaction() as conn:
        require_lock(root, database, conn)
        built = timeline.builds(conn)
        known = [version for version in built if version in there]
        stay = {*never, *fetches.under_way(conn, within_s=_FETCH_S)}
        old = [v for v in known[: max(0, len(known) - keep)] if v not in stay]
        timeline.drop_builds(conn, (set(built) - there) | set(old))
    _delete(root, database, store, set(known) - set(old))
    return old


def delete_shared(
    root: Path, database: Database, store: "Objects", versions: Collection[str]
) -> None:
    """Delete these versions here and in the store. Call only while holding the refresh lock."""
    with database.transaction() as conn:
        require_lock(root, database, conn)
        timeline.drop_builds(conn, versions)
    delete_versions(root, versions)
    store.delete(versions)


def delete_shared_but(
    root: Path, database: Database, store: "Objects", kept: Collection[str]
) -> None:
    """Delete all versions but these, and at once every file that is in none of them, whoever reads it. Call
    only while holding the refresh lock. Raises LockedError, ObjectStoreError."""
    with database.transaction() as conn:
        require_lock(root, database, conn)
        timeline.drop_builds(conn, set(timeline.builds(conn)) - set(kept))
    _delete(root, database, store, kept)


def mend(root: Path, database: Database) -> None:
    """Send again what the object store lost of the live version, and tell it what is live. After a user was
    forgotten, also delete what one sent meanwhile that slept through it. What fails is logged.

    Call only while holding the refresh lock.
    """
    store = store_of(database)
    if store is None:
        return
    with database.reading() as conn:
        live, built = journal.last_live_change(conn), timeline.builds(conn)
    try:
        if live is not None and live.version in list_versions(root):
            share(root, database, live.version)
        if _forgot_lately(database):
            _delete(root, database, store, built)
    except StorageError as error:
        log.warning("%s was not looked through: %s", store, error)
    tell(database)


def _forgot_lately(database: Database) -> bool:
    """Whether a user was forgotten within the time for which files of no version stay in the store."""
    with database.reading() as conn:
        at = forgetting.last_at(conn)
    return at is not None and wall_clock.now() - at < _LATELY_S


def _delete(root: Path, database: Database, store: "Objects", kept: Iterable[str]) -> None:
    """Delete versions, here and in the store, that are none of those kept, and files that belong to none: at
    once after a user was forgotten, else those that are not new."""
    known = set(kept)
    delete_versions(root, [v for v in list_versions(root) if v not in known])
    store.delete([version for version in store.versions() if version not in known])

    def still() -> None:
        with database.reading() as conn:
            require_lock(root, database, conn)

    if _forgot_lately(database):
        store.sweep(grace_s=0.0, still=still)
    else:
        store.sweep(still=still)
