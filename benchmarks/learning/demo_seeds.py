"""The demo over several seeds: does the held-out nDCG@10 rise, and by how much in the median?

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

from rag_flywheel.bench.demo import help_desk, learn, prepare
from rag_flywheel.bench.machine import versions
from rag_flywheel.bench.users import Users
from rag_flywheel.flywheel import Flywheel
from rag_flywheel.report.progress import Bars

N_CYCLES = 8
PACKAGES = ("faiss-cpu", "bm25s", "numpy", "sentence-transformers", "torch", "ir-measures")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        runs = _runs(Path(scratch), asked.seeds)
    gains = [
        run["cycles"][-1]["values"]["nDCG@10"] - run["cycles"][0]["values"]["nDCG@10"]
        for run in runs
    ]
    result = {
        "what": "demo over seeds: gain of nDCG@10 of held-out phrasings after 8 cycles over static",
        "median_gain_ndcg_at_10": statistics.median(gains),
        "gains_ndcg_at_10": gains,
        "users": dataclasses.asdict(Users()),
        "n_cycles": N_CYCLES,
        "runs": runs,
        "python": platform.python_version(),
        "versions": versions(*PACKAGES),
        "machine": f"{platform.system()} {platform.machine()}",
        "seconds": round(time.monotonic() - began, 1),
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"median gain of nDCG@10: {result['median_gain_ndcg_at_10']:+.4f}; {asked.out}")


def _runs(scratch: Path, n_seeds: int) -> list[dict[str, Any]]:
    collection = help_desk()
    with Bars() as bars:
        prepare(scratch / "base", collection, bars)
    runs = []
    for seed in range(n_seeds):
        folder = scratch / f"seed-{seed}"
        shutil.copytree(scratch / "base", folder)
        with Flywheel.open(folder) as fw:
            cycles = learn(fw, collection, seed=seed, n_cycles=N_CYCLES)
        shutil.rmtree(folder)
        runs.append({"seed": seed, "cycles": [dataclasses.asdict(c) for c in cycles]})
        print(f"seed {seed}: {[round(c.values['nDCG@10'], 4) for c in cycles]}", flush=True)
    return runs


if __name__ == "__main__":
    main()
