"""Asks an object store through a process of its own, for one that was forked from a user of obstore.

obstore has threads, which a forked process lacks, and cannot begin others there. A server that opens an index
and then forks its workers would answer from an old version for ever. What is asked goes to a process that is
begun anew, `object_process`.
"""

import subprocess
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from threading import Lock
from typing import Any, cast

from rag_flywheel.deploy.object_requests import Meta

_END_S = 5.0  # for which it is waited for when it is not needed any more
PARTS = None
"""In the place of bytes that follow one by one, and at their end."""
_PROCESS = "rag_flywheel.deploy.object_process"


class Aside:
    """The requests of a process that was forked, which another one does; threads take turns."""

    def __init__(self, obstore: Any, url: str, waits: object) -> None:
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
        return cast("Meta", self._answer("put", name, PARTS, dict(options), parts=data))

    def _answer(self, *request: object, parts: Iterator[bytes] | None = None) -> object:
        with self._lock:
            pipe, process = self._begun = self._begun or self._begin()
            try:
                pipe.send(request)
                if parts is not None:
                    for part in parts:
                        pipe.send(part)
                    pipe.send(PARTS)
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
                [sys.executable, "-m", _PROCESS, str(there.fileno())],
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
