"""Stages, seals, publishes, checks and lists version folders.

A version never changes after its folder is renamed into `versions/`.
"""

import calendar
import dataclasses
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from rag_flywheel import disk
from rag_flywheel.deploy.files import entries_below, files_below, sha256
from rag_flywheel.deploy.manifest import Manifest, Parent, manifest_text, parse_manifest
from rag_flywheel.disk import REMEDY, sync_tree
from rag_flywheel.errors import CorruptFileError, NewerFormatError, UnknownIdError, quoted
from rag_flywheel.index.parts import DERIVED_FOLDER as DERIVED
from rag_flywheel.store import wall_clock

MANIFEST, CURRENT = "manifest.json", "CURRENT"
VERSIONS, STAGING, QUARANTINE, TUNING = "versions", "staging", "quarantine", "tuning"
FOLDERS = VERSIONS, STAGING, QUARANTINE, TUNING
"""The folders that an index makes in its own."""
_ID = re.compile(
    r"[2-9]\d{3}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])T(?:[01]\d|2[0-3])(?:[0-5]\d){2}Z-[0-9a-f]{5}",
    re.ASCII,
)
_LAST = calendar.timegm((9999, 12, 31, 23, 59, 59))
_TIME = "%Y%m%dT%H%M%SZ"


def new_version_id(newest: str | None) -> str:
    """UTC time and five hex digits, random but above `newest`, so that ids sort by age."""
    seconds = int(wall_clock.now())
    floor = -1
    if newest is not None:
        last = _seconds(newest)
        if last >= seconds:  # within one second, or the clock was set back
            floor = int(newest[17:], 16)
            seconds, floor = (last, floor) if floor < 0xFFFFF else (last + 1, -1)
    if seconds > _LAST:
        raise CorruptFileError(
            f"{VERSIONS}/{newest} is named as if made at the end of time, and no version can come "
            "after it; move that folder away"
        )
    top = min(floor + 1000, 0xFFFFF) if floor >= 0 else 0xFFFFF
    suffix = floor + 1 + secrets.randbelow(top - floor)
    return f"{time.strftime(_TIME, time.gmtime(seconds))}-{suffix:05x}"


def _seconds(version: str) -> int:
    """When a version was made, by its id; also for days that no month has."""
    return calendar.timegm(
        (int(version[:4]), *(int(version[i : i + 2]) for i in (4, 6, 9, 11, 13)))
    )


def is_version_id(name: object) -> bool:
    """Whether this has the form of a version's id."""
    return isinstance(name, str) and _ID.fullmatch(name) is not None


def version_folder(root: Path, version: str) -> Path:
    """The folder of a version. Raises UnknownIdError for anything that is no version id."""
    if not is_version_id(version):
        raise UnknownIdError(
            f"{quoted(version)} is no version id; expected one like 20261121T093000Z-3f9c1 "
            "(see `rag-flywheel versions`)"
        )
    return root / VERSIONS / version


def list_versions(root: Path) -> list[str]:
    """Ids of the versions on disk, the oldest first."""
    return [path.name for path in _entries(root) if _is_version(path)]


def strays(root: Path) -> list[str]:
    """Names of everything in `versions/` that is no version: links, files, other folders."""
    return [path.name for path in _entries(root) if not _is_version(path)]


def _entries(root: Path) -> list[Path]:
    return [root / VERSIONS / name for name in disk.names_in(root, VERSIONS)]


def _is_version(path: Path) -> bool:
    return is_version_id(path.name) and path.is_dir() and not path.is_symlink()


def stage(root: Path, kind: str = "") -> Path:
    """A new empty folder to build a version in. kind: what its name begins with."""
    made = time.strftime(_TIME, time.gmtime(wall_clock.now()))
    return disk.make_folder(root, f"{STAGING}/{kind}{made}-{os.getpid()}-{os.urandom(3).hex()}")


def unstage(root: Path, staged: Path) -> None:
    """Delete a staged version, unless it was published."""
    disk.delete(root, f"{STAGING}/{staged.name}")


def empty(root: Path, staged: Path) -> None:
    """Delete what is in a staged version so far."""
    place = f"{STAGING}/{staged.name}"
    for name in disk.names_in(root, place):
        disk.delete(root, f"{place}/{name}")


def seal(staged: Path, manifest: Manifest, *, parent: Parent | None = None) -> Manifest:
    """Write the manifest of a staged version, last, with the hash and size of every other file.

    parent: files that are linked from there are not hashed again.
    """
    every = {name: _digest_and_size(staged, name, parent) for name in files_below(staged)}
    derived = {name: state for name, state in every.items() if name.startswith(f"{DERIVED}/")}
    files = {name: state for name, state in every.items() if name not in derived}
    sealed = dataclasses.replace(manifest, files=files, derived=derived)
    (staged / MANIFEST).write_text(manifest_text(sealed), encoding="utf-8")
    return sealed


