"""Version folders: staged, promoted, checked, listed, pruned; and CURRENT, which says what is live.

A version is never changed after its folder is renamed into `versions/`. Replacing CURRENT is the
only commit point. This module must not know what the files of a version mean.
"""

import calendar
import dataclasses
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_flywheel.deploy.files import files_below, replace_text, sha256, sync, sync_tree
from rag_flywheel.errors import CorruptFileError, NewerFormatError, UnknownIdError
from rag_flywheel.records import Current

FORMAT_VERSION = 1
MANIFEST, CURRENT, VERSIONS, STAGING = "manifest.json", "CURRENT", "versions", "staging"
_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{5}")
_TIME = "%Y%m%dT%H%M%SZ"
_REMEDY = "run `rag-flywheel verify`, then `rollback` to a sound version or `refresh` to build one"


@dataclass(frozen=True)
class Manifest:
    """What a version holds. `watermark`: the event number up to which it was built; votes after
    `votes_until` (less than the watermark when it was built after a rollback) did not count for it.

    created: seconds since 1970; encoder, revision: its name, and which weights; dim: width of its
    vectors; files: {name: (sha256, bytes)}.
    """

    id: str
    created: float
    parent: str | None
    encoder: str
    revision: str
    dim: int
    n_passages: int
    watermark: int
    votes_until: int
    files: Mapping[str, tuple[str, int]]


def new_version_id(newest: str | None) -> str:
    """UTC time and five hex digits, random but above `newest`, so that ids sort by age."""
    seconds = int(time.time())
    floor = -1
    if newest is not None:
        last = calendar.timegm(time.strptime(newest[:16], _TIME))
        if last >= seconds:  # within one second, or the clock was set back
            floor = int(newest[17:], 16)
            seconds, floor = (last, floor) if floor < 0xFFFFF else (last + 1, -1)
    top = min(floor + 1000, 0xFFFFF) if floor >= 0 else 0xFFFFF
    suffix = floor + 1 + secrets.randbelow(top - floor)
    return f"{time.strftime(_TIME, time.gmtime(seconds))}-{suffix:05x}"


def version_folder(root: Path, version: str) -> Path:
    """Where a version is. Raises UnknownIdError for what cannot be a version's id."""
    if not isinstance(version, str) or not _ID.fullmatch(version):
        raise UnknownIdError(
            f"{version!r} is no version id; expected one like 20261121T093000Z-3f9c1 "
            "(see `rag-flywheel versions`)"
        )
    return root / VERSIONS / version


def list_versions(root: Path) -> list[str]:
    """Ids of the versions on disk, the oldest first."""
    folder = root / VERSIONS
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if _ID.fullmatch(p.name) and p.is_dir())


def read_current(root: Path) -> Current | None:
    """What is live; None before the first promotion. Raises CorruptFileError."""
    path = root / CURRENT
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise CorruptFileError(f"{path} is not text; {_REMEDY}") from error
    found = re.fullmatch(r"(\S+)(?: (\d{1,18}))?( held)?\n?", text)
    if not found or not _ID.fullmatch(found[1]):
        raise CorruptFileError(f"{path} says {text[:80]!r}; expected a version id. {_REMEDY}")
    return Current(found[1], None if found[2] is None else int(found[2]), found[3] is not None)


def write_current(root: Path, current: Current) -> None:
    """Make a version live: the commit point."""
    frozen = "" if current.frozen_at is None else f" {current.frozen_at}"
    held = " held" if current.held else ""
    replace_text(root / CURRENT, f"{current.version}{frozen}{held}\n")


def stage(root: Path) -> Path:
    """A new empty folder to build a version in."""
    name = f"{time.strftime(_TIME, time.gmtime())}-{os.getpid()}-{os.urandom(3).hex()}"
    folder = root / STAGING / name
    folder.mkdir(parents=True)
    return folder


def clean_staging(root: Path) -> int:
    """Delete what refreshes that died left behind; only for the holder of the refresh lock."""
    for unfinished in root.glob(f".{CURRENT}.*"):
        unfinished.unlink(missing_ok=True)
    folder = root / STAGING
    left = list(folder.iterdir()) if folder.is_dir() else []
    for path in left:
        shutil.rmtree(path)
    return len(left)


