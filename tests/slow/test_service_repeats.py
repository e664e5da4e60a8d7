"""Requests that are repeated after the service was killed in the midst of them vote once."""

import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.store.service.requests import UNDER_WAY_S
from served import served

N_KILLS, N_VOTES = 5, 400


def make(folder: Path) -> list[str]:
    """An index, and retrievals of it."""
    with Flywheel.open(folder, config=Config(encoder="fakes:WordEncoder")) as fw:
        fw.add([Passage("reset", "open settings to get a new password")])
        return [str(fw.retrieve("a new password", user_id=f"u{n}").id) for n in range(N_VOTES)]


def vote(client: httpx.Client, url: str, n: int, retrieval: str) -> int:
    """The status of a vote; 0: there was no answer."""
    body = {
        "retrieval_id": retrieval,
        "passage_id": "reset",
        "verdict": "helpful",
        "user_id": f"u{n}",
    }
    try:
        answer = client.post(
            f"{url}/v1/feedback", json=body, headers={"Idempotency-Key": f"vote {n}"}
        )
    except httpx.TransportError:
        return 0
    return answer.status_code


def n_requests(folder: Path, where: str = "1") -> int:
    with closing(sqlite3.connect(folder / "service.db", timeout=30)) as conn:
        found: int = conn.execute(f"SELECT count(*) FROM requests WHERE {where}").fetchone()[0]
    return found


@pytest.mark.slow
def test_votes_that_are_repeated_after_kills_are_there_once(tmp_path: Path) -> None:
    retrievals = make(tmp_path / "kb")
    seed = random.Random(1)
    for n_kill in range(N_KILLS):
        part = list(enumerate(retrievals))[n_kill * N_VOTES // N_KILLS :]
        with served(tmp_path / "kb", options=["--workers", "2"]) as service:
            over = threading.Event()

            def send(some: list[tuple[int, str]], url: str, over: threading.Event) -> None:
                with httpx.Client(timeout=20) as client:
                    for n, retrieval in some:
                        if not over.is_set():
                            vote(client, url, n, retrieval)

            before = n_requests(tmp_path)
            threads = [
                threading.Thread(target=send, args=(part[i::6], service.url, over))
                for i in range(6)
            ]
            for each in threads:
                each.start()
            until = time.monotonic() + 60
            while n_requests(tmp_path) < before + 20 and time.monotonic() < until:
                time.sleep(0.01)
            time.sleep(seed.uniform(0.0, 0.05))
            for pid in (*service.workers, service.process.pid):
                os.kill(pid, signal.SIGKILL)
            over.set()
            for each in threads:
                each.join()
    unknown = n_requests(tmp_path, "status IS NULL")
    with closing(sqlite3.connect(tmp_path / "service.db")) as conn, conn:
        conn.execute("UPDATE requests SET at = at - ?", (UNDER_WAY_S + 1,))
    with served(tmp_path / "kb", options=["--workers", "2"]) as service, httpx.Client() as client:
        last = Counter(vote(client, service.url, n, r) for n, r in enumerate(retrievals))
        again = Counter(vote(client, service.url, n, r) for n, r in enumerate(retrievals))
    assert last == again == {200: N_VOTES}
    with closing(sqlite3.connect(tmp_path / "kb" / "flywheel.db")) as conn:
        rows = conn.execute("SELECT rid, count(*) FROM votes GROUP BY rid").fetchall()
    print(f"{unknown} requests were under way when their process was killed")
    assert unknown
    assert len(rows) == N_VOTES
    assert {n for _, n in rows} == {1}


@pytest.mark.slow
def test_answers_of_several_processes_do_not_wait_for_acknowledgements(tmp_path: Path) -> None:
    make(tmp_path / "kb")
    with served(tmp_path / "kb", options=["--workers", "2"]) as service, httpx.Client() as client:
        took = []
        for _ in range(50):
            begun = time.perf_counter()
            client.get(f"{service.url}/v1/metadata-keys")
            took.append(time.perf_counter() - begun)
    assert sorted(took)[10] < 0.03  # the kernel's delay is 0.04 s
