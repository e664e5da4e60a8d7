"""What votes on whole answers teach, beside votes on passages by users of the same seed.

    python benchmarks/answer_feedback.py --seeds 3 --out benchmarks/results/answer_feedback.json

RAG_FLYWHEEL_DATA holds the BEIR folders. Protocol cycles-v1 with ten cycles, all train and all test
queries, a fifth of verdicts wrong. One user asks each train query, and either votes on passages
(attention 1/rank) or gives one verdict on the answer that a simulated reader wrote (see
`rag_flywheel.bench.reader`). Part: the gain in nDCG@10 of test queries over the ranking before any
vote, as a share of the gain from votes on passages. A run that the result file already holds is not
run again.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel.bench.bench import commit
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.cycles import answers, asking
from rag_flywheel.bench.measures import by_query
from rag_flywheel.bench.setup import Protocol, prepare
from rag_flywheel.bench.users import Users
from rag_flywheel.evaluate.paired import bootstrap_interval

NAMES = ("metatool", "squad11_dev")
PASSAGES = "votes on passages"
SETTINGS = {
    PASSAGES: Users(),
    "text": Users(answer_level=True, told="text"),
    "cited": Users(answer_level=True, told="cited"),
    "nothing": Users(answer_level=True, told="nothing"),
    "text, careless reader": Users(answer_level=True, told="text", careful=0.0),
    "cited, careless reader": Users(answer_level=True, told="cited", careful=0.0),
    "nothing, careless reader": Users(answer_level=True, told="nothing", careful=0.0),
}
REQUIRED = (PASSAGES, "text", "cited")
MEASURE = "nDCG@10"
Json = dict[str, Any]


def run(name: str, setting: str, seed: int) -> Json:
    """One collection under one kind of user."""
    began = time.monotonic()
    protocol = Protocol(seed=seed, users=SETTINGS[setting])
    with tempfile.TemporaryDirectory() as scratch:
        bench = prepare(find_collection(name), protocol, Path(scratch), None)
        rng = np.random.default_rng([seed, 0])
        with bench.open(bench.base) as fw:
            runs, n_votes, new = [answers(fw, bench.test, protocol.depth)], 0, 0
            for part in bench.parts:
                n_votes += asking(fw, bench.train, part, protocol.users, rng)()
                new += fw.refresh().parameters == "new"
                runs.append(answers(fw, bench.test, protocol.depth))
            version = fw.status().version
        text = (bench.base / "versions" / str(version) / "parameters.json").read_text("utf-8")
    found = [by_query((MEASURE,), bench.test.qrels, each)[MEASURE] for each in runs]
    queries = sorted(found[0])
    static, learned = (np.array([f[q] for q in queries]) for f in (found[0], found[-1]))
    low, high = bootstrap_interval(learned - static, seed=seed)
    parameters = json.loads(text)
    return {
        "collection": name,
        "setting": setting,
        "seed": seed,
        "n_votes": n_votes,
        "static": float(static.mean()),
        "learned": float(learned.mean()),
        "gain": float((learned - static).mean()),
        "gain_interval": [low, high],
        "by_cycle": [float(np.mean([f[q] for q in queries])) for f in found],
        "new_weights": new,
        "noise": parameters["noise"],
        "kernel": parameters.get("kernel"),
        "seconds": round(time.monotonic() - began, 1),
        "commit": commit(),
    }


def parts(runs: list[Json]) -> list[Json]:
    """Of each collection and setting, the gain as a share of that of votes on passages, by seed."""
    gains = {(r["collection"], r["setting"], r["seed"]): r["gain"] for r in runs}
    found = []
    for name in NAMES:
        for setting in SETTINGS:
            seeds = sorted(s for n, k, s in gains if (n, k) == (name, setting))
            seeds = [s for s in seeds if (name, PASSAGES, s) in gains]
            if seeds:
                mine = [gains[name, setting, s] for s in seeds]
                share = [g / gains[name, PASSAGES, s] for g, s in zip(mine, seeds, strict=True)]
                found.append(
                    {
                        "collection": name,
                        "setting": setting,
                        "seeds": seeds,
                        "gain": [round(g, 4) for g in mine],
                        "part": [round(p, 3) for p in share],
                        "median_part": round(statistics.median(share), 3),
                    }
                )
    return found


def main() -> None:
    """Run what is asked for and not yet there, and print the parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", nargs="+", default=list(NAMES))
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=3, help="all but the required settings: 1")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/answer_feedback.json"))
    asked = parser.parse_args()
    for seed in range(asked.seeds):
        for setting in (
            asked.settings if seed == 0 else [s for s in asked.settings if s in REQUIRED]
        ):
            for name in asked.collections:
                held = _read(asked.out)
                key = (name, setting, seed)
                if key not in [(r["collection"], r["setting"], r["seed"]) for r in held["runs"]]:
                    found = run(*key)
                    print({k: v for k, v in found.items() if k != "by_cycle"}, flush=True)
                    held["runs"].append(found)
                    held["parts"] = parts(held["runs"])
                    asked.out.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    for row in _read(asked.out)["parts"]:
        print(f"{row['collection']}, {row['setting']}: gain {row['gain']}, part {row['part']}")


def _read(path: Path) -> Json:
    if path.exists():
        found: Json = json.loads(path.read_text(encoding="utf-8"))
        return found
    versions = {
        p: metadata.version(p) for p in ("numpy", "scipy", "sentence-transformers", "torch")
    }
    machine = {"python": platform.python_version(), "machine": platform.platform()}
    return {
        "protocol": "cycles-v1",
        "k": 8,
        "cycles": 10,
        "eps": 0.2,
        "eta": 1.0,
        "machine": machine,
        "versions": versions,
        "parts": [],
        "runs": [],
    }


if __name__ == "__main__":
    main()
