"""How fast other stores answer, beside ours: the same passages, given vectors, queries, k and recall.

    python benchmarks/speed/speed_peers.py --python PEERS/bin/python                  an hour
    python benchmarks/speed/speed_peers.py --python ... --passages 20000 --only txtai

PEERS is an environment with the stores: langchain-community langchain-classic rank-bm25 faiss-cpu
txtai llama-index-core llama-index-retrievers-bm25 llama-index-vector-stores-faiss chromadb lancedb
pymilvus milvus-lite. Each store and ours are two processes that take turns, round by round; no other
is there then. Dense search is as narrow as finds 97 % of the 10 nearest to these queries, where a
store lets it be set; ours stays as it sets itself.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from rag_flywheel.bench.machine import commit, machine
from rag_flywheel.store.passages import encoded_text
from speed import LIBRARIES, Figures, K, give_feedback
from speed_adapters import ADAPTERS
from speed_data import SEED, read_data
from speed_store import NEAREST
from speed_times import percentiles

LEAST_RECALL = 0.97
SLOW_MS, SLOW_QUERIES = 100.0, 50  # a store this slow is asked so many of the queries, evenly taken
OURS = "rag-flywheel"
_RECALL_QUERIES = 200
_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "TOKIO_WORKER_THREADS",
    "LANCE_CPU_THREADS",
    "TOKENIZERS_PARALLELISM",
)
_ONE_THREAD = dict.fromkeys(_THREADS, "1") | {"LANCE_LOG": "error"}


@dataclass(frozen=True)
class Place:
    """The data's folder, where indexes go, and the Python that has the stores."""

    data: Path
    work: Path
    python: Path

    def command(self, name: str, what: str) -> list[str]:
        """What starts the process of a store."""
        python = sys.executable if name == OURS else str(self.python)
        worker = Path(__file__).with_name("speed_peer.py")
        return [python, str(worker), name, str(self.data), str(self.work / name), what]


