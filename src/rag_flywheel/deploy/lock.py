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
from rag_flywheel.store.database import Database
from rag_flywheel.store.postgres import PostgresDatabase

FILE_NAME, CHANGE, FETCH = "refresh.lock", "change.lock", "fetch.lock"


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
            stack.enter_context(database.lock(name, why, wait_s=wait_s))
        yield
