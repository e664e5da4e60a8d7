"""No vote that the service acknowledged is lost, whichever of its processes is killed, and when."""

import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from rag_flywheel import Flywheel, Passage
from served import Served, free_port, served

N_KILLS = int(os.environ.get("RAG_FLYWHEEL_SERVICE_KILLS", "6"))
N_CALLERS = 4


@dataclass
class Voted:
    """What was acknowledged: (user, passage) of each vote; and what came back instead."""

    acknowledged: set[tuple[str, str]] = field(default_factory=set)
    refused: list[int] = field(default_factory=list)
    broken: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def vote(url: str, caller: int, voted: Voted, stop: threading.Event) -> None:
    """Ask and vote as one new user after another, until it is over."""
    n = 0
    while not stop.is_set():
        with suppress(httpx.HTTPError), httpx.Client(base_url=url, timeout=20) as client:
            while not stop.is_set():
                n += 1
                user = f"u{caller}-{n}"
                try:
                    asked = client.post("/v1/retrieve", json={"query": "the desk", "user_id": user})
                    if asked.status_code != 200:
                        voted.refused.append(asked.status_code)
                        continue
                    body = {
                        "retrieval_id": asked.json()["id"],
                        "passage_id": "desk",
                        "verdict": "helpful",
                    }
                    done = client.post(
                        "/v1/feedback",
                        json={**body, "user_id": user, "reason": user},
                        headers={"Idempotency-Key": user},
                    )
                except httpx.HTTPError:
                    voted.broken += 1
                    raise
                if done.status_code == 200:
                    with voted.lock:
                        voted.acknowledged.add((user, "desk"))
                else:
                    voted.refused.append(done.status_code)
        time.sleep(0.05)


def kill_one(service: Served, chance: random.Random) -> bool:
    """Kill a worker, or the first process; returns whether it was the first."""
    workers = service.workers
    if not workers or chance.random() < 0.3:
        os.kill(service.process.pid, signal.SIGKILL)
        service.process.wait()
        return True
    os.kill(chance.choice(workers), signal.SIGKILL)
    return False


@pytest.mark.slow
def test_no_acknowledged_vote_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(3)
    folder, port = tmp_path / "kb", free_port()
    with Flywheel.open(folder, encoder="fakes:WordEncoder") as fw:
        fw.add([Passage("desk", "the desk is open"), Passage("cats", "cats sleep all day")])
    voted, killed = Voted(), 0
    while killed < N_KILLS:
        with served(folder, options=["--workers", "2"], port=port) as service:
            stop = threading.Event()
            with ThreadPoolExecutor(N_CALLERS) as pool:
                callers = [
                    pool.submit(vote, service.url, n * 10**6 + killed * 10**3, voted, stop)
                    for n in range(N_CALLERS)
                ]
                try:
                    first = False
                    while killed < N_KILLS and not first:
                        time.sleep(chance.uniform(0.3, 1.0))
                        first = kill_one(service, chance)
                        killed += 1
                    time.sleep(0.5)
                finally:
                    stop.set()
                for caller in callers:
                    caller.result(60)
    with Flywheel.open(folder) as fw:
        votes = fw.votes(10**6)
        assert fw.verify() == []
    stored = [(v.reason, v.passage_id) for v in votes]
    assert len(voted.acknowledged) > 5 * N_KILLS
    assert voted.acknowledged <= set(stored)
    assert len(stored) == len(set(stored))
    assert set(voted.refused) <= {503}
    print(
        {
            "kills": killed,
            "acknowledged": len(voted.acknowledged),
            "stored": len(stored),
            "broken": voted.broken,
        }
    )


SLOW_START = """
import os, time
if "RAG_FLYWHEEL_SERVICE_PARENT" in os.environ:  # a process that answers, not the first one
    time.sleep(7)
"""


@pytest.mark.slow
def test_processes_that_take_long_to_start_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_START)
    here = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", here)
    folder = tmp_path / "kb"
    with Flywheel.open(folder, encoder="fakes:WordEncoder") as fw:
        fw.add([Passage("desk", "the desk is open")])
    with served(folder, options=["--workers", "2"]) as service:
        asked = httpx.post(f"{service.url}/v1/retrieve", json={"query": "the desk"})
        assert asked.status_code == 200
        log = service.log.read_text(encoding="utf-8")
    assert "died" not in log