def _digest_and_size(staged: Path, name: str, parent: Parent | None) -> tuple[str, int]:
    path = staged / name
    state = path.lstat()
    if parent is not None and (known := parent.manifest.every.get(name)) is not None:
        other = parent.folder / name
        if other.exists() and os.path.samestat(state, other.lstat()):
            digest, size = known
            if size == state.st_size:
                return digest, size
    return sha256(path), state.st_size


def publish(root: Path, staged: Path, version: str) -> Path:
    """Move a sealed version into `versions/` and sync it to the disk; it is not live yet."""
    target = version_folder(root, version)
    disk.make_private(staged)
    sync_tree(staged)
    disk.move(root, f"{STAGING}/{staged.name}", f"{VERSIONS}/{version}")
    return target


def delete_versions(root: Path, versions: Iterable[str]) -> None:
    """Delete version folders; those that are not there are fine."""
    for version in versions:
        doomed = f"{STAGING}/pruned-{version}"  # renamed first: never half a version
        disk.delete(root, doomed)  # of one that was ended
        with suppress(FileNotFoundError):
            disk.move(root, f"{VERSIONS}/{version}", doomed)
        disk.delete(root, doomed)


def existing_version(root: Path, version: str) -> Path:
    """The folder of a version on disk. Raises UnknownIdError, which names the newest versions."""
    folder = version_folder(root, version)
    disk.require_no_links(root, [VERSIONS])
    if folder.is_symlink():
        raise CorruptFileError(f"{folder} is a symbolic link; expected a folder. {REMEDY}")
    if not folder.is_dir():
        known = ", ".join(list_versions(root)[-5:]) or "none"
        raise UnknownIdError(f"no version {version} in {root}; the newest are: {known}")
    return folder


def read_manifest(root: Path, version: str) -> Manifest:
    """The manifest of a version. Raises UnknownIdError, CorruptFileError, NewerFormatError."""
    return parse_manifest(existing_version(root, version) / MANIFEST, version)


def sound_file(root: Path, version: str, name: str) -> bool:
    """Whether one file of a version exists and matches its manifest."""
    try:
        digest, size = read_manifest(root, version).files[name]
    except (CorruptFileError, NewerFormatError, UnknownIdError, KeyError):
        return False
    return _file_problem(version_folder(root, version) / name, digest, size) is None


Fingerprint = dict[str, list[int]]


def fingerprint(root: Path, version: str) -> Fingerprint:
    """{file: [kind, inode, bytes, times of change in ns]} of a version's files, without reading them.

    The time of the last change of the inode is among them, which no program can set back. Empty
    when there are too many files.
    """
    try:
        found = entries_below(version_folder(root, version))
    except ValueError:
        return {}
    return {
        name: [s.st_mode, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns]
        for name, s in sorted(found.items())
    }


def check(root: Path, version: str) -> list[str]:
    """What is wrong with a version's files, each named; reads and hashes all of them."""
    folder = version_folder(root, version)
    try:
        manifest = read_manifest(root, version)
    except (CorruptFileError, NewerFormatError, UnknownIdError) as error:
        return [str(error)]
    try:
        present = set(entries_below(folder))
    except (OSError, ValueError) as error:
        return [f"{version} cannot be looked through ({error})"]
    problems = [
        f"{version}/{name} {problem}"
        for name, (digest, size) in sorted(manifest.every.items())
        if (name in manifest.files or _is_there(folder / name))
        and (problem := _file_problem(folder / name, digest, size)) is not None
        and (name in manifest.files or _is_there(folder / name))  # else deleted meanwhile
    ]
    extra = present - set(manifest.every) - {MANIFEST}
    return problems + [f"{version}/{name} is not in its manifest" for name in sorted(extra)]


def _is_there(path: Path) -> bool:
    """Whether anything has this name, in a folder that is no link."""
    return os.path.lexists(path) and not path.parent.is_symlink()


def _file_problem(path: Path, digest: str, size: int) -> str | None:
    """What is wrong with one file of a version; None when it matches its manifest."""
    try:
        state = path.lstat()
        if not stat.S_ISREG(state.st_mode):
            return "is a link, a folder or a device; expected a file"
        if state.st_size != size:
            return f"has {state.st_size} bytes; its manifest says {size}"
        if sha256(path) != digest:
            return "is not what its manifest says (sha256 differs)"
    except (FileNotFoundError, NotADirectoryError):
        return "is missing"
    except (OSError, ValueError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    return None
