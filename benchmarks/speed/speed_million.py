"""A million passages: what building, memory and a call take, beside raw faiss and raw bm25s.

    python benchmarks/speed/speed_million.py                       an hour, 6 GiB of memory, 12 of disk
    python benchmarks/speed/speed_million.py --passages 200000     minutes

Data are made (`speed_made.py`); vectors are given. Each step is a process of its own, so that its
memory is its own: both builds, then both indexes held open and asked, then rounds in one process.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rag_flywheel import Flywheel
from rag_flywheel.bench.machine import commit, machine
from rag_flywheel.index.bm25 import K1, B
from rag_flywheel.index.faiss_door import faiss_library
from rag_flywheel.index.graph import EF_CONSTRUCTION, LINKS
from speed import LIBRARIES, Bench, Figures, K, give_feedback, retrieve
from speed_data import SEED, Data
from speed_floor import TOP
from speed_made import DIM, Made, make
from speed_times import Spent, memory_mib

_ROUNDS, _ASKED = 5, 100


def build_raw(made: Made, work: Path) -> Figures:
    """faiss HNSW and bm25s over the same vectors and texts, by their own means, and written."""
    faiss = faiss_library()
    spent = Spent()
    graph = faiss.IndexHNSWFlat(DIM, LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = EF_CONSTRUCTION
    graph.add(np.array(made.vectors))
    faiss.write_index(graph, str(work / "raw.faiss"))
    del graph
    found = {"faiss": spent.since()}
    import bm25s
    import Stemmer

    texts = [p.text for part in made.passages() for p in part]
    tokens = bm25s.tokenize(
        texts, stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False
    )
    found["bm25s_tokens"] = spent.since()
    del texts
    bm25 = bm25s.BM25(k1=K1, b=B, method="lucene", csc_backend="scipy")
    bm25.index(tokens, show_progress=False)
    bm25.save(work / "raw.bm25s", show_progress=False)
    return found | {"bm25s_index": spent.since(), "peak_mib": memory_mib()["peak_mib"]}


def build_ours(made: Made, work: Path) -> Figures:
    """`add`, some thousands at a time, then `refresh`."""
    spent = Spent()
    encoder = made.encoder_of_passages()
    with Flywheel.open(work / "ours", encoder=encoder) as fw:
        for part in made.passages():
            fw.add(part)
            give_feedback(f"added {part[-1].id}", int(part[-1].id) % 100_000 > 80_000)
        found: Figures = {"add": spent.since(), "add_peak_mib": memory_mib()["peak_mib"]}
        report = fw.refresh()
        found |= {
            "refresh": spent.since(),
            "outcome": report.outcome,
            "peak_mib": memory_mib()["peak_mib"],
        }
        found["dense_recall"] = fw.status().dense_recall
    return found


def hold_raw(made: Made, work: Path) -> Figures:
    """A process that holds the raw indexes and asks them, and nothing else."""
    faiss = faiss_library()
    import bm25s
    import Stemmer

    began = time.perf_counter()
    graph = faiss.read_index(str(work / "raw.faiss"))
    bm25 = bm25s.BM25.load(work / "raw.bm25s")
    opened_s = time.perf_counter() - began
    stemmer = Stemmer.Stemmer("english")
    for query, vector in zip(made.queries[:_ASKED], made.query_vectors, strict=False):
        graph.search(vector[None, :], TOP)
        tokens = bm25s.tokenize(query, stopwords="en", stemmer=stemmer, show_progress=False)
        bm25.retrieve(tokens, k=TOP, show_progress=False)
    return {"open_s": round(opened_s, 1), **memory_mib()}


def hold_ours(made: Made, work: Path) -> Figures:
    """A process that has opened the folder and answers queries."""
    encoder = made.encoder()
    began = time.perf_counter()
    with Flywheel.open(work / "ours", encoder=encoder) as fw:
        queries = made.queries[:_ASKED]
        fw.retrieve(queries[0], K)
        opened_s = time.perf_counter() - began
        for query in queries:
            fw.retrieve(query, K)
        return {"open_s": round(opened_s, 1), **memory_mib()}


def ask(made: Made, work: Path) -> Figures:
    """Rounds of the floor and of ours, and what dense search finds of the 10 nearest of all."""
    root, encoder = work / "ours", made.encoder()
    with Flywheel.open(root, encoder=encoder) as fw:
        return retrieve(Bench(fw, root, Data([], made.queries, encoder), _ROUNDS))


STEPS: dict[str, Callable[[Made, Path], Figures]] = {
    "build_raw": build_raw,
    "build_ours": build_ours,
    "hold_raw": hold_raw,
    "hold_ours": hold_ours,
    "ask": ask,
}
_BUILDS = {"build_raw", "build_ours"}


def run(asked: argparse.Namespace, name: str) -> Figures:
    """A step in a process of its own; builds take two threads, all others one."""
    give_feedback(f"{asked.passages:,} passages: {name}")
    began = time.perf_counter()
    command = [sys.executable, __file__, "--passages", str(asked.passages)]
    command += ["--work", str(asked.work), "--step", name]
    threads = "2" if name in _BUILDS else "1"
    done = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, env=os.environ | {"OMP_NUM_THREADS": threads}
    )
    found: Figures = json.loads(done.stdout)
    return found | {"seconds": round(time.perf_counter() - began, 1), "load": os.getloadavg()[0]}


def compared(steps: Figures) -> Figures:
    """Ours beside the raw libraries."""
    raw, ours = steps["build_raw"], steps["build_ours"]
    parts = ("faiss", "bm25s_tokens", "bm25s_index")
    rows = steps["ask"]["threads_1"]["ours"]
    held = steps["hold_ours"], steps["hold_raw"]
    return {
        "p50_times_the_floor": rows["times_the_floor"],
        "recall@10": steps["ask"]["graph"]["recall@10"],
        "resident_times_raw": round(held[0]["resident_mib"] / held[1]["resident_mib"], 2),
        "peak_times_raw": round(held[0]["peak_mib"] / held[1]["peak_mib"], 2),
        "refresh_cpu_times_raw": round(
            ours["refresh"]["cpu_s"] / sum(raw[part]["cpu_s"] for part in parts), 2
        ),
        "refresh_times_raw": round(ours["refresh"]["s"] / sum(raw[part]["s"] for part in parts), 2),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "flywheel-million"
    )
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed_million.json"))
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Run each step and write what was found; what stands in the result of other steps stays."""
    asked = arguments()
    folder = asked.work / f"made-{asked.passages}"
    place = asked.work / f"index-{asked.passages}"
    if asked.step:
        print(json.dumps(STEPS[asked.step](Made(folder), place)))
        return
    if not folder.exists():
        give_feedback(f"{asked.passages:,} passages: making them")
        make(folder, asked.passages, seed=SEED)
    place.mkdir(exist_ok=True)
    kept = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else {}
    steps = kept.get("steps", {}) if kept.get("n_passages") == asked.passages else {}
    for name in asked.only:
        if name == "build_ours":
            shutil.rmtree(place / "ours", ignore_errors=True)
        steps[name] = {"commit": commit(), **run(asked, name)}
        found: Figures = {"commit": commit(), "seed": SEED, "n_passages": asked.passages}
        found |= {"k": K, "rounds": _ROUNDS, "machine": machine(*LIBRARIES), "steps": steps}
        if set(steps) == set(STEPS):
            found["compared"] = compared(steps)
        found["seconds"] = round(sum(step["seconds"] for step in steps.values()), 1)
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        give_feedback(json.dumps(steps[name]))


if __name__ == "__main__":
    main()
