"""Versions of an index in an object store, from where hosts fetch what they lack of them.

    parts/AA/SHA256             a file of versions, by the hash of its bytes
    versions/ID/manifest.json   of a version: written last, and never changed
    CURRENT                     the live version, for people, and for recovery

Which version is live, the database says; here is only what versions consist of, so that a listing that lags
or an old CURRENT misleads nobody. One writer at a time holds the refresh lock. A second one, which slept and
does not know that it lost the lock, cannot harm what is published: a part is only ever written with the bytes
that its name says, a manifest never again, CURRENT only from the state that was read. It may still delete;
so `publish` looks at every part once more after the manifest is there, and `sweep` reads the manifests just
before each deletion.

It must not know where the database is, or which versions are wanted.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from rag_flywheel.deploy.fetch import Fetched, fetch
from rag_flywheel.deploy.manifest import MOST_BYTES, Manifest, manifest_text, parse_manifest
from rag_flywheel.deploy.object_store import CHUNK_BYTES, ObjectStore, State, Tag
from rag_flywheel.deploy.parallel import each_of
from rag_flywheel.deploy.versions import CURRENT, MANIFEST, VERSIONS, is_version_id, version_folder
from rag_flywheel.disk import disk_errors, regular_file
from rag_flywheel.errors import (
    CorruptFileError,
    DamagedObjectError,
    MissingObjectError,
    ObjectConflictError,
    ObjectStoreError,
    OlderFormatError,
    UnknownIdError,
)
from rag_flywheel.records import Progress

PARTS = "parts"
GRACE_S = 86_400.0
"""For how long `sweep` keeps parts that no manifest names yet."""
_REUSED_S = GRACE_S / 2  # within which such a part is taken as it is, and later written again
_AT_ONCE = 100  # parts that are deleted between two looks at the manifests
_MOST_CURRENT = 1_000  # bytes
_CLOCK = "clock"
_MANIFEST = re.compile(rf"{VERSIONS}/([^/]+)/{re.escape(MANIFEST)}")
_PART = re.compile(rf"{PARTS}/([0-9a-f]{{2}})/(\1[0-9a-f]{{62}})")
_SHA256 = re.compile(rb'"([0-9a-f]{64})"')


@dataclasses.dataclass(frozen=True)
class Sent:
    """What a version's publication sent: files, their bytes, and how many the store had already."""

    n_parts: int
    n_bytes: int
    n_skipped: int


