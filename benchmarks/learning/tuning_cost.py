"""What tuning costs: seconds of a refresh that tunes on 5,000 questions with votes, beside one that
does not, and the largest memory taken.

    python benchmarks/learning/tuning_cost.py --out benchmarks/results/tuning_cost.json

Votes on train queries of the collection metatool under RAG_FLYWHEEL_DATA by users who look at rank r
with probability 1 / r, a fifth of the verdicts wrong. Both refreshes are of copies of one folder,
opened anew, as cron would. On all cores unless OMP_NUM_THREADS says otherwise.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Flywheel
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.cycles import asking
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.setup import Bench, prepare
from rag_flywheel.bench.users import Users

N_QUESTIONS = 5_000


def main() -> None:
    """Cast the votes, then measure both refreshes, the plain one first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", default="metatool")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tuning_cost.json"))
    asked = parser.parse_args()
    users = Users(eta=1.0, eps=0.2)
    with tempfile.TemporaryDirectory() as scratch:
        bench = prepare(
            find_collection(asked.collection), Protocol(users=users), Path(scratch), None
        )
        queries = [q for part in bench.parts for q in part][:N_QUESTIONS]
        with bench.open(bench.base) as fw:
            n_votes = asking(fw, bench.train, queries, users, np.random.default_rng([0, 0]))()
        shutil.copytree(bench.base, Path(scratch) / "tuned")
        found = {
            "collection": asked.collection,
            "n_questions": len(queries),
            "n_votes": n_votes,
            "plain": _refreshed(bench, bench.base, tune=False),
            "tuned": _refreshed(bench, Path(scratch) / "tuned", tune=True),
            "n_cores": os.cpu_count(),
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "load_average": os.getloadavg(),
            "python": platform.python_version(),
            "commit": commit(),
        }
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def _refreshed(bench: Bench, folder: Path, *, tune: bool) -> Mapping[str, Any]:
    with Flywheel.open(folder, encoder=bench.encoder) as fw:
        began, cpu = time.monotonic(), time.process_time()
        report = fw.refresh(tune=tune)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "encoder": report.encoder,
        "report": {"reason": report.reason, **report.scores},
    }


if __name__ == "__main__":
    main()
