"""Files that are either whole and on the disk, or not there.

It must not know what the files hold.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rag_flywheel.disk import regular_file
from rag_flywheel.errors import InputError

MOST_FILES, MOST_DEPTH = 1_000, 4
"""How many files and folders a version may have, and how deep they may be."""
_AT_ONCE = 2**20  # bytes


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
    """Hex digest of a file's contents, as many as it had when it was opened.

    Raises OSError, and ValueError for what is no regular file.
    """
    whole = hashlib.sha256()
    with regular_file(path) as (file, left):
        while left and (part := file.read(min(left, _AT_ONCE))):
            whole.update(part)
            left -= len(part)
    return whole.hexdigest()


def entries_below(folder: Path) -> dict[str, os.stat_result]:
    """{name: its state} of everything below but folders; links are not followed.

    Raises OSError, and ValueError when there are too many, or folders in folders in folders.
    """
    found: dict[str, os.stat_result] = {}
    todo = [(folder, "", 0)]
    n_seen = 0
    while todo:
        place, prefix, depth = todo.pop()
        if depth > MOST_DEPTH:
            raise ValueError(
                f"{prefix} is nested too deeply; expected {MOST_DEPTH} folders at most"
            )
        with os.scandir(place) as entries:
            for entry in entries:
                n_seen += 1
                if n_seen > MOST_FILES:
                    raise ValueError(
                        f"{folder.name} holds more than {MOST_FILES} files and folders"
                    )
                name = f"{prefix}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    todo.append((place / entry.name, f"{name}/", depth + 1))
                else:
                    found[name] = entry.stat(follow_symlinks=False)
    return found


def is_regular(state: os.stat_result) -> bool:
    """Whether it is a plain file: no link, pipe, socket or device."""
    return stat.S_ISREG(state.st_mode)


def files_below(folder: Path) -> list[str]:
    """Sorted names, with "/" between folders, of all files below; none when it is not there.

    Unlike Path.rglob it bears folders that another process deletes meanwhile.
    """
    return sorted(
        (Path(path) / name).relative_to(folder).as_posix()
        for path, _, names in os.walk(folder)
        for name in names
    )
