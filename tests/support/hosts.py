"""Hosts that serve one index on PostgreSQL, each from a folder of its own, and an object store between
them."""

import json
import os
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

SCRIPTS = Path(__file__).parents[1] / "hosts"


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
    def worker(self, host: str, *what: str, script: str = "worker") -> Iterator["Worker"]:
        """A process of a host that does something: the script of this name in tests/hosts says what."""
        (self.folder / "hosts").mkdir(exist_ok=True)
        place = SCRIPTS / f"{script}.py"
        made = Worker(started(place, self.url, self.root(host), self.objects, *what))
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
        self._read = b""  # what was read of its output and is no line yet, or not taken

    def said(self, *, within_s: float = 60.0) -> list[Any]:
        """The next line."""
        assert self.says(within_s=within_s), f"it said nothing: {self.process.poll()}"
        line, _, self._read = self._read.partition(b"\n")
        found: list[Any] = json.loads(line)
        return found

    def says(self, *, within_s: float) -> bool:
        """Whether there is a line within this time."""
        assert self.process.stdout is not None
        out, until = self.process.stdout.fileno(), time.monotonic() + within_s
        while b"\n" not in self._read:
            left = max(0.0, until - time.monotonic())
            if not select.select([out], [], [], left)[0] or not (more := os.read(out, 65_536)):
                return False
            self._read += more
        return True

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
