"""The disk's errors as ours, and arrays read from it. It knows nothing of what is on the disk."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.errors import DiskFullError, ReadOnlyError, StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EROFS, errno.EACCES, errno.EPERM}
_ROOM_FOR_A_PAGE = 64 * 1024


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StorageError that names `path` and the remedy."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        where = error.filename or path
        if error.errno in _FULL or (error.errno is None and is_full(path)):
            raise DiskFullError(
                f"no space to write {where} ({error.strerror or error}); free some and repeat the "
                "call. What was live before is still live"
            ) from error
        if error.errno in _FORBIDDEN:
            raise ReadOnlyError(
                f"{where} cannot be read or written ({error.strerror}); give this user permission, "
                "or work on a copy of the folder"
            ) from error
        raise StorageError(f"{where}: {error.strerror or error}") from error


def read_array(path: Path) -> npt.NDArray[Any]:
    """The array in a .npy file. Raises OSError or ValueError, whatever is in the file."""
    try:
        with path.open("rb") as file:  # not np.load, which takes archives too
            found: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    except (SyntaxError, TokenError, MemoryError) as error:
        raise ValueError(f"{path.name} has a damaged header: {error}") from error
    return found


def is_full(path: Path) -> bool:
    """Whether the disk that holds `path`, or its nearest folder, has no room for a page."""
    folder = next(p for p in (path, *path.absolute().parents) if p.exists())
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize < _ROOM_FOR_A_PAGE


def divides(offsets: npt.NDArray[np.integer[Any]], n: int) -> bool:
    """Whether offsets (n + 1,) divide things, one after the other, among n: they begin at 0 and
    never fall. Compared, not subtracted, since differences of stored numbers may wrap."""
    if offsets.shape != (n + 1,) or offsets[0] != 0:
        return False
    return not np.any(offsets[1:] < offsets[:-1])


def all_below(numbers: npt.NDArray[np.integer[Any]], n: int) -> bool:
    """Whether all are from 0 to n - 1."""
    return not len(numbers) or (int(numbers.min()) >= 0 and int(numbers.max()) < n)