class Worker:
    """The process of a store, which answers orders."""

    def __init__(self, place: Place, name: str) -> None:
        self._process = subprocess.Popen(
            place.command(name, "serve"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | _ONE_THREAD,
            text=True,
        )
        self.ready: Figures = {}

    def __enter__(self) -> "Worker":
        self.ready = self._answer()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def __call__(self, order: Figures) -> Any:
        """Give an order; returns the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of the store ended ({self._process.wait()})")
        return json.loads(line)


def write_data(folder: Path, collection: str, n: int) -> None:
    """Passages, queries, their vectors, and the nearest by looking at all."""
    data = read_data(collection, n)
    folder.mkdir(parents=True)
    lines = (json.dumps({"id": p.id, "title": p.title, "text": p.text}) for p in data.passages)
    (folder / "passages.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "queries.json").write_text(json.dumps(data.queries), encoding="utf-8")
    vectors = data.encoder.encode_queries([encoded_text(p) for p in data.passages])
    asked = data.encoder.encode_queries(data.queries)
    np.save(folder / "vectors.npy", vectors)
    np.save(folder / "query-vectors.npy", asked)
    cosines = asked[:_RECALL_QUERIES] @ vectors.T
    tenth = np.sort(np.partition(cosines, -NEAREST, axis=1)[:, -NEAREST:], axis=1)[:, 0]
    np.save(folder / "tenth.npy", tenth)


def recall_of(place: Place, found: Sequence[Sequence[int]]) -> float:
    """The share of 10 that are as near as the tenth nearest; equal vectors are equally right."""
    vectors, tenth = np.load(place.data / "vectors.npy"), np.load(place.data / "tenth.npy")
    asked = np.load(place.data / "query-vectors.npy")
    right = [
        np.sum(vectors[rows] @ asked[i] >= tenth[i] - 1e-6) / NEAREST
        for i, rows in enumerate(found)
    ]
    return round(float(np.mean(right)), 4)


def narrowed(place: Place, worker: Worker) -> Figures:
    """The narrowest dense search that finds enough, and how much that is."""
    found: Figures = {}
    for width in worker.ready["widths"] or [0]:
        rows = worker({"width": width, "dense": list(range(_RECALL_QUERIES))})
        found = {"width": width, "recall@10": recall_of(place, rows)}
        if found["recall@10"] >= LEAST_RECALL:
            break
    return found


def beside(place: Place, name: str, rounds: int) -> Figures:
    """A store and ours in turn."""
    with Worker(place, name) as peer, Worker(place, OURS) as ours:
        figures: Figures = {key: peer.ready[key] for key in ("version", "hybrid", "setting")}
        figures["stored_texts"] = True
        figures["opening" if not peer.ready["built_where_it_serves"] else "build"] = {
            key: peer.ready[key] for key in ("s", "cpu_s")
        }
        figures |= narrowed(place, peer)
        figures["recall@10_of_ours"] = narrowed(place, ours)["recall@10"]
        n = len(json.loads((place.data / "queries.json").read_text(encoding="utf-8")))
        numbers = list(range(n))
        first = peer({"ask": numbers[:: n // 10]})
        if np.median(first["ms"]) > SLOW_MS:
            numbers = numbers[:: n // SLOW_QUERIES]
        ours({"ask": numbers})
        spent: dict[str, list[Figures]] = {"peer": [], "ours": []}
        for turn in range(rounds + 1):
            for who, worker in (("peer", peer), ("ours", ours)):
                one = worker({"ask": numbers})
                if turn:  # the first round warms up
                    spent[who].append(one)
        figures["n_queries"] = len(numbers)
        figures |= {who: summary(each) for who, each in spent.items()}
        figures["peer"] |= peer({})
        figures["ours"] |= ours({})
    return figures | ratios(figures["peer"], figures["ours"])


def summary(rounds: Sequence[Figures]) -> Figures:
    """Percentiles of each round, and of those the medians."""
    pairs = [list(zip(one["ms"], one["cpu_ms"], strict=True)) for one in rounds]
    mean = float(np.median([one["cpu_mean_ms"] for one in rounds]))
    return percentiles(pairs) | {"cpu_mean_ms": round(mean, 4)}


def ratios(peer: Figures, ours: Figures) -> Figures:
    """How many times as long the store takes; cpu: of the processor, by the mean."""
    return {
        "times_ours": round(peer["p50_ms"] / ours["p50_ms"], 2),
        "cpu_times_ours": round(peer["cpu_mean_ms"] / ours["cpu_mean_ms"], 2),
    }


def built(place: Place, name: str) -> Figures:
    """What building takes, in a process of its own; nothing where an index is there."""
    if (place.work / name).exists() or not ADAPTERS[name].persistent:
        return {}
    done = subprocess.run(
        place.command(name, "build"),
        stdout=subprocess.PIPE,
        check=True,
        env=os.environ | _ONE_THREAD,
    )
    return {"build": json.loads(done.stdout)}


def measured(place: Place, name: str, rounds: int) -> Figures:
    """One store; what went wrong, where it cannot be measured."""
    give_feedback(f"{name}: building")
    began = time.perf_counter()
    try:
        figures = built(place, name)
        give_feedback(f"{name}: asking")
        figures |= beside(place, name, rounds)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        figures = {"failed": str(error)[:300]}
    return {"name": name, **figures, "seconds": round(time.perf_counter() - began, 1)}


def arguments() -> argparse.Namespace:
    others = [name for name in ADAPTERS if name != OURS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, required=True, help="of the stores' environment")
    parser.add_argument("--collection", default="aws_docs")
    parser.add_argument("--passages", type=int, default=159_173)
    parser.add_argument("--only", nargs="+", choices=others, default=others)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "flywheel-peers")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed_peers.json"))
    return parser.parse_args()


def main() -> None:
    """Measure each store and write what was found; rows of other stores at this size stay."""
    asked = arguments()
    work = asked.work / f"{asked.collection}-{asked.passages}"
    place = Place(work / "data", work, asked.python)
    if not place.data.exists():
        give_feedback("data")
        write_data(place.data, asked.collection, asked.passages)
    kept = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else {}
    rows = {r["name"]: r for r in kept.get("peers", []) if kept["n_passages"] == asked.passages}
    give_feedback(f"{OURS}: building")
    own = built(place, OURS) or {"build": kept.get("build_of_ours")}
    for name in asked.only:
        rows[name] = {"commit": commit()} | measured(place, name, asked.rounds)
        found: Figures = {
            "commit": commit(),
            "seed": SEED,
            "collection": asked.collection,
            "n_passages": asked.passages,
            "k": K,
            "rounds": asked.rounds,
            "machine": machine(*LIBRARIES),
            "build_of_ours": own["build"],
            "peers": [rows[n] for n in ADAPTERS if n in rows],
        }
        found["seconds"] = round(sum(row["seconds"] for row in rows.values()), 1)
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        give_feedback(json.dumps(rows[name]))
        if ADAPTERS[name].persistent:
            shutil.rmtree(work / name, ignore_errors=True)


if __name__ == "__main__":
    main()
