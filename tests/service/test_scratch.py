"""The folder of a service is deleted with it, or by the next one when it was killed; never one in use."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rag_flywheel.service.scratch import hold, scratch_folder

CHILD = """
import sys, time
from rag_flywheel.service.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "counter_1.db").write_text("1")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def started() -> tuple["subprocess.Popen[str]", Path]:
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child, Path(child.stdout.readline().strip())


def test_it_is_deleted_with_the_block(place: Path) -> None:
    with scratch_folder() as folder:
        assert folder.parent == place
        assert folder.stat().st_mode & 0o077 == 0
    assert list(place.iterdir()) == []


def test_what_a_killed_service_left_is_deleted_by_the_next_one(place: Path) -> None:
    child, left = started()
    try:
        with scratch_folder() as own:
            assert left.is_dir() and own.is_dir()  # both are in use
            worker = hold(left)
            child.send_signal(signal.SIGKILL)
            child.wait()
            with scratch_folder():
                assert left.is_dir()  # a worker of it still ends
                os.close(worker)
                with scratch_folder():
                    assert not left.exists()
                    assert own.is_dir()
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def test_what_is_not_a_service_s_stays(place: Path) -> None:
    others = [place / "rag-flywheel-metrics-other", place / "rag-flywheel-metrics-file"]
    others[0].mkdir()
    (others[0] / "notes.txt").write_text("mine")
    others[1].write_text("mine")
    (place / "elsewhere").mkdir()
    (place / "elsewhere" / "held.lock").touch()
    (place / "rag-flywheel-metrics-link").symlink_to(place / "elsewhere")
    with scratch_folder():
        pass
    assert (others[0] / "notes.txt").read_text() == others[1].read_text() == "mine"
    assert (place / "elsewhere" / "held.lock").exists()
