"""A Milvus Lite server on loopback, in a process of its own, and indexes that find passages in it."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from rag_flywheel import Flywheel, Hit, Retrieval

_STARTS_WITHIN_S = 60.0


def free_port() -> int:
    """A port on loopback that nothing listens on."""
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        port: int = some.getsockname()[1]
        return port


class MilvusLite:
    """A server that can be killed and started again on the same data and port."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "milvus_lite", "server", "--host", "127.0.0.1"]
        command += ["--port", str(self._port), "--data-dir", str(self._folder)]
        with (self._folder.parent / "milvus.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        began = time.monotonic()
        while time.monotonic() - began < _STARTS_WITHIN_S:
            if self._process.poll() is not None:
                break
            with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 0.2):
                return
            time.sleep(0.05)
        raise RuntimeError(f"Milvus Lite did not start; see {self._folder.parent / 'milvus.log'}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def milvus_lite(folder: Path) -> Iterator[MilvusLite]:
    """A running server with its data below a folder."""
    server = MilvusLite(folder / "data")
    try:
        server.start()
        yield server
    finally:
        server.kill()


class Both:
    """Two indexes to which the same is done, of which one finds passages in memory and one in a database."""

    def __init__(self, memory: Flywheel, elsewhere: Flywheel) -> None:
        self.memory, self.elsewhere = memory, elsewhere

    def do(self, what: Callable[[Flywheel], Any]) -> list[Any]:
        return [what(self.memory), what(self.elsewhere)]

    def vote(self, query: str, passage_id: str, verdict: str = "helpful", **more: Any) -> None:
        for fw in (self.memory, self.elsewhere):
            asked = fw.retrieve(query, k=20, user_id=f"user of {query}", **more)
            fw.feedback(asked.id, passage_id, verdict, user_id=f"user of {query}", **more)  # type: ignore[arg-type]

    def same(self, query: str, *, k: int = 20, within: float = 1e-6, **more: Any) -> list[str]:
        """The ids of the hits, which both show in the same order, with the same texts and scores."""
        found, expected = (
            fw.retrieve(query, k=k, record=False, **more) for fw in (self.elsewhere, self.memory)
        )
        assert [shown(hit) for hit in found.hits] == [shown(hit) for hit in expected.hits]
        assert numbers(found) == pytest.approx(numbers(expected), abs=within)
        return [hit.passage_id for hit in found.hits]


def shown(hit: Hit) -> tuple[object, ...]:
    return hit.passage_id, hit.rank, hit.title, hit.text, dict(hit.metadata)


def numbers(answer: Retrieval) -> list[float]:
    every = [(hit.score, hit.relevance, hit.explanation.evidence) for hit in answer.hits]
    return [answer.answerable, *chain.from_iterable(every)]
