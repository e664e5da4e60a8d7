"""A place in an object store: objects by their names, put, read, listed and deleted through obstore.

It knows addresses, limits of time and memory, and errors; it must not know what a version is.
"""

import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from rag_flywheel import disk
from rag_flywheel.deploy.object_aside import Aside
from rag_flywheel.deploy.object_requests import Direct, Requests
from rag_flywheel.errors import (
    ConfigError,
    DamagedObjectError,
    InputError,
    MissingObjectError,
    ObjectConflictError,
    ObjectStoreError,
    quoted,
)

_PLACES = (
    "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, file:///FOLDER or memory:///"
)
_REMOTE, _FILE, _MEMORY = ("s3", "gs", "az"), "file", "memory"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,221}", re.ASCII)
_PREFIX = re.compile(r"(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9._=-]{1,100}){0,10}/?", re.ASCII)
_FOLDER = re.compile(r"/+[^/]")
_UNFINISHED = re.compile(r".+#\d+")  # as obstore names a file that it writes
_QUERY = re.compile(r"\?[^\s\"')>]*")  # of a URL in a message, which may be a signature
MOST_LISTED = 200_000
"""How many objects are listed at most."""
_STATUS = re.compile(r"status code: (\d{3})")
_REFUSED = frozenset({401, 403})
_FINAL = frozenset({400, 401, 403, 404, 405, 416})
_LONGEST = 300  # characters of what the store says
_AT_ONCE = 1_000  # objects deleted by one request
CHUNK_BYTES = 8 * 2**20
"""What is sent or read at once of an object that is not held in memory whole."""
_T = TypeVar("_T")
_TRIES = 3  # of what obstore gave up
_LOCK = ".lock"
_LOCK_S = 30.0
_ENDPOINTS = "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT"


@dataclass(frozen=True)
class Waits:
    """How long a store is waited for, in seconds.

    connect_s: for a connection; request_s: for a request with its answer, of 8 MiB at most; retry_s: in
    which a request is begun again, up to `tries` times, with growing pauses of at most pause_s between them.
    obstore does not repeat some requests that lost their connection; these are begun again from here, so
    that a call takes 2 * (retry_s + request_s) at most.
    """

    connect_s: float = 5.0
    request_s: float = 60.0
    retry_s: float = 60.0
    tries: int = 6
    pause_s: float = 5.0


@dataclass(frozen=True)
class Tag:
    """Which state of an object was read; each store says so in its own way."""

    e_tag: str | None
    version: str | None


@dataclass(frozen=True)
class State:
    """An object that is there: its name, its bytes, and when it was written, by the clock of the store."""

    name: str
    n_bytes: int
    written: datetime
    tag: Tag


