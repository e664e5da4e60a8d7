"""Mutations of every file of an index, in child processes whose death is a failure.

RAG_FLYWHEEL_MUTATIONS sets how many; ten thousand take a quarter of an hour.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import hostile

AT_ONCE = 250
BATCHES = int(os.environ.get("RAG_FLYWHEEL_MUTATIONS", "3000")) // AT_ONCE
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder in memory, where there is one."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        hostile.make(Path(name) / "good")
        yield Path(name)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_no_mutation_crashes_or_is_served(place: Path, batch: int) -> None:
    work = place / f"work{batch}"
    work.mkdir()
    first = 1_000_000 + batch * AT_ONCE
    done = subprocess.run(
        [
            sys.executable,
            hostile.__file__,
            str(place / "good"),
            str(work),
            str(first),
            str(AT_ONCE),
        ],
        capture_output=True,
        text=True,
        timeout=AT_ONCE * hostile.TIMEOUT_S,
    )
    last = (work / "seed").read_text()
    assert done.returncode == 0, f"the process died at seed {last}: {done.stderr[-2000:]}"
    assert json.loads(done.stdout) == []
