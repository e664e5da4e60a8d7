"""A Dask scheduler and its workers in processes of their own, on loopback, and encoders for them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fakes import Vectors, WordEncoder

SUPPORT = Path(__file__).parent
WRITTEN, PAUSE = "TEST_WORKERS_WROTE", "TEST_WORKERS_PAUSE_S"


class CountedEncoder(WordEncoder):
    """Takes a while for each batch, and writes down which process encoded which texts."""

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        time.sleep(float(os.environ.get(PAUSE, "0")))
        if WRITTEN in os.environ:
            lines = "".join(f"{os.getpid()} {text}\n" for text in texts)
            with Path(os.environ[WRITTEN]).open("a", encoding="utf-8") as file:
                file.write(lines)
        return super().encode_passages(texts)


def counted_encoder() -> CountedEncoder:
    """For `encoder="dask_cluster:counted_encoder"`."""
    return CountedEncoder()


class TrainedAnewEncoder(WordEncoder):
    """Has other weights on the workers than here."""

    def __init__(self) -> None:
        super().__init__(revision="2" if WRITTEN in os.environ else "1")


class FailingEncoder(WordEncoder):
    """Fails on the workers, with a text in its message."""

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        if WRITTEN in os.environ:
            raise OSError(f"cannot read {texts[0]}")
        return super().encode_passages(texts)


class DeadlyEncoder(WordEncoder):
    """Ends the worker that uses it."""

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        if WRITTEN in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_passages(texts)


class OtherEncoder(CountedEncoder):
    """To change to."""

    def __init__(self) -> None:
        super().__init__(dim=48, name="other", revision="other")


def environment() -> dict[str, str]:
    """In which a child process can make these encoders."""
    path = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


class DaskCluster:
    """Starts a scheduler and workers on a port of loopback; `close` ends all of them."""

    def __init__(self, folder: Path, *, pause_s: float = 0.0) -> None:
        folder.mkdir(exist_ok=True)
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.written = folder / "written.txt"
        self._folder = folder
        self._pause_s = pause_s
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self, n_workers: int = 2) -> "DaskCluster":
        """Start a scheduler, and workers, and wait until it has them."""
        self.scheduler = self._run(
            "dask_scheduler", "--host", "127.0.0.1", "--port", self.port, "--no-dashboard"
        )
        for _ in range(n_workers):
            self.start_worker()
        if n_workers:
            from distributed import Client

            with Client(self.address, timeout=120, set_as_default=False) as client:
                client.wait_for_workers(n_workers, timeout=120)
        return self

    def start_worker(self, *, again: bool = False) -> None:
        """Start a worker of one thread; again: it is started again whenever it dies."""
        nanny = "--nanny" if again else "--no-nanny"
        options = (nanny, "--nthreads", 1, "--memory-limit", 0, "--death-timeout", 60)
        self.workers.append(
            self._run(
                "dask_worker", self.address, *options, "--no-dashboard", "--host", "127.0.0.1"
            )
        )

    def _run(self, module: str, *arguments: object) -> subprocess.Popen[bytes]:
        told = {WRITTEN: str(self.written), PAUSE: str(self._pause_s)}
        with (self._folder / f"{module}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{module}", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**environment(), **told},
            )

    def encoded(self) -> Counter[str]:
        """How often each text was encoded by a worker."""
        return Counter(line.partition(" ")[2] for line in self._lines())

    def pids(self) -> set[int]:
        """The workers that encoded anything."""
        return {int(line.partition(" ")[0]) for line in self._lines()}

    def _lines(self) -> list[str]:
        return (
            self.written.read_text(encoding="utf-8").splitlines() if self.written.exists() else []
        )

    def wait_for(self, n: int, *, within_s: float = 120.0) -> None:
        """Wait until so many texts were encoded."""
        end = time.monotonic() + within_s
        while len(self._lines()) < n:
            assert time.monotonic() < end, self.log()
            time.sleep(0.02)

    def log(self) -> str:
        """What scheduler and workers printed."""
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("dask_*.log")))

    def kill(self) -> None:
        """End scheduler and workers, as when their machines lose power."""
        for process in [*self.workers, *([self.scheduler] if self.scheduler else [])]:
            process.kill()
            process.wait()
        self.workers, self.scheduler = [], None

    close = kill
