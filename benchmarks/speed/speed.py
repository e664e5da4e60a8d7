"""How fast a call is, beside the least that it could take: raw faiss and raw bm25s on the same data.

    python benchmarks/speed/speed.py                                   all of it, hours
    python benchmarks/speed/speed.py --passages 10000 --only retrieve --past 1000

Needs a collection below RAG_FLYWHEEL_DATA. Queries come with their vectors: an encoder that returns
stored ones at once, so that what is measured is ours. Rounds take turns, floor and ours, in one
process; what is remembered of queries is forgotten before each round, so every call is a first one.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Candidate, Flywheel, Vote
from rag_flywheel.bench.machine import commit, machine
from rag_flywheel.deploy.versions import version_folder
from speed_data import SEED, Data, near, read_data
from speed_floor import Floor, raw_commits_ms
from speed_refresh import refreshes
from speed_times import Spent, Times, memory_mib, percentiles, timed

SIZES = (10_000, 50_000, 159_173)
LIBRARIES = ("faiss-cpu", "bm25s", "numpy", "scipy")
K, THREADS, N_VOTES, N_BATCH = 8, 4, 200, 1_000
Figures = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """An index folder of some passages, under measurement; rounds: how often each thing is done."""

    fw: Flywheel
    root: Path
    data: Data
    rounds: int

    @property
    def vectors(self) -> np.ndarray:
        return self.data.encoder.encode_queries(self.data.queries)


def retrieve(bench: Bench) -> Figures:
    """One query after the other, and four at a time: floor, ours, and ours with its record.

    "least" is the floor with the best of BM25 picked as we do, which is quicker.
    """
    fw, queries, vectors = bench.fw, bench.data.queries, bench.vectors
    floor = Floor(live(bench), dim=vectors.shape[1])
    calls: dict[str, Callable[[int], object]] = {
        "floor": lambda i: floor(queries[i], vectors[i]),
        "floor_dense": lambda i: floor.dense(vectors[i]),
        "floor_bm25": lambda i: floor.bm25(queries[i]),
        "least": lambda i: floor.least(queries[i], vectors[i]),
        "ours": lambda i: fw.retrieve(queries[i], K, record=False),
        "ours_recorded": lambda i: fw.retrieve(queries[i], K),
    }
    found: Figures = {"graph": floor.said(vectors[:N_VOTES]), "n_queries": len(queries)}
    found["status_recall@10"] = fw.status().dense_recall
    for threads in (1, THREADS):
        if threads > 1:
            calls = {name: calls[name] for name in ("floor", "ours")}
        spent: dict[str, list[Times]] = {name: [] for name in calls}
        per_s: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(bench.rounds + 1):
            for name, call in calls.items():
                fw.lookups.clear()
                began = time.perf_counter()
                one = timed(call, len(queries), threads)
                if turn:  # the first round warms up
                    spent[name].append(one)
                    per_s[name].append(len(one) / (time.perf_counter() - began))
        rows = {name: percentiles(rounds) for name, rounds in spent.items()}
        for name, each in per_s.items():
            rows[name]["per_s"] = round(float(np.median(each)), 1)
        for name in {"ours", "ours_recorded"} & set(calls):
            rows[name] |= beside(rows, name)
        found[f"threads_{threads}"] = rows
    return found


def beside(rows: dict[str, dict[str, float]], name: str) -> dict[str, float]:
    """A row beside those of the floor, by the time of the processor."""
    found, own = {}, rows[name]["cpu_p50_ms"]
    for floor in sorted({"floor", "least"} & set(rows)):
        found[f"times_the_{floor}"] = round(own / rows[floor]["cpu_p50_ms"], 2)
        found[f"above_the_{floor}_ms"] = round(own - rows[floor]["cpu_p50_ms"], 3)
    found["p99_over_p50"] = round(rows[name]["cpu_p99_ms"] / own, 2)
    return found


def many(bench: Bench) -> Figures:
    """Queries a second when all are given at once, with their record and without."""
    spent: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(bench.rounds):
        for record, each in spent.items():
            bench.fw.lookups.clear()
            began = time.perf_counter()
            bench.fw.retrieve_many(bench.data.queries, K, record=record)
            each.append(len(bench.data.queries) / (time.perf_counter() - began))
    names = {True: "recorded_per_s", False: "per_s"}
    return {names[record]: round(float(np.median(each)), 1) for record, each in spent.items()}


def votes(bench: Bench) -> Figures:
    """One durable vote beside a raw commit, and the query after it; votes a second together."""
    shown = bench.fw.retrieve_many(bench.data.queries[:N_VOTES], K)
    given = [Vote(r.id, r.hits[i % len(r.hits)].passage_id, "helpful") for i, r in enumerate(shown)]
    raw, ours, after, together = [], [], [], []
    for _ in range(bench.rounds):
        raw.append(raw_commits_ms(bench.root, len(given)))
        ours.append(timed(lambda i: bench.fw.feedback_many(given[i : i + 1]), len(given)))
        after.append(timed(partial(vote_and_ask, bench, given), 2 * len(given))[1::2])
        batch = given * (N_BATCH // len(given))
        began = time.perf_counter()
        bench.fw.feedback_many(batch)
        together.append(len(batch) / (time.perf_counter() - began))
    per_s = round(float(np.median(together)), 1)
    figures: Figures = {"raw_commit": percentiles(raw), "vote": percentiles(ours)}
    figures |= {"together_per_s": per_s, "retrieve_after_a_vote": percentiles(after)}
    figures["times_raw"] = round(figures["vote"]["p50_ms"] / figures["raw_commit"]["p50_ms"], 2)
    return figures


def vote_and_ask(bench: Bench, given: Sequence[Vote], i: int) -> None:
    """One vote, for even i; for odd i a query, whose answer has to take the vote into account."""
    if i % 2:
        bench.fw.retrieve(bench.data.queries[-i], K, record=False)
    else:
        bench.fw.feedback_many(given[i // 2 : i // 2 + 1])


def opening(bench: Bench) -> Figures:
    """A process of its own opens the folder and asks one query after the other; medians."""
    queries = bench.data.queries[: 2 * bench.rounds]
    vectors = bench.root.parent / "opening.npz"
    np.savez(vectors, queries=np.array(queries), vectors=bench.data.encoder.encode_queries(queries))
    runs = []
    for _ in range(bench.rounds):
        command = [sys.executable, __file__, "--open", str(bench.root), str(vectors)]
        runs.append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))
    return {name: round(float(np.median([run[name] for run in runs])), 4) for name in runs[0]}


def opened(root: Path, stored: Path) -> Figures:
    """What `opening` measures, in its process."""
    from speed_data import Stored

    held = np.load(stored, allow_pickle=False)
    queries = [str(q) for q in held["queries"]]
    encoder = Stored(dict(zip(queries, held["vectors"], strict=True)))
    moments = [(time.perf_counter(), time.process_time())]
    with Flywheel.open(root, encoder=encoder) as fw:
        for query in queries:
            moments.append((time.perf_counter(), time.process_time()))
            fw.retrieve(query, K, record=False)
        moments.append((time.perf_counter(), time.process_time()))
    spent, busy = np.diff(moments, axis=0).T
    said = {"peak_mib": memory_mib()["peak_mib"]}
    for kind, each in (("", spent), ("cpu_", busy)):
        said |= {f"{kind}open_s": float(each[0]), f"{kind}first_query_s": float(each[1])}
        said[f"{kind}later_query_s"] = float(np.median(each[2:]))
    return said


def refresh(bench: Bench) -> Figures:
    """Refreshes beside the raw libraries: see `speed_refresh.py`."""
    return refreshes(bench.fw, bench.root, bench.data, K)


def live(bench: Bench) -> Path:
    """The folder of the version that is served."""
    current = bench.fw.status().version
    if current is None:
        raise SystemExit(f"{bench.root} has no live version")
    return version_folder(bench.root, current)


def with_past(bench: Bench, n: int) -> Figures:
    """Put so many voted queries into the past, near those that are asked; each names one passage."""
    rng = np.random.default_rng([SEED, n])
    vectors = near(bench.vectors, n, rng)
    texts = [f"{bench.data.queries[i % len(bench.data.queries)]} {i}" for i in range(n)]
    bench.data.encoder.also(texts, vectors)
    shown = bench.fw.retrieve_many(bench.data.queries, K, record=False)
    given = [[Candidate(h.passage_id, h.text, h.score) for h in r.hits] for r in shown]
    began, ids = time.perf_counter(), []
    for i, text in enumerate(texts):
        candidates = given[i % len(given)]
        ids.append((bench.fw.rerank(text, candidates, K).id, candidates[i % 3].passage_id))
        give_feedback(f"past queries {i + 1:,} of {n:,}", i + 1 == n or not i % 1000)
    for start in range(0, n, 10_000):
        bench.fw.feedback_many([Vote(*pair, "helpful") for pair in ids[start : start + 10_000]])
    spent = time.perf_counter() - began
    began = time.perf_counter()
    bench.fw.refresh()
    return {"n": n, "s": round(spent, 1), "refresh_s": round(time.perf_counter() - began, 1)}


MEASURES: dict[str, Callable[[Bench], Figures]] = {
    "retrieve": retrieve,
    "many": many,
    "open": opening,
    "votes": votes,
    "refresh": refresh,
}


@contextmanager
def built(root: Path, data: Data, rounds: int) -> Iterator[tuple[Bench, Figures]]:
    """An index folder of these passages, and what it took to build; one that is there is used."""
    new = not root.exists()
    figures: Figures = {}
    with Flywheel.open(root, encoder=data.encoder) as fw:
        if new:
            spent = Spent()
            fw.add(data.passages)
            figures |= {f"add_{name}": value for name, value in spent.since().items()}
            fw.refresh()
            figures |= {f"refresh_{name}": value for name, value in spent.since().items()}
        yield Bench(fw, root, data, rounds), figures


def measured(asked: argparse.Namespace, work: Path, n: int) -> Figures:
    """Everything that was asked for, at one size."""
    began = time.perf_counter()
    give_feedback(f"{n:,} passages: vectors")
    data = read_data(asked.collection, n)
    root = work / f"{asked.collection}-{len(data.passages)}"
    found: Figures = {"n_passages": len(data.passages)}
    give_feedback(f"{n:,} passages: index")
    with built(root, data, asked.rounds) as (bench, figures):
        found["build"] = figures
        if asked.past:
            found["past"] = with_past(bench, asked.past)
        for name in asked.only:
            give_feedback(f"{n:,} passages: {name}")
            found[name] = MEASURES[name](bench)
    if not asked.keep:
        shutil.rmtree(root)
    found["seconds"] = round(time.perf_counter() - began, 1)
    return found


def give_feedback(what: str, now: bool = True) -> None:
    """Say on standard error how far it is."""
    if now:
        print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", default="aws_docs")
    parser.add_argument("--passages", type=int, nargs="+", default=SIZES)
    parser.add_argument("--past", type=int, default=0, help="so many voted queries in the past")
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "flywheel-speed")
    parser.add_argument("--keep", action="store_true", help="keep the index folders, and use them")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed.json"))
    parser.add_argument("--open", type=Path, nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(given)


def main() -> None:
    """Measure each size and write what was found."""
    asked = arguments()
    if asked.open:
        print(json.dumps(opened(*asked.open)))
        return
    began = time.perf_counter()
    found: Figures = {
        "commit": commit(),
        "seed": SEED,
        "data": {"collection": asked.collection},
        "k": K,
        "rounds": asked.rounds,
        "machine": machine(*LIBRARIES),
        "sizes": [measured(asked, asked.work, n) for n in asked.passages],
    }
    found["seconds"] = round(time.perf_counter() - began, 1)
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found["sizes"], indent=1))


if __name__ == "__main__":
    main()