def seal(staged: Path, manifest: Manifest) -> Manifest:
    """Write the manifest of a staged version, last, with the hash and size of every other file."""
    files = {
        name: (sha256(staged / name), (staged / name).stat().st_size)
        for name in files_below(staged)
    }
    sealed = dataclasses.replace(manifest, files=files)
    values = {"format_version": FORMAT_VERSION, **dataclasses.asdict(sealed)}
    text = json.dumps(values, indent=2, sort_keys=True)
    (staged / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return sealed


def publish(root: Path, staged: Path, version: str) -> Path:
    """Move a sealed version into `versions/`, on the disk before this returns; not live yet."""
    target = version_folder(root, version)
    target.parent.mkdir(exist_ok=True)
    sync_tree(staged)
    staged.rename(target)
    sync(target.parent)
    return target


def existing_version(root: Path, version: str) -> Path:
    """The folder of a version that is on disk. Raises UnknownIdError, naming the newest that are."""
    folder = version_folder(root, version)
    if not folder.is_dir():
        known = ", ".join(list_versions(root)[-5:]) or "none"
        raise UnknownIdError(f"no version {version} in {root}; the newest are: {known}")
    return folder


def read_manifest(root: Path, version: str) -> Manifest:
    """The manifest of a version. Raises UnknownIdError, CorruptFileError, NewerFormatError."""
    return _parse_manifest(existing_version(root, version) / MANIFEST, version)


def _parse_manifest(path: Path, version: str) -> Manifest:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = values.pop("format_version")
        if type(found) is int and found > FORMAT_VERSION:
            raise NewerFormatError(
                f"{path} has format {found}; this release reads up to {FORMAT_VERSION}. "
                "Upgrade rag-flywheel to use this version"
            )
        files = {str(k): (str(v[0]), int(v[1])) for k, v in values.pop("files").items()}
        manifest = Manifest(files=files, **values)
        _require_sense(manifest, found, version)
    except (
        FileNotFoundError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        IndexError,
        RecursionError,
    ) as error:
        raise CorruptFileError(f"{path} is no usable manifest ({error}); {_REMEDY}") from error
    return manifest


def _require_sense(manifest: Manifest, format_version: object, version: str) -> None:
    counts = (manifest.dim, manifest.n_passages, manifest.watermark, manifest.votes_until)
    if type(format_version) is not int or format_version < 1:
        raise ValueError(f"its format_version is {format_version!r}")
    if manifest.id != version:
        raise ValueError(f"it describes {manifest.id!r}")
    if not all(type(n) is int and 0 <= n < 2**63 for n in counts):
        raise ValueError(f"its counts are {counts}")
    if type(manifest.created) not in {int, float} or not 0 <= manifest.created < 1e11:
        raise ValueError(f"created is {manifest.created!r}; expected seconds since 1970")
    if not (isinstance(manifest.encoder, str) and isinstance(manifest.revision, str)):
        raise ValueError("encoder and revision are not both text")
    if manifest.parent is not None and not isinstance(manifest.parent, str):
        raise ValueError(f"parent is {manifest.parent!r}")


def sound_file(root: Path, version: str, name: str) -> bool:
    """Whether one file of a version is there and what its manifest says."""
    try:
        digest, size = read_manifest(root, version).files[name]
    except (CorruptFileError, NewerFormatError, UnknownIdError, KeyError):
        return False
    path = version_folder(root, version) / name
    return path.is_file() and path.stat().st_size == size and sha256(path) == digest


Fingerprint = dict[str, list[int]]


def fingerprint(root: Path, version: str) -> Fingerprint:
    """{file: [inode, bytes, modification time in ns]} of a version's files, without reading them."""
    folder = version_folder(root, version)
    found = {}
    for name in files_below(folder):
        stat = (folder / name).stat()
        found[name] = [stat.st_ino, stat.st_size, stat.st_mtime_ns]
    return found


def check(root: Path, version: str) -> list[str]:
    """What is wrong with a version's files, each named; reads and hashes all of them."""
    folder = version_folder(root, version)
    try:
        manifest = read_manifest(root, version)
    except (CorruptFileError, NewerFormatError, UnknownIdError) as error:
        return [str(error)]
    problems = []
    present = set(files_below(folder))
    for name, (digest, size) in manifest.files.items():
        try:
            if name not in present:
                problems.append(f"{version}/{name} is missing")
            elif (found := (folder / name).stat().st_size) != size:
                problems.append(f"{version}/{name} has {found} bytes; its manifest says {size}")
            elif sha256(folder / name) != digest:
                problems.append(f"{version}/{name} is not what its manifest says (sha256 differs)")
        except FileNotFoundError:
            problems.append(f"{version}/{name} is missing")
        except PermissionError as error:
            problems.append(f"{version}/{name} cannot be read ({error.strerror})")
    extra = present - set(manifest.files) - {MANIFEST}
    return problems + [f"{version}/{name} is not in its manifest" for name in sorted(extra)]


def withdraw(root: Path) -> None:
    """Leave no version live, as before the first promotion; only for the holder of the lock."""
    (root / CURRENT).unlink(missing_ok=True)
    sync(root)


def prune(root: Path, *, keep: int, never: Collection[str]) -> list[str]:
    """Delete the oldest versions beyond the `keep` newest, but none in `never`; returns their ids."""
    known = list_versions(root)
    old = [v for v in known[: max(0, len(known) - keep)] if v not in never]
    for version in old:
        folder = version_folder(root, version)
        doomed = root / STAGING / f"pruned-{version}"  # renamed first: never half a version
        doomed.parent.mkdir(exist_ok=True)
        folder.rename(doomed)
        shutil.rmtree(doomed)
    return old
