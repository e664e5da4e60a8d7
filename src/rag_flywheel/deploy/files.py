"""Lists and hashes the files of a version, within limits on their number and depth."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from rag_flywheel.disk import regular_file

MOST_FILES, MOST_DEPTH = 1_000, 4
"""How many files and folders a version may have, and how deep they may be."""
_AT_ONCE = 2**20  # bytes


def sha256(path: Path) -> str:
    """Hex digest of a file's contents, up to the size that it had when it was opened.

    Raises OSError, and ValueError for anything but a regular file.
    """
    whole = hashlib.sha256()
    with regular_file(path) as (file, left):
        while left and (part := file.read(min(left, _AT_ONCE))):
            whole.update(part)
            left -= len(part)
    return whole.hexdigest()


def entries_below(folder: Path) -> dict[str, os.stat_result]:
    """{name: its state} of everything below a folder except folders; links are not followed. What another
    process deletes meanwhile may be missing.

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
        try:
            entries = os.scandir(place)
        except FileNotFoundError:
            if not depth:
                raise
            continue
        with entries:
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
                    with suppress(FileNotFoundError):
                        found[name] = entry.stat(follow_symlinks=False)
    return found


def files_below(folder: Path) -> list[str]:
    """Sorted names, with "/" between folders, of all files below a folder; none without it.

    Unlike Path.rglob it tolerates folders that another process deletes meanwhile.
    """
    return sorted(
        (Path(path) / name).relative_to(folder).as_posix()
        for path, _, names in os.walk(folder)
        for name in names
    )
