"""The lock of an index folder: one process at a time builds or moves versions."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rag_flywheel import disk
from rag_flywheel.deploy.versions import FOLDERS
from rag_flywheel.errors import CorruptFileError, LockedError

FILE_NAME = "refresh.lock"


@contextmanager
def refresh_lock(root: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock during the block. Raises LockedError when another process holds it for wait_s, and
    StorageError when a folder that the holder writes to is a link.

    The operating system frees the lock when its holder dies.
    """
    from filelock import FileLock, Timeout

    path = root / FILE_NAME
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise CorruptFileError(
            f"{path} is a link, a folder or a device; expected a file: delete it"
        )
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout as error:
        raise LockedError(
            f"another process is refreshing {root}, or moving its versions; wait for it, or end it "
            "(ending it at any moment is safe)"
        ) from error
    try:
        disk.require_no_links(root, FOLDERS)
        yield
    finally:
        lock.release()
