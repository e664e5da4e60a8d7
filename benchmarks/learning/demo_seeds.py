"""The demo over several seeds: medians of what each group of questions gains in nDCG@10.

python benchmarks/learning/demo_seeds.py --seeds 5 --out benchmarks/results/demo_seeds.json
"""

import argparse
import dataclasses
import json
import platform
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rag_flywheel.bench.demo import CURVES, N_CYCLES, N_USERS, help_desk, learn, prepare
from rag_flywheel.bench.machine import commit, versions
from rag_flywheel.bench.users import Users
from rag_flywheel.flywheel import Flywheel
from rag_flywheel.report.progress import Bars

PACKAGES = ("faiss-cpu", "bm25s", "numpy", "sentence-transformers", "torch", "ir-measures")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        runs = _runs(Path(scratch), asked.seeds)
    gains = {name: [_gain(run, name) for run in runs] for name in CURVES}
    result = {
        "commit": commit(),
        "what": "demo over seeds: gain of nDCG@10 after the last cycle over static, by group of questions",
        "n_users_of_a_question_in_a_cycle": N_USERS,
        "median_gain_ndcg_at_10": {name: statistics.median(g) for name, g in gains.items()},
        "gains_ndcg_at_10": gains,
        "median_share_of_bound": statistics.median(map(_share_of_bound, runs)),
        "users": dataclasses.asdict(Users()),
        "n_cycles": N_CYCLES,
        "runs": runs,
        "python": platform.python_version(),
        "versions": versions(*PACKAGES),
        "machine": f"{platform.system()} {platform.machine()}",
        "seconds": round(time.monotonic() - began, 1),
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"median gains of nDCG@10: {result['median_gain_ndcg_at_10']}; {asked.out}")


def _curve(run: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in run["curves"] if c["name"] == name)
    return found


def _gain(run: dict[str, Any], name: str) -> float:
    first, *_, last = (c["values"]["nDCG@10"] for c in _curve(run, name)["cycles"])
    return float(last - first)


def _share_of_bound(run: dict[str, Any]) -> float:
    again = _curve(run, "asked again")
    return float(again["cycles"][-1]["values"]["nDCG@10"] / again["bound"])


def _runs(scratch: Path, n_seeds: int) -> list[dict[str, Any]]:
    collection = help_desk()
    with Bars() as bars:
        prepare(scratch / "base", collection, bars)
    runs = []
    for seed in range(n_seeds):
        folder = scratch / f"seed-{seed}"
        shutil.copytree(scratch / "base", folder)
        with Flywheel.open(folder) as fw:
            curves = learn(fw, collection, seed=seed, n_cycles=N_CYCLES)
        shutil.rmtree(folder)
        runs.append({"seed": seed, "curves": [dataclasses.asdict(c) for c in curves]})
        ends = {
            c.name: (c.cycles[0].values["nDCG@10"], c.cycles[-1].values["nDCG@10"]) for c in curves
        }
        print(f"seed {seed}: {ends}, bound {curves[0].bound}", flush=True)
    return runs


if __name__ == "__main__":
    main()
