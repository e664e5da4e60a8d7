"""Files that are either whole and on the disk, or not there.

It must not know what the files hold.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rag_flywheel.errors import InputError


def sync(path: Path) -> None:
    """Wait until a file's contents, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """`sync` every file and folder below `folder`, and itself."""
    for path in sorted(folder.rglob("*"), reverse=True):
        sync(path)
    sync(folder)


def replace_text(path: Path, text: str) -> None:
    """Replace a file's text in one step: readers see the old text or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


@contextmanager
def new_folder(out: Path, *, outside: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out`, new or empty, when the block ends; else nothing.

    Raises InputError when `out` is neither, or in the folder `outside`; both are absolute.
    """
    if out == outside or outside in out.parents:
        raise InputError(f"{out} is in the index folder; expected a new folder outside it")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; expected the name of a new folder")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty; expected a new or empty folder: give another name")
    staged = out.with_name(f".{out.name}.{os.getpid()}-{os.urandom(4).hex()}")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        staged.mkdir()
        yield staged
        sync_tree(staged)
        staged.rename(out)  # takes the place of an empty folder
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    sync(out.parent)


def sha256(path: Path) -> str:
    """Hex digest of a file's contents."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(folder: Path) -> list[str]:
    """Sorted names, with "/" between folders, of all files below; none when it is not there.

    Unlike Path.rglob it bears folders that another process deletes meanwhile.
    """
    return sorted(
        (Path(path) / name).relative_to(folder).as_posix()
        for path, _, names in os.walk(folder)
        for name in names
    )