class ObjectStore:
    """The objects below an address. Threads may share it, and processes that are forked after its use."""

    def __init__(self, url: str, waits: Waits | None = None) -> None:
        """url: as `address_of` takes it. Connects to nothing. Raises InputError."""
        self.url = address_of(url)
        self.waits = waits or Waits()
        parts = urlsplit(self.url)
        self.folder = Path(unquote(parts.path)) if parts.scheme == _FILE else None
        """Of a store that is a folder of this machine; None: it is none."""
        self._requests: tuple[int, Requests] | None = None  # and the process that they are of
        self._opening = Lock()

    def put(self, name: str, data: bytes) -> Tag:
        """Write an object in one step, whatever has its name. Raises ObjectStoreError."""
        return self._put(name, data, use_multipart=False)

    def create(self, name: str, data: bytes) -> bool:
        """Write an object in one step, unless one has its name; whether it was written."""
        try:
            self._put(name, data, mode="create")
        except ObjectConflictError:
            return False
        return True

    def put_stream(self, name: str, parts: Iterator[bytes]) -> None:
        """Write an object, in one step at the end, from parts of at most 8 MiB; an error that they raise is
        raised, and nothing is written."""
        raised: list[BaseException] = []

        def each() -> Iterator[bytes]:
            try:
                yield from parts
            except BaseException as error:
                raised.append(error)
                raise

        own = {"use_multipart": True, "chunk_size": CHUNK_BYTES, "max_concurrency": 2}
        try:
            self._put(name, each(), **own)
        except ObjectStoreError:
            if raised:
                raise raised[0] from None
            raise

    def swap(self, name: str, data: bytes, tag: Tag | None) -> Tag:
        """Write an object in one step if it is in the state that `tag` names; None: if it is not there.

        Returns its new state. Raises ObjectConflictError, ObjectStoreError.
        """
        if tag is None:
            return self._put(name, data, mode="create")
        if self.folder is None:
            known = {"e_tag": tag.e_tag, "version": tag.version}
            mode = {key: value for key, value in known.items() if value is not None}
            return self._put(name, data, mode=mode)
        with self._locked(name):  # a folder has no conditional write
            found = self.state(name)
            if found is None or found.tag != tag:
                raise ObjectConflictError(self._said(name, "was changed by another writer first"))
            return self._put(name, data)

    def read(self, name: str, *, most: int) -> tuple[bytes, Tag]:
        """An object of at most so many bytes, and its state. Raises MissingObjectError,
        DamagedObjectError for a larger one, ObjectStoreError."""
        self._require_there(name)
        data, meta = self._asked(name, "read", lambda requests: requests.get(name, most))
        state = _state(meta)
        if state.n_bytes > most:
            raise DamagedObjectError(
                self._said(name, f"has {state.n_bytes} bytes; expected {most} at most")
            )
        return data, state.tag

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Bytes of an object from `start` to before `end`, which lie in it. Raises MissingObjectError,
        ObjectStoreError."""
        self._require_there(name)
        return self._asked(name, "read", lambda requests: requests.get_range(name, start, end))

    def state(self, name: str) -> State | None:
        """An object's state without its bytes; None: it is not there. Raises ObjectStoreError."""
        try:
            self._require_there(name)
            return _state(self._asked(name, "looked up", lambda requests: requests.head(name)))
        except MissingObjectError:
            return None

    def listed(self, prefix: str) -> Sequence[State]:
        """The objects in this folder of the store. Raises ObjectStoreError, also for very many."""
        if self._is_nowhere():
            return []
        every = self._asked(prefix, "listed", lambda requests: requests.list(prefix, MOST_LISTED))
        if len(every) > MOST_LISTED:
            raise ObjectStoreError(
                self._said(
                    prefix, f"holds more than {MOST_LISTED} objects; expected those of one index"
                )
            )
        return [_state(meta) for meta in every]

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; those that are not there are fine. Raises ObjectStoreError."""
        every = list(names)
        if self._is_nowhere():
            return
        for i in range(0, len(every), _AT_ONCE):
            self._delete(every[i : i + _AT_ONCE])

    def clean(self, prefix: str, older_s: float) -> None:
        """Delete what writers that died left of objects in a folder of the store, which no listing shows. A
        provider has rules of its own for uploads that were not finished."""
        if self.folder is None:
            return
        with disk.disk_errors(self.folder):
            for path in (self.folder / prefix).rglob("*"):
                if (
                    _UNFINISHED.fullmatch(path.name)
                    and time.time() - path.lstat().st_mtime >= older_s
                ):
                    path.unlink(missing_ok=True)

    def _delete(self, names: Sequence[str]) -> None:
        if self.folder is not None:  # which has no request for many, and minds those that are gone
            for name in names:
                with disk.disk_errors(self.folder):
                    disk.delete(self.folder, name)
            return
        self._asked(names[0], "deleted", lambda requests: requests.delete(names))

    def _put(self, name: str, data: bytes | Iterator[bytes], **options: Any) -> Tag:
        if self.folder is not None:
            with disk.disk_errors(self.folder):
                disk.make_folders((self.folder / name).parent, 0o700)
        done = self._asked(
            name,
            "written",
            lambda requests: requests.put(name, data, options),
            tries=_TRIES if isinstance(data, bytes) else 1,  # parts come once
        )
        if self.folder is not None:
            with disk.disk_errors(self.folder):
                disk.sync(self.folder / name)
                disk.sync((self.folder / name).parent)
        return Tag(done["e_tag"], done["version"])

    def _is_nowhere(self) -> bool:
        """Whether it is a folder that nothing was written to yet."""
        return self.folder is not None and not self.folder.is_dir()

    def _require_there(self, name: str) -> None:
        if self._is_nowhere():
            raise MissingObjectError(self._said(name, "is not there"))

    def requests(self) -> Requests:
        """What the store is asked by in this process. Raises ConfigError, ObjectStoreError, OSError."""
        process = os.getpid()
        with self._opening:
            if self._requests is None or self._requests[0] != process:
                self._requests = process, self._opened()
            return self._requests[1]

    def _opened(self) -> Requests:
        if _first_user() == os.getpid():
            return Direct(_obstore(), self._new())
        if self.url.startswith(f"{_MEMORY}:"):
            raise ObjectStoreError(
                f"{self.url} cannot be used by this process, which was forked from the one that has it in "
                "its memory; use another store"
            )
        return Aside(_obstore(), self.url, self.waits)

    def _new(self) -> Any:
        store = _obstore().store
        if self.folder is not None:
            disk.make_folders(self.folder, 0o700)
            return store.LocalStore(self.folder)
        if self.url.startswith(f"{_MEMORY}:"):
            return store.MemoryStore()
        waits = self.waits
        client: dict[str, object] = {
            "connect_timeout": timedelta(seconds=waits.connect_s),
            "timeout": timedelta(seconds=waits.request_s),
        }
        if any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINTS):
            client["allow_http"] = True  # as whoever set it said
        retry = {
            "max_retries": waits.tries - 1,
            "retry_timeout": timedelta(seconds=waits.retry_s),
            "backoff": {
                "init_backoff": timedelta(seconds=0.1),
                "max_backoff": timedelta(seconds=waits.pause_s),
                "base": 2.0,
            },
        }
        return store.from_url(self.url, client_options=client, retry_config=retry)

    def _asked(
        self, name: str, what: str, ask: Callable[[Requests], _T], *, tries: int = _TRIES
    ) -> _T:
        """What the store answers. what: is asked of the object, for messages."""
        obstore = _obstore()
        end = time.monotonic() + self.waits.retry_s
        for n in range(1, tries + 1):
            with self._errors(obstore.exceptions, name, what):
                try:
                    return ask(self.requests())
                except obstore.exceptions.GenericError as error:
                    last = n == tries or time.monotonic() > end
                    if last or self.folder is not None or _status(error) in _FINAL:
                        raise
            time.sleep(min(self.waits.pause_s, 0.2 * 2**n) * random.uniform(0.5, 1.0))
        raise AssertionError("the last try raises")

    @contextmanager
    def _errors(self, kinds: Any, name: str, what: str) -> Iterator[None]:
        """Turn errors of obstore in the block into ours."""
        try:
            yield
        except FileNotFoundError as error:
            if what == "written":
                raise ObjectStoreError(
                    self._said(
                        name,
                        f"could not be written ({_why(error)}); expected a bucket that is there",
                    )
                ) from None
            raise MissingObjectError(self._said(name, "is not there")) from error
        except (kinds.AlreadyExistsError, kinds.PreconditionError) as error:
            raise ObjectConflictError(
                self._said(name, "was changed by another writer first")
            ) from error
        except (kinds.BaseError, OSError, ValueError) as error:
            kind = kinds.PermissionDeniedError, kinds.UnauthenticatedError
            if isinstance(error, kind) or _status(error) in _REFUSED:
                raise ObjectStoreError(
                    self._said(name, f"cannot be {what}: the store refuses ({_why(error)})")
                    + "; give the credentials in the environment this permission, or others"
                ) from None
            raise ObjectStoreError(
                self._said(name, f"could not be {what} ({_why(error)})")
                + "; repeat the call once the store answers, which goes on where it was"
            ) from None

    def _said(self, name: str, what: str) -> str:
        return f"{name} of {self.url} {what}"

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        from filelock import FileLock, Timeout

        assert self.folder is not None
        disk.make_folders(self.folder, 0o700)
        lock = FileLock(self.folder / f".{name}{_LOCK}", mode=disk.new_file_mode(self.folder))
        try:
            lock.acquire(timeout=_LOCK_S)
        except Timeout as error:
            raise ObjectStoreError(
                self._said(name, f"was locked by another writer for {_LOCK_S:.0f} s; try again")
            ) from error
        try:
            yield
        finally:
            lock.release()


def address_of(url: object) -> str:
    """The URL of a place in an object store, without a slash at its end. Raises InputError.

    It holds no credentials: they are in the environment, under the names that the provider's own tools read,
    such as AWS_ACCESS_KEY_ID.
    """
    if not isinstance(url, str) or not unquote(url).isprintable():
        raise InputError(f"an object store is {quoted(url)}; expected {_PLACES}")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InputError(f"the URL of an object store cannot be read; expected {_PLACES}") from None
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(
            "the URL of an object store holds more than a place, perhaps a secret, which is shown nowhere; "
            f"expected {_PLACES}, and credentials in the environment, such as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY"
        )
    if (
        parts.scheme in _REMOTE
        and _BUCKET.fullmatch(parts.netloc)
        and _PREFIX.fullmatch(parts.path)
    ):
        return url.rstrip("/")
    if parts.scheme == _FILE and not parts.netloc and _FOLDER.match(parts.path):
        return url.rstrip("/")
    if parts.scheme == _MEMORY and not parts.netloc and not parts.path.strip("/"):
        return f"{_MEMORY}:///"
    raise InputError(
        f"an object store is {quoted(url)}; expected {_PLACES}, whose PREFIX is of letters, digits and ._=-"
    )


def _state(meta: Any) -> State:
    tag = Tag(meta["e_tag"], meta["version"])
    return State(str(meta["path"]), int(meta["size"]), meta["last_modified"], tag)


def _why(error: Exception) -> str:
    """What the store says, without what may be a secret: the query of a URL."""
    said = " ".join(str(error).split()).partition(" Debug source")[0]
    return _QUERY.sub("", said)[:_LONGEST]


def _status(error: Exception) -> int | None:
    """The status of HTTP that an error tells of."""
    found = _STATUS.search(str(error))
    return None if found is None else int(found[1])


@cache
def _first_user() -> int:
    """The process that used obstore first; one that is forked from it lacks its threads, so that another
    process asks for it."""
    return os.getpid()


def _obstore() -> Any:
    """obstore, which an extra brings. Raises ConfigError."""
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        raise ConfigError(
            "versions in an object store need obstore; install it with "
            "pip install 'rag-flywheel[objects]'"
        ) from error
    return obstore
