"""Metrics of a service with several processes, from outside, and its lines of logs."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from served import Served, served
from service_client import make_index

pytestmark = pytest.mark.slow
N = 60


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.2)
    return found


def value(url: str, name: str, **labels: str) -> float | None:
    text = httpx.get(f"{url}/metrics", timeout=30).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == f"rag_flywheel_{name}" and labels.items() <= sample.labels.items():
                return float(sample.value)
    return None


def ask(url: str, n: int) -> None:
    """Each on a connection of its own, so that every process gets some."""
    for i in range(n):
        given = {"query": f"a new password {i}", "record": False}
        assert httpx.post(f"{url}/v1/retrieve", json=given, timeout=30).status_code == 200


def in_progress(service: Served) -> float:
    return value(service.url, "http_requests_in_progress") or 0.0


def test_processes_are_added_up_and_a_dead_one_keeps_its_counts_but_not_its_gauges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_index(tmp_path / "kb")
    monkeypatch.setenv("RAG_FLYWHEEL_SERVICE_NUMBERS_S", "0.5")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with served(folder, options=["--workers", "2", "--log-format", "json"]) as service:
        url = service.url
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        ask(url, N)
        assert value(url, "retrievals_total", index="kb", source="retrieve") == N
        assert value(url, "retrieve_duration_seconds_count", index="kb") == N
        until(lambda: value(url, "index_passages", index="kb") == 3)
        (counts,) = tmp_path.glob("rag-flywheel-metrics-*")
        pids = {path.stem.rpartition("_")[2] for path in counts.glob("counter_*.db")}
        assert len(pids) == 2, "both answered, and the sum is of both"
        reader = _holder(counts / "reader.lock")
        os.kill(reader, signal.SIGKILL)
        until(lambda: reader not in service.workers and len(service.workers) == 2)
        until(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        until(lambda: not (counts / f"gauge_livesum_{reader}.db").exists())
        assert _holder(counts / "reader.lock") in service.workers, "another one reads the numbers"
        ask(url, 5)
        assert value(url, "retrievals_total", index="kb", source="retrieve") == N + 5
        assert in_progress(service) == 1.0
    assert not counts.exists()
    lines = [json.loads(line) for line in service.log.read_text().splitlines() if line[:1] == "{"]
    asked = [each for each in lines if each.get("route") == "/v1/retrieve"]
    assert len(asked) == N + 5
    assert {each["status"] for each in asked} == {200}
    assert len({each["request_id"] for each in asked}) == N + 5
    assert "a new password" not in service.log.read_text()
    assert not [each for each in lines if each.get("route") == "/metrics"]


def _holder(lock: Path) -> int:
    """The process that holds a lock, by Linux's own list."""
    found = lock.stat()
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"

    def holder() -> int | None:
        rows = (line.split() for line in Path("/proc/locks").read_text().splitlines())
        return next((int(row[4]) for row in rows if len(row) > 5 and row[5] == place), None)

    pid: int = until(holder)
    return pid
