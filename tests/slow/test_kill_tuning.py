"""SIGKILL in the middle of a tuning: what was live is live, and the next goes on to the same end."""

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from teachable import TeachableEncoder
from tuned import ids, live, manifest_of, opened, order, revisions, rows

WORKER = Path(__file__).with_name("tune_worker.py")
STEP = "tuning the query encoder"
SEED = 20261122
LATE = 8  # kills after the last step that is told

pytestmark = pytest.mark.slow


def started(root: Path) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(WORKER.parents[1] / "support"), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(WORKER), str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def killed(
    root: Path, at: tuple[str, int], time_of: int = 1, after_s: float | None = None
) -> list[tuple[str, int]]:
    """Run a worker up to a step, the n-th time that it is told, and end it there, or let it go on for
    so long; the steps it told."""
    worker = started(root)
    assert worker.stdout is not None
    assert worker.stdin is not None
    told: list[tuple[str, int]] = []
    try:
        for line in worker.stdout:
            step = json.loads(line)
            told.append((step[0], step[1] if len(step) > 1 else 0))
            there = told[-1] == at and told.count(at) == time_of
            if there and after_s is None:
                break
            worker.stdin.write("\n")
            worker.stdin.flush()
            if there and after_s is not None:
                time.sleep(after_s)
                break
        else:
            raise AssertionError(f"it ended before {at}: {told}")
    finally:
        worker.send_signal(signal.SIGKILL)
        worker.stdout.close()
        worker.stdin.close()
        worker.wait(60)
    return told


def seconds_after(root: Path, last: tuple[str, int]) -> float:
    """How long a worker takes here from that step to its report."""
    worker = started(root)
    assert worker.stdout is not None
    assert worker.stdin is not None
    times: dict[object, float] = {}
    with worker:
        for line in worker.stdout:
            step = json.loads(line)
            times["report" if step[0] == "report" else tuple(step[:2])] = time.monotonic()
            worker.stdin.write("\n")
            worker.stdin.flush()
    assert worker.returncode == 0
    return times["report"] - times[last]


@pytest.fixture
def ended(voted: Path, tmp_path: Path) -> tuple[str, list[list[str]], list[tuple[str, int]]]:
    """Of a tuning that nobody killed: the revision, the order, and the steps."""
    steps: list[tuple[str, int]] = []
    with opened(Path(shutil.copytree(voted, tmp_path / "twin"))) as fw:
        fw.refresh(tune=True, progress=lambda step, done, _: steps.append((step, done)))
        return manifest_of(fw)["tuned"], order(fw), steps


def test_a_tuning_that_is_killed_changes_nothing_and_is_taken_up(
    voted: Path,
    ended: tuple[str, list[list[str]], list[tuple[str, int]]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    revision, after, steps = ended
    with opened(voted) as fw:
        expected, first = order(fw), live(fw)
    places = [step for step in steps if step[0] != STEP][:2]
    places += [(STEP, n) for n in (0, 2, 5)]
    for place in places:
        told = killed(voted, place)
        with opened(voted) as fw:
            assert order(fw) == expected
            assert (ids(fw), live(fw)) == ([first], first)
            assert fw.verify() == []
            assert fw.retrieve("thing3 sweet").hits
    assert (STEP, 2) in told
    assert (STEP, 0) not in told  # it went on from the step before
    with opened(voted) as fw, caplog.at_level(logging.INFO, logger="rag_flywheel"):
        report = fw.refresh(tune=True)
        assert (report.outcome, report.encoder) == ("promoted", "new")
        assert "tuning: going on from step 5 of 8" in caplog.messages
        assert manifest_of(fw)["tuned"] == revision
        assert order(fw) == after
        assert fw.verify() == []
    assert not (voted / "tuning").exists()
    assert list((voted / "staging").iterdir()) == []


def test_one_that_is_killed_after_it_was_taught_is_live_or_not(
    voted: Path, ended: tuple[str, list[list[str]], list[tuple[str, int]]], tmp_path: Path
) -> None:
    revision, after, steps = ended
    chance, outcomes = random.Random(SEED), list[bool]()
    took_s = seconds_after(Path(shutil.copytree(voted, tmp_path / "timed")), steps[-1])
    for n in range(LATE):
        root = Path(shutil.copytree(voted, tmp_path / f"kill{n}"))
        with opened(root) as fw:
            expected, first = order(fw), live(fw)
        delay_s = took_s * 0.3 * (n + chance.random())
        print(f"seed {SEED}: kill {n}, {delay_s:.3f} s after {steps[-1]}")
        killed(root, steps[-1], steps.count(steps[-1]), delay_s)
        with opened(root) as fw:
            outcomes.append(live(fw) != first)
            print(f"  it was {'live' if outcomes[-1] else 'not live'}")
            assert order(fw) == (after if outcomes[-1] else expected)
            assert fw.verify() == []
            fw.refresh(tune=True)
            assert manifest_of(fw)["tuned"] == revision
            assert order(fw) == after
            assert fw.verify() == []
            tuned = {manifest_of(fw, version)["tuned"] for version in ids(fw)} - {None}
            assert set(revisions(root)) == tuned | {TeachableEncoder().revision}
            looked = rows(root, "SELECT version, outcome FROM looks WHERE arm = 'encoder'")
            assert len(looked) <= 1
        assert not (root / "tuning").exists()
        assert list((root / "staging").iterdir()) == []