class Objects:
    """The versions of one index at a place of an object store. Threads may share it."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    @classmethod
    def at(cls, url: str) -> "Objects":
        """Those at "s3://BUCKET/PREFIX", gs://, az://, "file:///FOLDER" or "memory:///", one index each.

        Connects to nothing. Credentials are in the environment, as the provider's own tools read them: AWS_*,
        with AWS_ENDPOINT_URL for another server than Amazon's. Raises InputError.
        """
        return cls(ObjectStore(url))

    def __str__(self) -> str:
        return self.store.url

    def publish(
        self,
        folder: Path,
        manifest: Manifest,
        progress: Progress | None = None,
        *,
        anew: bool = False,
    ) -> Sent:
        """Send the files of a version that the store lacks, then its manifest.

        Ended at any moment, it can be repeated, and sends only what is missing. folder: of the version; what
        differs from its manifest is not sent. progress: called with bytes; anew: whether to send every file,
        in place of what is damaged in the store. Raises CorruptFileError, ObjectStoreError.
        """
        files = {digest: (folder / name, size) for name, (digest, size) in _sent(manifest).items()}
        total = sum(size for _, size in files.values())
        found = self._states(files)
        named = set() if anew else self._named((), damaged_too=True)
        now = self._now()

        def is_there(digest: str, state: State | None) -> bool:
            if anew or state is None or state.n_bytes != files[digest][1]:
                return False
            return digest in named or (now - state.written).total_seconds() < _REUSED_S

        there = {digest for digest, state in found.items() if is_there(digest, state)}
        done = sum(files[digest][1] for digest in there)
        for digest in self._send(files, found, files.keys() - there):
            done += files[digest][1]
            if progress is not None:
                progress("publish", done, total)
        self._put_manifest(manifest, anew=anew)
        again = self._states(files)  # what was deleted meanwhile
        gone = {d for d, s in again.items() if s is None or s.n_bytes != files[d][1]}
        sent = (files.keys() - there) | set(self._send(files, again, gone))
        n_bytes = sum(files[digest][1] for digest in sent)
        return Sent(len(sent), n_bytes, len(files) - len(sent))

    def fetch(self, root: Path, version: str, *, progress: Progress | None = None) -> Fetched:
        """Bring a version into the index folder at `root`: what is in no version there is downloaded.

        A sound version that is there is left as it is, and the store not asked; a damaged one is moved to
        quarantine/. Ended at any moment, it leaves nothing but a folder in staging/, which the next one
        deletes. Processes of one folder take turns. Needs some 200 MB of memory, however large files are.
        progress: called with bytes. Raises UnknownIdError, MissingObjectError when a part is gone, so that a
        newer version may be whole, DamagedObjectError, ObjectStoreError, and StorageError of the disk.
        """
        return fetch(self, root, version, progress)

    def size_of(self, digest: str) -> int:
        """How many bytes a part has. Raises MissingObjectError, ObjectStoreError."""
        state = self.store.state(part_name(digest))
        if state is None:
            raise MissingObjectError(f"{part_name(digest)} of {self} is not there")
        return state.n_bytes

    def read_part(self, digest: str, start: int, end: int) -> bytes:
        """Bytes of a part from `start` to before `end`. Raises MissingObjectError, ObjectStoreError."""
        return self.store.read_range(part_name(digest), start, end)

    def versions(self) -> list[str]:
        """Ids of the versions that have a manifest, the oldest first. Raises ObjectStoreError."""
        found = []
        for state in self.store.listed(VERSIONS):
            match = _MANIFEST.fullmatch(state.name)
            if match is not None and is_version_id(match[1]):
                found.append(match[1])
        return sorted(found)

    def manifest(self, version: str) -> Manifest:
        """The manifest of a version. Raises UnknownIdError when the store has none, DamagedObjectError,
        NewerFormatError, OlderFormatError, ObjectStoreError."""
        name = _manifest_name(version)
        try:
            data, _ = self.store.read(name, most=MOST_BYTES)
        except MissingObjectError as error:
            newest = ", ".join(self.versions()[-5:]) or "none"
            raise UnknownIdError(
                f"no version {version} in {self}; the newest are: {newest}"
            ) from error
        try:
            found = parse_manifest(Path(name), version, data=data)
        except OlderFormatError:
            raise
        except CorruptFileError as error:
            raise DamagedObjectError(f"{self}: {error}") from error
        taken = {MANIFEST, *found.every}
        if MANIFEST in found.every or any(
            str(above) in taken for each in found.every for above in PurePosixPath(each).parents
        ):
            raise DamagedObjectError(
                f"{self}: {name} names itself, or a file below another file; expected files beside it"
            )
        return found

    def current(self) -> tuple[str, Tag | None]:
        """What CURRENT says, and of which state of it that is; "" and None without one.

        It may be old: the database says what is live. Raises ObjectStoreError.
        """
        try:
            data, tag = self.store.read(CURRENT, most=_MOST_CURRENT)
        except MissingObjectError:
            return "", None
        return data.decode("utf-8", "replace"), tag

    def set_current(self, text: str, tag: Tag | None) -> Tag:
        """Let CURRENT say this, if it is in the state of `tag`, None: not there; returns its new state.

        Raises ObjectConflictError when another writer was first, ObjectStoreError.
        """
        try:
            return self.store.swap(CURRENT, text.encode("utf-8"), tag)
        except ObjectConflictError:
            found, now = self.current()
            if found == text and now is not None:  # an answer was lost, and the request sent again
                return now
            raise

    def delete(self, versions: Iterable[str]) -> None:
        """Delete the manifests of versions, so that `sweep` deletes what they alone consist of; those that
        are not there are fine. Raises UnknownIdError for what is no id, ObjectStoreError."""
        self.store.delete([_manifest_name(version) for version in versions])

    def sweep(
        self,
        *,
        keep: Collection[str] = (),
        grace_s: float = GRACE_S,
        still: Callable[[], None] | None = None,
    ) -> int:
        """Delete parts that no manifest names; returns how many.

        keep: versions that are wanted, whose manifests are read even where a listing lacks them; grace_s:
        younger parts stay, by the clock of the store; still: called before deletions, raises when the caller
        may not go on, as when it lost the refresh lock. Deletes nothing while a manifest cannot be read.
        Raises UnknownIdError for one in `keep` that is not there, DamagedObjectError, ObjectStoreError.
        """
        named = self._named(keep)
        now = self._now()
        parts = [state for state in self.store.listed(PARTS) if _PART.fullmatch(state.name)]
        old = [state.name for state in parts if _is_old(state, now, grace_s)]
        n = 0
        for i in range(0, len(old), _AT_ONCE):
            doubtful = [name for name in old[i : i + _AT_ONCE] if name[-64:] not in named]
            looked = each_of(self.store.state, doubtful)
            still_old = [each.name for each in looked if each and _is_old(each, now, grace_s)]
            named = self._named(keep)  # last: whatever has a manifest by now stays
            doomed = [name for name in still_old if name[-64:] not in named]
            if still is not None:
                still()
            if doomed:
                self.store.delete(doomed)
            n += len(doomed)
        self.store.clean(PARTS, grace_s)
        return n

    def _states(self, digests: Iterable[str]) -> dict[str, State | None]:
        every = list(digests)
        found = each_of(lambda digest: (digest, self.store.state(part_name(digest))), every)
        return dict(found)

    def _send(
        self,
        files: dict[str, tuple[Path, int]],
        found: dict[str, State | None],
        digests: Collection[str],
    ) -> Iterator[str]:
        """Send these files, the largest first; gives their hashes as each is there."""

        def send(digest: str) -> str:
            path, size = files[digest]
            with disk_errors(path):
                self._send_one(path, digest, size, replace=found[digest] is not None)
            return digest

        return each_of(send, sorted(digests, key=lambda digest: -files[digest][1]))

    def _send_one(self, path: Path, digest: str, size: int, *, replace: bool) -> None:
        """Send a file, once its bytes are what its name will say. Raises CorruptFileError, OSError."""
        name = part_name(digest)
        try:
            with regular_file(path) as (file, n_bytes):
                if n_bytes != size:
                    raise ValueError(f"it has {n_bytes} bytes; its manifest says {size}")
                if size > CHUNK_BYTES:
                    self.store.put_stream(name, _checked(file, digest))
                    return
                data = file.read(size + 1)
            if hashlib.sha256(data).hexdigest() != digest:
                raise ValueError("it is not what its manifest says (sha256 differs)")
        except (ValueError, FileNotFoundError) as error:
            raise CorruptFileError(
                f"{path} cannot be sent to {self} ({error}); run `rag-flywheel repair`"
            ) from error
        if replace:
            self.store.put(name, data)
        else:
            self.store.create(name, data)

    def _put_manifest(self, manifest: Manifest, *, anew: bool) -> None:
        name, data = _manifest_name(manifest.id), manifest_text(manifest).encode("utf-8")
        if self.store.create(name, data):
            return
        try:
            found = self.manifest(manifest.id)
        except DamagedObjectError:
            if not anew:
                raise
            self.store.put(name, data)
            return
        if found != manifest:
            raise ObjectConflictError(
                f"{name} of {self} is another one than that of this version; expected each index to have a "
                "place of its own. Give this one another, or delete that version there"
            )

    def _named(self, keep: Collection[str], *, damaged_too: bool = False) -> set[str]:
        """The hashes of the parts of all versions, whichever release wrote their manifests. damaged_too:
        whether manifests that cannot be read may be passed over."""
        found: set[str] = set()
        for name in sorted({*map(_manifest_name, {*self.versions(), *keep})}):
            try:
                data, _ = self.store.read(name, most=MOST_BYTES)
                json.loads(data)
                digests = {digest.decode() for digest in _SHA256.findall(data)}
                if not digests:
                    raise ValueError("it names no file")
            except MissingObjectError as error:
                if name in map(_manifest_name, keep):
                    raise UnknownIdError(
                        f"{error}, though that version is wanted; nothing was deleted. Publish it again"
                    ) from error
                continue  # deleted meanwhile
            except (ValueError, DamagedObjectError) as error:
                if damaged_too:
                    continue
                raise DamagedObjectError(
                    f"{name} of {self} is no usable manifest ({error}); nothing was deleted. Delete that "
                    "version there, or publish it anew from a host that has it"
                ) from error
            found |= digests
        return found

    def _now(self) -> datetime:
        """What the clock of the store says."""
        self.store.put(_CLOCK, b"")
        state = self.store.state(_CLOCK)
        if state is None:
            raise ObjectStoreError(
                f"{self} lacks {_CLOCK}, which was just written; expected a store that shows what it took"
            )
        return state.written


def part_name(digest: str) -> str:
    """The name of the object that holds the file of this hash."""
    return f"{PARTS}/{digest[:2]}/{digest}"


def _manifest_name(version: str) -> str:
    """Raises UnknownIdError for anything that is no version id."""
    return f"{VERSIONS}/{version_folder(Path(), version).name}/{MANIFEST}"


def _sent(manifest: Manifest) -> dict[str, tuple[str, int]]:
    """The files of a version that the store holds: not those that are computed from others.

    Of 159,173 passages these are 90 MB beside 311 MB. All of them change with each edit, by which 30 MB of
    the others do, so that a host would fetch four times as much at each refresh to spare a process two
    seconds.
    """
    return dict(manifest.files)


def _is_old(state: State, now: datetime, grace_s: float) -> bool:
    return (now - state.written).total_seconds() >= grace_s


def _checked(file: BinaryIO, digest: str) -> Iterator[bytes]:
    """A file in parts, of which the last comes once the hash of all is right. Raises ValueError."""
    whole, before = hashlib.sha256(), b""
    while data := file.read(CHUNK_BYTES):
        whole.update(data)
        if before:
            yield before
        before = data
    if whole.hexdigest() != digest:
        raise ValueError("it is not what its manifest says (sha256 differs)")
    yield before
