"""A service in processes of its own, on a free port of this machine, for tests from outside."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from shared_state import state_options

SUPPORT = Path(__file__).parent
_STARTS_S, _ENDS_S = 90.0, 30.0


@dataclass(frozen=True)
class Served:
    """A running service: its address, and the process that was started."""

    url: str
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def workers(self) -> list[int]:
        """The numbers of the processes that answer."""
        found = subprocess.run(
            ["pgrep", "-P", str(self.process.pid), "-f", "spawn_main"],
            capture_output=True,
            text=True,
        )
        return [int(line) for line in found.stdout.split()]


def environment() -> dict[str, str]:
    """In which the fakes of the tests can be imported."""
    path = os.pathsep.join([str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


@contextmanager
def served(
    folder: Path,
    *,
    options: Sequence[str] = (),
    port: int | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """Serve the index folder until the block is left. variables: more of the environment."""
    port = free_port() if port is None else port
    log = folder.parent / f"serve-{port}.log"
    words = [
        sys.executable,
        "-m",
        "rag_flywheel",
        "serve",
        "--index",
        str(folder),
        "--port",
        str(port),
    ]
    words += [] if "--state" in options else state_options(folder)
    with log.open("ab") as out:
        env = {**environment(), **(variables or {})}
        process = subprocess.Popen([*words, *options], stdout=out, stderr=out, env=env)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, process, log)
        yield Served(url, process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_ENDS_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + _STARTS_S
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            httpx.get(f"{url}/v1/openapi.json", timeout=5)
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"the service did not start: {log.read_text(encoding='utf-8')[-2000:]}")
