"""Asks an object store from a process of its own, for one that was forked from a user of obstore.

obstore has threads, which a forked process lacks, and cannot begin others there. A server that opens an index
and then forks its workers would answer from an old version for ever. The process here is begun anew, does one
request after the other, and ends when nobody is left that could send one.
"""

import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from threading import Lock
from typing import Any, cast

from rag_flywheel.deploy.object_requests import Meta, Requests
from rag_flywheel.deploy.object_store import ObjectStore, Waits

_END_S = 5.0  # for which it is waited for when it is not needed any more
_PARTS = None  # in the place of bytes that follow one by one, and at their end


class Aside:
    """The requests of a process that was forked, which another one does; threads take turns."""

    def __init__(self, obstore: Any, url: str, waits: Waits) -> None:
        self._obstore, self._url, self._waits = obstore, url, waits
        self._lock = Lock()
        self._begun: tuple[Connection, subprocess.Popen[bytes]] | None = None

    def get(self, name: str, most: int) -> tuple[bytes, Meta]:
        """As `Requests.get`."""
        return cast("tuple[bytes, Meta]", self._answer("get", name, most))

    def get_range(self, name: str, start: int, end: int) -> bytes:
        """As `Requests.get_range`."""
        return cast("bytes", self._answer("get_range", name, start, end))

    def head(self, name: str) -> Meta:
        """As `Requests.head`."""
        return cast("Meta", self._answer("head", name))

    def list(self, prefix: str, most: int) -> list[Meta]:
        """As `Requests.list`."""
        return cast("list[Meta]", self._answer("list", prefix, most))

    def delete(self, names: Sequence[str]) -> None:
        """As `Requests.delete`."""
        self._answer("delete", list(names))

    def put(self, name: str, data: bytes | Iterator[bytes], options: Mapping[str, Any]) -> Meta:
        """As `Requests.put`."""
        if isinstance(data, bytes):
            return cast("Meta", self._answer("put", name, data, dict(options)))
        return cast("Meta", self._answer("put", name, _PARTS, dict(options), parts=data))

    def _answer(self, *request: object, parts: Iterator[bytes] | None = None) -> object:
        with self._lock:
            pipe, process = self._begun = self._begun or self._begin()
            try:
                pipe.send(request)
                if parts is not None:
                    for part in parts:
                        pipe.send(part)
                    pipe.send(_PARTS)
                kind, found = pipe.recv()
            except BaseException as error:  # what comes next is not the answer to the next request
                self._begun = None
                process.kill()
                _end(pipe, process)
                if isinstance(error, EOFError | ConnectionError):
                    raise OSError("the process that asks the object store ended") from error
                raise
        if kind is None:
            return found
        if kind == "FileNotFoundError":
            raise FileNotFoundError(found)
        raise getattr(self._obstore.exceptions, kind, OSError)(found)

    def _begin(self) -> "tuple[Connection, subprocess.Popen[bytes]]":
        here, there = Pipe()
        with there:
            process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(there.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
            )
        weakref.finalize(self, _end, here, process)
        here.send((self._url, self._waits))
        return here, process


def _end(pipe: Connection, process: "subprocess.Popen[bytes]") -> None:
    pipe.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)


def main(pipe: Connection) -> None:
    """Answer requests until nobody can send another."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which is for the other process
    with suppress(EOFError, ConnectionError):
        store = ObjectStore(*pipe.recv())
        while True:
            pipe.send(_answered(store, pipe, *pipe.recv()))


def _answered(
    store: ObjectStore, pipe: Connection, what: str, *given: Any
) -> tuple[object, object]:
    """The name of an error, None: there was none, and what it says, or the answer."""
    parts = _parts(pipe) if what == "put" and given[1] is _PARTS else iter(())
    try:
        requests: Requests = store.requests()
        if what == "put" and given[1] is _PARTS:
            return None, requests.put(given[0], parts, given[2])
        return None, getattr(requests, what)(*given)
    except (EOFError, ConnectionError):
        raise
    except FileNotFoundError as error:
        return "FileNotFoundError", str(error)
    except Exception as error:
        return type(error).__name__, str(error)
    finally:
        for _ in parts:  # what was not taken
            pass


def _parts(pipe: Connection) -> Iterator[bytes]:
    while (part := pipe.recv()) is not _PARTS:
        yield part


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
