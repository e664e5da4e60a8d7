"""Brings a version from an object store into an index folder: what another version there has is linked, the
rest downloaded, and every byte is hashed before anything reads it.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rag_flywheel import disk
from rag_flywheel.deploy.files import sha256
from rag_flywheel.deploy.lock import fetch_lock
from rag_flywheel.deploy.manifest import Manifest, manifest_text
from rag_flywheel.deploy.object_store import CHUNK_BYTES
from rag_flywheel.deploy.parallel import each_of
from rag_flywheel.deploy.quarantine import quarantine
from rag_flywheel.deploy.versions import (
    MANIFEST,
    STAGING,
    VERSIONS,
    check,
    list_versions,
    publish,
    read_manifest,
    stage,
    unstage,
    version_folder,
)
from rag_flywheel.errors import (
    DamagedObjectError,
    DiskFullError,
    FlywheelError,
    LockedError,
    MissingObjectError,
    StorageError,
)
from rag_flywheel.records import Progress

_LOCK_S = 600.0  # for which another process of this folder is waited for, which may fetch the same
_KIND = "fetch-"  # names in staging/, which a refresh of this folder leaves alone
_TRIES = 3
_SPARE_BYTES = 64 * 2**20  # left free on the disk


@dataclass(frozen=True)
class Fetched:
    """A version that was brought into a folder: files that were downloaded, their bytes, and how many were
    linked from other versions; all 0 when it was there."""

    folder: Path
    n_parts: int
    n_bytes: int
    n_linked: int


class _Store(Protocol):
    """What versions are fetched from."""

    def manifest(self, version: str) -> Manifest: ...

    def size_of(self, digest: str) -> int: ...

    def read_part(self, digest: str, start: int, end: int) -> bytes: ...


def fetch(store: _Store, root: Path, version: str, progress: Progress | None) -> Fetched:
    """As `Objects.fetch`."""
    target = version_folder(root, version)
    there = Fetched(target, 0, 0, 0)
    with disk.disk_errors(root):
        if _is_sound(root, version):
            return there
        with _one_at_a_time(root):
            for _ in range(_TRIES):
                if _is_sound(root, version):
                    return there
                staged = stage(root, _KIND)
                try:
                    return _fetched(store, root, staged, version, progress)
                except (FileNotFoundError, FileExistsError):
                    if staged.exists() and not target.exists():
                        raise
                    # another process of this folder cleaned up, or was first
                finally:
                    unstage(root, staged)
    raise StorageError(
        f"version {version} could not be put into {root}, where other processes delete or put in place what "
        "is fetched; try again"
    )


def _is_sound(root: Path, version: str) -> bool:
    return version in list_versions(root) and not check(root, version)


@contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    """Let processes of one folder fetch in turns, so that the second finds what the first brought; one that
    waited too long goes on beside the other. What those left that were killed is deleted."""
    with ExitStack() as stack:
        with suppress(LockedError):
            stack.enter_context(fetch_lock(root, wait_s=_LOCK_S))
            for name in disk.names_in(root, STAGING):
                if name.startswith(_KIND):
                    disk.delete(root, f"{STAGING}/{name}")
        yield


def _fetched(
    store: _Store, root: Path, staged: Path, version: str, progress: Progress | None
) -> Fetched:
    manifest = store.manifest(version)
    names: dict[tuple[str, int], list[str]] = {}
    for name, state in manifest.files.items():
        names.setdefault(state, []).append(name)
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
    known = _files_of(root)
    total, done = sum(size for _, size in names), 0
    missing = []
    linked = each_of(lambda state: (state, _linked(known, state, staged, names[state])), names)
    n_linked = 0
    for state, was_linked in linked:
        if was_linked:
            n_linked, done = n_linked + 1, done + state[1]
        else:
            missing.append(state)
    _require_room(root, sum(size for _, size in missing))

    def download(state: tuple[str, int]) -> int:
        _download(store, version, staged, names[state], *state)
        return state[1]

    for n_bytes in each_of(download, sorted(missing, key=lambda state: -state[1])):
        done += n_bytes
        if progress is not None:
            progress("fetch", done, total)
    _link_derived(known, staged, manifest)
    (staged / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")
    _put_in_place(root, staged, version, manifest.files)
    n_bytes = sum(size for _, size in missing)
    return Fetched(version_folder(root, version), len(missing), n_bytes, n_linked)


def _files_of(root: Path) -> Mapping[tuple[str, int], Sequence[Path]]:
    """The files of the versions on disk by hash and size, as their manifests say; the newest first."""
    found: dict[tuple[str, int], list[Path]] = {}
    for version in reversed(list_versions(root)):
        try:
            manifest = read_manifest(root, version)
        except FlywheelError:
            continue  # `verify` names it
        for name, state in manifest.every.items():
            found.setdefault(state, []).append(version_folder(root, version) / name)
    return found


def _linked(
    known: Mapping[tuple[str, int], Sequence[Path]],
    state: tuple[str, int],
    staged: Path,
    names: Sequence[str],
) -> bool:
    """Whether a version on disk has a file, which was linked under these names. What its manifest says of it
    is not believed: it is hashed here."""
    digest, size = state
    first, *others = (staged / name for name in names)
    for path in known.get(state, ()):
        try:
            if path.is_symlink() or path.lstat().st_size != size:
                continue
            disk.link(path, first)
            if first.stat().st_size == size and sha256(first) == digest:
                for other in others:
                    disk.link(first, other)
                return True
        except (FileNotFoundError, NotADirectoryError, ValueError):  # deleted meanwhile; no file
            pass
        first.unlink(missing_ok=True)
    return False


def _require_room(root: Path, n_bytes: int) -> None:
    room = os.statvfs(root)
    free = room.f_bavail * room.f_frsize
    if n_bytes and n_bytes + _SPARE_BYTES > free:
        raise DiskFullError(
            f"{root} has room for {free} bytes; the version needs {n_bytes} more. Free some and try again"
        )


def _download(
    store: _Store, version: str, staged: Path, names: Sequence[str], digest: str, size: int
) -> None:
    """Write a part under these names, never more bytes than the manifest says."""
    first, *others = (staged / name for name in names)
    try:
        if (found := store.size_of(digest)) != size:
            raise _damaged(store, version, names[0], digest, f"{found} bytes, not {size}")
        whole = hashlib.sha256()
        with first.open("xb") as file:
            for start in range(0, size, CHUNK_BYTES):
                data = store.read_part(digest, start, min(start + CHUNK_BYTES, size))
                whole.update(data)
                file.write(data)
    except MissingObjectError as error:
        raise MissingObjectError(
            f"{error}, which version {version} needs for {names[0]}; go on with a newer version, or publish "
            "this one again from a host that has it"
        ) from error
    if whole.hexdigest() != digest:
        raise _damaged(store, version, names[0], digest, "other bytes than its name says")
    for other in others:
        disk.link(first, other)


def _damaged(store: _Store, version: str, name: str, digest: str, what: str) -> DamagedObjectError:
    return DamagedObjectError(
        f"the part {digest} of {store}, {name} of version {version}, has {what}; nothing of it was used. "
        "Publish the version anew from a host that has it, or go on with a newer one"
    )


def _link_derived(
    known: Mapping[tuple[str, int], Sequence[Path]], staged: Path, manifest: Manifest
) -> None:
    """Link what is computed from other files, where a version on disk has all of it."""
    if not all(state in known for state in manifest.derived.values()):
        return
    for name, state in manifest.derived.items():
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        if not _linked(known, state, staged, [name]):
            for other in manifest.derived:
                (staged / other).unlink(missing_ok=True)
            return


def _put_in_place(root: Path, staged: Path, version: str, names: Iterable[str]) -> None:
    """Publish what was staged; a damaged version of this name is moved away."""
    if version in list_versions(root) and check(root, version):
        quarantine(root, f"{VERSIONS}/{version}", "it was damaged, and is fetched anew")
    target = publish(root, staged, version)
    if any(
        not (target / name).exists() for name in names
    ):  # cleaned up by one that waited no longer
        raise FileNotFoundError(f"{target} lost files while it was put in place")
