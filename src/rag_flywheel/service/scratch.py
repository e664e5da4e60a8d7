"""A folder for what the processes of a service tell one another, which none leaves behind for good."""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "rag-flywheel-metrics-"
_HELD, _NEW = "held.lock", "new.lock"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder of this user's, deleted after the block, or by a later service if this one is killed."""
    _delete_left()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as made:
        held = _locked(Path(made) / _NEW)
        (Path(made) / _NEW).rename(Path(made) / _HELD)  # nobody sees it before it is locked
        try:
            yield Path(made)
        finally:
            os.close(held)


def hold(folder: Path) -> int:
    """Keep others from deleting a folder until this descriptor is closed, or this process ends."""
    return _locked(folder / _HELD)


def _locked(path: Path) -> int:
    held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(held, fcntl.LOCK_SH)
    return held


def _delete_left() -> None:
    """Delete the folders of services all of whose processes are gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                continue
            lock = os.open(folder / _HELD, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)
