"""Brings the folder of a host up to what is live by the database, where hosts have folders of their own.

The last change of the live version that the database has is the authority. A folder is a cache: what it lacks
is fetched from the object store, and its CURRENT is written once the version is there whole, so that all that
reads a folder works as it does for an index that has but one.
"""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rag_flywheel import disk
from rag_flywheel.deploy.current import name_encoder, read_current, withdraw, write_current
from rag_flywheel.deploy.lock import FOLLOW_S, follow_lock, refresh_lock
from rag_flywheel.deploy.prune import (
    clean_quarantine,
    clean_staging,
    clean_strays,
    forget_progress,
)
from rag_flywheel.deploy.shared import bring, store_of
from rag_flywheel.deploy.shared_settings import adopt
from rag_flywheel.deploy.versions import delete_versions, list_versions
from rag_flywheel.disk import disk_errors, exactly, parsed_json, read_bytes
from rag_flywheel.errors import (
    ClosedError,
    CorruptFileError,
    DamagedObjectError,
    FlywheelError,
    LockedError,
    MissingObjectError,
    ObjectStoreError,
    StorageError,
)
from rag_flywheel.records import Current
from rag_flywheel.store import forgetting, journal, timeline
from rag_flywheel.store.database import Database
from rag_flywheel.store.journal import LiveChange

log = logging.getLogger("rag_flywheel")
_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 60.0  # before a version is asked for again that could not be had


def follow(
    root: Path,
    database: Database,
    *,
    fetch: bool = True,
    refreshing: bool = False,
    wait_s: float = FOLLOW_S,
) -> int:
    """Bring the folder up to the last change of the live version, and delete what no host has any more;
    returns the number of that change.

    fetch: False: only what needs no object store. refreshing: whether the caller holds the refresh lock. What
    was forgotten is deleted first, whether the newest version can be fetched or not. wait_s: for another
    process of this host that does the same. Raises LockedError after it, ObjectStoreError, StorageError.
    """
    with disk_errors(root), follow_lock(root, wait_s=wait_s):
        while True:
            on_disk = list_versions(root)  # before the rows: a version is noted before it is there
            with database.snapshot() as conn:
                change = journal.last_change(conn)
                built = set(timeline.builds(conn))
                n_forgotten = forgetting.count_done(conn)
            delete_versions(root, [version for version in on_disk if version not in built])
            _clean_after_forgetting(root, n_forgotten, refreshing=refreshing)
            adopt(root, database)
            if change is not None and not _followed(root, database, change, fetch=fetch):
                continue
            with database.reading() as conn:
                newest = journal.last_change_number(conn)
            if newest == (0 if change is None else change.id) or not fetch:
                return newest


def _followed(root: Path, database: Database, change: LiveChange, *, fetch: bool) -> bool:
    """Make a change in the folder; False: another one was made meanwhile, and the version of this is gone."""
    current = change.current
    if current is None:
        withdraw(root)
        return True
    if current.version not in list_versions(root):
        if not fetch:
            return True
        try:
            bring(root, database, current.version)
            if current.version not in list_versions(root):
                raise MissingObjectError(
                    f"version {current.version} is live, and was deleted; run `rag-flywheel refresh`"
                )
        except MissingObjectError:
            with database.reading() as conn:
                if journal.last_change_number(conn) != change.id:
                    return False
            raise
    if _named(root) != current:
        write_current(root, current)
        name_encoder(root, database)
    return True


def _named(root: Path) -> Current | None:
    try:
        return read_current(root)
    except CorruptFileError:
        return None


