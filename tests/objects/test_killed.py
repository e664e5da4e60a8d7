"""Processes that end at any moment while they publish or fetch leave nothing half done."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from s3 import BUCKET

SCRIPT = Path(__file__).with_name("killed_at.py")


def moments(what: str, url: str, built: Path, work: Path, step: int) -> int:
    """How many moments there were at which it was ended."""
    pytest.importorskip("obstore", reason="needs the extra objects: make test-objects")
    (work / "at").mkdir()
    command = [sys.executable, str(SCRIPT), what, url, str(built), str(work / "at"), str(step)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=os.environ)
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout))


@pytest.mark.parametrize("what", ["publish", "fetch"])
@pytest.mark.parametrize("step", [23, pytest.param(5, marks=pytest.mark.slow)])
def test_at_any_moment_with_a_folder(built: Path, tmp_path: Path, what: str, step: int) -> None:
    assert moments(what, f"file://{tmp_path}/store", built, tmp_path, step) > 100


@pytest.mark.slow
@pytest.mark.parametrize("what", ["publish", "fetch"])
def test_at_any_moment_with_a_server(s3: str, built: Path, tmp_path: Path, what: str) -> None:
    assert moments(what, f"s3://{BUCKET}/{tmp_path.name}", built, tmp_path, 29) > 100
