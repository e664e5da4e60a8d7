"""Workers in processes of their own, which are ended by SIGKILL in the middle of their work."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def started(script: Path, *arguments: object) -> subprocess.Popen[bytes]:
    """A worker: a script beside the tests that says what it does, a line of JSON at a time."""
    places = (script.parents[1] / "support", script.parent, os.environ.get("PYTHONPATH", ""))
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))},
    )


def killed_after(
    worker: subprocess.Popen[bytes], delay_s: float, call: str | None = None
) -> list[tuple[str, Any]]:
    """(word, what) of each line that a worker said until it was ended, delay_s after its first one
    after "ready", or after the call of that name began."""
    assert worker.stdout is not None
    try:
        assert json.loads(worker.stdout.readline()) == ["ready"]
        lines = [worker.stdout.readline()]
        while call is not None and lines[-1] and json.loads(lines[-1]) != ["begin", call]:
            lines.append(worker.stdout.readline())
        time.sleep(delay_s)
    finally:
        worker.send_signal(signal.SIGKILL)
        lines += worker.stdout.readlines()
        worker.stdout.close()
        assert worker.wait() == -signal.SIGKILL, "the worker ended by itself"
    return [(word, what) for word, what in map(json.loads, lines)]


def ran_to(script: Path, root: Path, last: int) -> tuple[list[Any], bool]:
    """(what a worker said that ends itself by SIGKILL at its moment number `last`, whether it came to its
    end before)."""
    worker = started(script, root, last)
    assert worker.stdout is not None
    with worker.stdout as said:
        lines = said.readlines()
    code = worker.wait()
    assert code in (0, -signal.SIGKILL)
    return [json.loads(line) for line in lines], code == 0
