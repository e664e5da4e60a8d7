"""Hosts that serve one index on PostgreSQL, each from a folder of its own, and an object store between
them."""

import json
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from fakes import WordEncoder
from folders import PASSAGES
from killed import started
from rag_flywheel import Flywheel
from rag_flywheel.deploy.objects import Objects
from rag_flywheel.store.postgres import Address

WORKER = Path(__file__).parents[1] / "hosts" / "worker.py"


class Shared:
    """An index that hosts share: the URL of its schema, its object store, and the folders of its hosts."""

    def __init__(self, folder: Path, url: str, objects: str) -> None:
        self.folder, self.url, self.objects = folder, url, objects
        self._open: list[Flywheel] = []

    def root(self, host: str) -> Path:
        """The folder of a host."""
        return self.folder / "hosts" / host

    def open(self, host: str, **more: Any) -> Flywheel:
        """The index, opened on a host; closed with the test."""
        (self.folder / "hosts").mkdir(exist_ok=True)
        given = {"encoder": WordEncoder(), "objects": self.objects, **more}
        found = Flywheel.open(self.url, cache=self.root(host), **given)
        self._open.append(found)
        return found

    def begun(self, *hosts: str) -> list[Flywheel]:
        """The index opened on these hosts, of which the first added and refreshed it."""
        first = self.open(hosts[0])
        first.add(PASSAGES)
        first.refresh()
        return [first, *(self.open(host) for host in hosts[1:])]

    def store(self) -> Objects:
        """What is in the object store."""
        return Objects.at(self.objects)

    @contextmanager
    def sql(self) -> Iterator[Any]:
        """A connection to the schema, in autocommit."""
        import psycopg

        address = Address.of(self.url)
        with closing(psycopg.connect(address.conninfo, autocommit=True)) as conn:
            conn.execute(f'SET search_path = "{address.schema}"')
            yield conn

    def end_connections(self) -> None:
        """End all connections of the index, as a server does that is shut down."""
        with self.sql() as conn:
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = %s AND pid != pg_backend_pid()",
                (f"rag-flywheel {Address.of(self.url).schema}",),
            )
        time.sleep(0.2)  # until the other side has noticed

    @contextmanager
    def worker(self, host: str, *what: str) -> Iterator["Worker"]:
        """A process of a host that does something: `tests/hosts/worker.py` says what."""
        (self.folder / "hosts").mkdir(exist_ok=True)
        made = Worker(started(WORKER, self.url, self.root(host), self.objects, *what))
        try:
            assert made.said() == ["ready"]
            yield made
        finally:
            made.process.kill()
            made.process.wait()
            assert made.process.stdout is not None
            made.process.stdout.close()

    def close(self) -> None:
        """Close every host."""
        for each in self._open:
            each.close()


class Worker:
    """A process that says what it does, a line of JSON at a time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def said(self, *, within_s: float = 60.0) -> list[Any]:
        """The next line."""
        out = self.process.stdout
        assert out is not None
        assert select.select([out], [], [], within_s)[0], "it said nothing"
        line = out.readline()
        assert line, f"it ended: {self.process.wait()}"
        found: list[Any] = json.loads(line)
        return found

    def go_on(self) -> None:
        """Let it go on after it stopped."""
        self.process.send_signal(signal.SIGCONT)

    def ended(self) -> int:
        """How it ended."""
        return self.process.wait(60)


def come_to(fw: Flywheel, version: str | None, *, within_s: float = 20.0) -> None:
    """Ask until answers come from this version, which a host fetches in the background."""
    until = time.monotonic() + within_s
    while (found := fw.retrieve("word3", k=1, record=False).version) != version:
        assert time.monotonic() < until, f"{found} answers after {within_s} s, not {version}"
        time.sleep(0.01)
