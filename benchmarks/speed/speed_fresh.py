"""What queries cost before the first refresh: the first answer, then those after it, and the memory.

    RAG_FLYWHEEL_DATA=... python benchmarks/speed/speed_fresh.py

Each round starts new processes, whose peak memory is theirs alone. One opens a folder whose passages were
all added and none refreshed ("opened"); one has answered a question before it adds them ("added"). The
vectors of passages and queries are given.
"""

import argparse
import json
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Config, Flywheel
from rag_flywheel.bench.machine import commit, machine
from speed_data import SEED, Data, read_data
from speed_times import Spent, memory_mib, percentiles, timed

K = 8
LIBRARIES = ("faiss-cpu", "numpy")
_GIVEN = "given.pickle"


def measured(work: Path, kind: str, n_queries: int) -> dict[str, Any]:
    """What one process sees; kind: opened or added."""
    data: Data = pickle.loads((work / _GIVEN).read_bytes())
    before = _peak_mib()
    root = work / kind
    spent = Spent()
    with Flywheel.open(root, encoder=data.encoder) as fw:
        found: dict[str, Any] = {}
        if kind == "added":
            fw.add(data.passages[:1])
            fw.retrieve(data.queries[-1], K, record=False)
            spent.since()
            fw.add(data.passages)
            found["add"] = spent.since()
        fw.retrieve(data.queries[-1], K, record=False)
        found["first"] = spent.since()
        queries = data.queries[:n_queries]
        new = timed(lambda i: fw.retrieve(queries[i], K, record=False), len(queries))
        again = timed(lambda i: fw.retrieve(queries[i], K, record=False), len(queries))
        found |= {"new": percentiles([new]), "again": percentiles([again])}
    return {**found, "peak_mib": _peak_mib(), "peak_before_mib": before}


def _peak_mib() -> float:
    """Of this process since it began; what getrusage says goes on from the one that started it."""
    return memory_mib()["peak_mib"]


def _median(rounds: list[Any]) -> Any:
    """The medians of equal nestings of numbers."""
    if isinstance(rounds[0], dict):
        return {name: _median([each[name] for each in rounds]) for name in rounds[0]}
    return round(float(np.median(rounds)), 3)


def main() -> None:
    """Add the passages, measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", default="aws_docs")
    parser.add_argument("--passages", type=int, default=20_000)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed_fresh.json"))
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "KIND"), help="for its own use")
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(measured(Path(asked.child[0]), asked.child[1], asked.queries)))
        return
    began = time.perf_counter()
    data = read_data(asked.collection, asked.passages)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / _GIVEN).write_bytes(pickle.dumps(data))
        config = Config(encoder="")
        with Flywheel.open(work / "opened", encoder=data.encoder, config=config) as fw:
            fw.add(data.passages)
        Flywheel.open(work / "empty", encoder=data.encoder, config=config).close()
        rounds: dict[str, list[Any]] = {"opened": [], "added": []}
        for turn in range(asked.rounds):
            print(f"{time.strftime('%H:%M:%S')} round {turn}", file=sys.stderr, flush=True)
            for kind, found in rounds.items():
                if kind == "added":
                    shutil.rmtree(work / kind, ignore_errors=True)
                    shutil.copytree(work / "empty", work / kind)
                own = [sys.executable, __file__, "--child", str(work), kind]
                many = ["--queries", str(asked.queries)]
                said = subprocess.run([*own, *many], check=True, capture_output=True, text=True)
                found.append(json.loads(said.stdout.splitlines()[-1]))
    result = {
        "commit": commit(),
        "seed": SEED,
        "machine": machine(*LIBRARIES),
        "collection": asked.collection,
        "n_passages": len(data.passages),
        "k": K,
        "n_queries": asked.queries,
        "rounds": asked.rounds,
        **{kind: _median(found) for kind, found in rounds.items()},
        "seconds": round(time.perf_counter() - began, 1),
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
