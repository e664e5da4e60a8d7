"""What the HTTP service takes: calls a second under load, one caller beside the library, and no errors.

    RAG_FLYWHEEL_DATA=... python benchmarks/speed/speed_service.py --work FOLDER

Queries come with their vectors. The service runs with two workers on loopback, and the callers, in
processes of their own, share its two cores. Under load one call in ten is a vote, and a refresh is begun
half-way. Then one caller asks the service and this process asks the library, in turns, with queries that
neither has seen.

FOLDER/index is used when it is there, else built.
"""

import argparse
import http.client
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Config, Flywheel
from rag_flywheel.bench.machine import commit, machine
from speed_data import Data, read_data

K, SEED = 8, 0
N_UNSEEN = 200  # queries that are not asked under load
ENCODER = "speed_served:encoder"
_STARTS_S = 120.0


def build(folder: Path, data: Data) -> None:
    """The index of all passages, refreshed, whose settings name the stored vectors as encoder."""
    with Flywheel.open(folder, encoder=data.encoder, config=Config(encoder=ENCODER)) as fw:
        for start in range(0, len(data.passages), 20_000):
            fw.add(data.passages[start : start + 20_000])
        fw.refresh()


@contextmanager
def service(index: Path, port: int, workers: int) -> Iterator[int]:
    """The running service; the number of its first process."""
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    words = [sys.executable, "-m", "rag_flywheel", "serve", "--index", str(index)]
    words += ["--port", str(port), "--workers", str(workers)]
    with (index.parent / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            words, env={**os.environ, "PYTHONPATH": path}, stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + _STARTS_S
        while time.monotonic() < end:
            try:
                caller = Caller(port)
                caller.ask("the first question")
                break
            except OSError:
                time.sleep(0.2)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


class Caller:
    """One connection that stays open."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self, method: str, path: str, body: object) -> tuple[int, Any]:
        """The status and the JSON of an answer."""
        headers = {"Content-Type": "application/json"}
        self._connection.request(method, path, json.dumps(body), headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")

    def ask(self, query: str, *, record: bool = True) -> tuple[int, Any]:
        return self.call("POST", "/v1/retrieve", {"query": query, "k": K, "record": record})


def load(port: int, queries: list[str], number: int, seconds: float, out: Any) -> None:
    """Ask for so long, and vote after one question in nine."""
    rng, caller = np.random.default_rng((SEED, number)), Caller(port)
    statuses: Counter[str] = Counter()
    took: list[float] = []
    end = time.monotonic() + seconds
    n = 0
    while time.monotonic() < end:
        began = time.perf_counter()
        status, found = caller.ask(queries[int(rng.integers(len(queries)))])
        took.append((time.perf_counter() - began) * 1e3)
        statuses[f"retrieve {status}"] += 1
        n += 1
        if n % 9 == 0 and status == 200 and found["hits"]:
            vote = {
                "retrieval_id": found["id"],
                "passage_id": found["hits"][int(rng.integers(len(found["hits"])))]["passage_id"],
                "verdict": "helpful" if rng.random() < 0.7 else "harmful",
                "user_id": f"u{number}-{n}",
            }
            statuses[f"vote {caller.call('POST', '/v1/feedback', vote)[0]}"] += 1
    out.put((statuses, took))


def under_load(port: int, queries: list[str], callers: int, seconds: float) -> dict[str, Any]:
    """Calls a second, percentiles and statuses while callers ask and vote and a refresh runs."""
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    every = [
        context.Process(target=load, args=(port, queries, n, seconds, out)) for n in range(callers)
    ]
    for each in every:
        each.start()
    time.sleep(seconds / 2)
    status, job = Caller(port).call("POST", "/v1/refresh", {})
    parts = [out.get(timeout=seconds + 120) for _ in every]
    for each in every:
        each.join()
    statuses = sum((part[0] for part in parts), Counter[str]())
    statuses[f"refresh {status}"] += 1
    while (found := Caller(port).call("GET", f"/v1/jobs/{job['id']}", None)[1])["ended"] is None:
        time.sleep(0.5)
    took = np.concatenate([part[1] for part in parts])
    p50, p95, p99 = np.percentile(took, [50, 95, 99]).round(2)
    return {
        "callers": callers,
        "seconds": seconds,
        "retrieves_per_s": round(len(took) / seconds, 1),
        "votes_per_s": round(
            sum(n for s, n in statuses.items() if s.startswith("vote")) / seconds, 1
        ),
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "p99_ms": float(p99),
        "statuses": dict(sorted(statuses.items())),
        "refresh": found["state"],
    }


def one_caller(port: int, fw: Flywheel, queries: list[str], rounds: int) -> dict[str, Any]:
    """Milliseconds of one call of the service and of the library, in turns."""
    caller = Caller(port)
    spent: dict[str, list[float]] = {"library": [], "service": []}
    for n in range(rounds):  # queries that neither has seen
        for query in queries[n::rounds]:
            began = time.perf_counter()
            fw.retrieve(query, K, record=False)
            between = time.perf_counter()
            caller.ask(query, record=False)
            spent["library"].append((between - began) * 1e3)
            spent["service"].append((time.perf_counter() - between) * 1e3)
    p50 = {name: round(float(np.median(each)), 2) for name, each in spent.items()}
    above = round(p50["service"] - p50["library"], 2)
    return {**{f"{name}_p50_ms": value for name, value in p50.items()}, "above_ms": above}


def main() -> None:
    """Measure, and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", default="aws_docs")
    parser.add_argument("--passages", type=int, default=None)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed_service.json"))
    asked = parser.parse_args()
    work = asked.work or Path(tempfile.mkdtemp(prefix="speed-service-"))
    data = read_data(asked.collection, asked.passages)
    index = work / "index"
    if not index.exists():
        build(index, data)
    vectors = dict(zip(data.queries, data.encoder.encode_queries(data.queries), strict=True))
    os.environ["SPEED_SERVED"] = str(work / "vectors.pickle")
    (work / "vectors.pickle").write_bytes(pickle.dumps(vectors))
    queries, unseen = data.queries[:-N_UNSEEN], data.queries[-N_UNSEEN:]
    with service(index, asked.port, asked.workers):
        loaded = under_load(asked.port, queries, asked.callers, asked.seconds)
        with Flywheel.open(index, encoder=data.encoder) as fw:
            one = one_caller(asked.port, fw, unseen, asked.rounds)
    result = {
        "commit": commit(),
        "seed": SEED,
        "machine": machine(),
        "collection": asked.collection,
        "n_passages": len(data.passages),
        "k": K,
        "workers": asked.workers,
        "under_load": loaded,
        "one_caller": one,
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    if asked.work is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
