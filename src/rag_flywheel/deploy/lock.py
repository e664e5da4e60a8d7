"""The locks of an index: one process at a time builds or moves versions, one changes the encoder, one of a
folder fetches versions.

Each is a file in the folder and, but for the last, where the database is on a server a lock there too, since
a folder that hosts share may not lock files for all of them.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rag_flywheel import disk
from rag_flywheel.deploy.versions import FOLDERS
from rag_flywheel.errors import CorruptFileError, LockedError
from rag_flywheel.store import journal
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.postgres import PostgresDatabase

FILE_NAME, CHANGE, FETCH, FOLLOW = "refresh.lock", "change.lock", "fetch.lock", "follow.lock"
FOLLOW_S = 3_600.0
"""Longer than a version takes to be fetched."""


@contextmanager
def refresh_lock(
    root: Path, database: Database | None = None, *, wait_s: float = 0.0
) -> Iterator[None]:
    """Hold the lock during the block. Raises LockedError when another process holds it for wait_s, and
    StorageError when a folder that the holder writes to is a link.

    database: of the index; None: the file alone. The operating system, and the server, free the lock when
    its holder dies.
    """
    why = (
        f"another process is refreshing {root}, or moving its versions; wait for it, or end it "
        "(ending it at any moment is safe)"
    )
    with _lock(root, FILE_NAME, why, wait_s), _on_server(database, "refresh", why, wait_s):
        yield


@contextmanager
def change_lock(root: Path, database: Database | None = None) -> Iterator[None]:
    """Hold the lock of changes of the encoder during the block, beside which refreshes go on. Raises
    LockedError when another process holds it."""
    why = (
        f"another process is changing the encoder of {root}; wait for it, or end it and run "
        "change-encoder again, which goes on where it was (ending it at any moment is safe)"
    )
    with _lock(root, CHANGE, why, 0.0), _on_server(database, "change", why, 0.0):
        yield


@contextmanager
def follow_lock(root: Path, *, wait_s: float) -> Iterator[None]:
    """Hold the lock of those that bring the folder of a host up to date during the block. Raises LockedError
    when another process holds it for wait_s."""
    why = f"another process is bringing {root} up to what is live; wait for it, or see whether it runs"
    with _lock(root, FOLLOW, why, wait_s):
        yield


def require_lock(root: Path, database: Database, conn: Connection) -> None:
    """Raises LockedError when the refresh lock that this thread took on a server was lost since, as by a
    process that slept: another one may have built on what was live before.

    conn: of the write transaction in which what was built goes live; no other is committed meanwhile.
    """
    if not isinstance(database, PostgresDatabase) or not journal.is_shared(conn):
        return
    held = database.held_lock(conn, "refresh")
    if held is None or held.began != journal.last_change_number(conn):
        raise LockedError(
            f"the refresh lock of {root} was lost while it was refreshed, or its versions moved: the "
            "connection that held it ended, and another process may have gone on. Nothing of it is live; "
            "run it again"
        )


def note_change(database: Database, conn: Connection) -> None:
    """Note that the last change of the live version is this thread's own, for `require_lock`."""
    if isinstance(database, PostgresDatabase) and journal.is_shared(conn):
        held = database.held_lock(conn, "refresh")
        if held is not None:
            held.began = journal.last_change_number(conn)


@contextmanager
def fetch_lock(root: Path, *, wait_s: float) -> Iterator[None]:
    """Hold the lock of this folder alone, in which one process at a time fetches versions from an object
    store. Raises LockedError when another process holds it for wait_s."""
    why = f"another process is fetching a version into {root}; wait for it"
    with _lock(root, FETCH, why, wait_s):
        yield


@contextmanager
def _lock(root: Path, name: str, why: str, wait_s: float) -> Iterator[None]:
    from filelock import FileLock, Timeout

    path = root / name
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise CorruptFileError(
            f"{path} is a link, a folder or a device; expected a file: delete it"
        )
    lock = FileLock(path, mode=disk.new_file_mode(root))
    try:
        lock.acquire(timeout=wait_s)
    except Timeout as error:
        raise LockedError(why) from error
    try:
        disk.require_no_links(root, FOLDERS)
        yield
    finally:
        lock.release()


@contextmanager
def _on_server(database: Database | None, name: str, why: str, wait_s: float) -> Iterator[None]:
    with ExitStack() as stack:
        if isinstance(database, PostgresDatabase):
            held = stack.enter_context(database.lock(name, why, wait_s=wait_s))
            with database.reading() as conn:
                if journal.is_shared(conn):
                    held.began = journal.last_change_number(conn)
        yield