@contextmanager
def locked(root: Path, database: Database, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the refresh lock during the block, in a folder that was brought up to what is live.

    Where the object store lacks the live version, or has it damaged, the block goes on: a refresh builds
    another. Raises LockedError, ObjectStoreError, StorageError.
    """
    with refresh_lock(root, database, wait_s=wait_s):
        if store_of(database) is not None:
            try:
                follow(root, database, refreshing=True)
            except (MissingObjectError, DamagedObjectError) as error:
                log.warning("the live version cannot be fetched into %s: %s", root, error)
        yield


def join(root: Path, database: Database) -> None:
    """Bring the folder of a process that opens the index up to date: what needs no object store and, where it
    has no version yet, with one. Where that cannot be had, the first question says why."""
    if store_of(database) is None:
        return
    new = _named(root) is None
    try:
        follow(root, database, fetch=new, wait_s=FOLLOW_S if new else 0.0)
    except LockedError:
        pass  # another process of this host does it
    except ObjectStoreError as error:
        log.warning("the live version is not in %s yet: %s", root, error)


def catch_up(root: Path, database: Database) -> None:
    """Bring the folder up to what is live, if that can be had; what it has already does else."""
    if database.read_only or store_of(database) is None:
        return
    try:
        follow(root, database)
    except StorageError as error:
        log.warning("the live version cannot be fetched into %s: %s", root, error)


class Follower:
    """Brings a folder up to what is live for one process, which asks at each call; thread-safe by its
    caller's lock. Never raises: what cannot be fetched is logged once, and asked for again after a pause."""

    def __init__(self, root: Path, database: Database) -> None:
        self._root = root
        self._database = database
        self._seen: int | None = None  # the change that the folder is up to
        self._failed: int | None = None  # the one that it could not be brought up to
        self._again_at = self._pause_s = 0.0
        self._error: FlywheelError | None = None

    def lags(self, change: int) -> bool:
        """Whether the folder is to be brought up to a change now."""
        if change == self._seen:
            return False
        return change != self._failed or time.monotonic() >= self._again_at

    def has_failed(self, change: int) -> bool:
        """Whether the folder could not be brought up to a change before."""
        return change == self._failed

    def bring_up(self, *, anew: bool = False) -> None:
        """Bring the folder up to the last change, unless it is, or could not be a moment ago. anew: the
        database is another one than it was, where the same number may be of another change."""
        if anew:
            self._seen = self._failed = None
        with self._database.reading() as conn:
            change = journal.last_change_number(conn)
        if not self.lags(change):
            return
        try:
            self._seen = follow(self._root, self._database)
            self._failed = self._error = None
        except ClosedError:
            raise
        except FlywheelError as error:
            again = change == self._failed
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S) if again else _PAUSE_S
            self._failed, self._again_at = change, time.monotonic() + self._pause_s
            self._error = error
            if not again:
                fields = {"event": "version_not_fetched", "error": type(error).__name__}
                log.error(
                    "the live version cannot be fetched into %s, and the last goes on: %s",
                    self._root,
                    error,
                    extra=fields,
                )

    def require_version(self) -> None:
        """Raises what kept the folder from having the live version, where it has none at all."""
        if self._error is None:
            return
        current = _named(self._root)
        if current is None or current.version not in list_versions(self._root):
            raise self._error


def follower_of(root: Path, database: Database) -> Follower | None:
    """What follows for a folder; None: it is where is decided what is live, or may not be written to."""
    if database.read_only or store_of(database) is None:
        return None
    return Follower(root, database)


@dataclass(frozen=True)
class _Note:
    """What was done in a folder: up to how many forgotten users it was cleaned."""

    n_forgotten: int


_NOTE, _MOST_BYTES = "FOLLOWED", 10_000


def _clean_after_forgetting(root: Path, n_forgotten: int, *, refreshing: bool) -> None:
    """Delete what refreshes of this host left unfinished, or moved away, before users were forgotten
    elsewhere: it may hold what was learned from them. A refresh that runs here, which goes on after it, does
    so itself."""
    noted = _read_note(root)
    if noted is not None and noted.n_forgotten == n_forgotten:
        return
    if noted is not None and refreshing:
        _clean(root)
    elif noted is not None:
        try:
            with refresh_lock(root):
                _clean(root)
        except LockedError:
            return
    disk.write_file(root, _NOTE, json.dumps(asdict(_Note(n_forgotten))).encode())


def _clean(root: Path) -> None:
    clean_staging(root, foreign=True)
    clean_quarantine(root)
    clean_strays(root)
    forget_progress(root)


def _read_note(root: Path) -> _Note | None:
    try:
        values = parsed_json(read_bytes(root / _NOTE, most=_MOST_BYTES), _NOTE, dict)
        return exactly(_Note, values)
    except FileNotFoundError:
        return None
    except ValueError:
        return _Note(-1)  # it is damaged: what it said is not known
