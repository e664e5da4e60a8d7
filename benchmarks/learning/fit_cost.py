"""What a refresh costs that learns from 100,000 votes: seconds, and the largest memory taken.

    python benchmarks/learning/fit_cost.py --out benchmarks/results/fit_cost.json

Votes on train queries of the collection metatool under RAG_FLYWHEEL_DATA, every shown hit judged,
a fifth wrongly.
"""

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rag_flywheel import Flywheel
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.setup import prepare
from rag_flywheel.bench.users import Users
from rag_flywheel.formats.beir import Qrels

N_VOTES, SHOWN = 100_000, 8


def main() -> None:
    """Cast the votes, then measure one refresh of the folder, opened anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", default="metatool")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fit_cost.json"))
    asked = parser.parse_args()
    users, rng = Users(eta=0.0, eps=0.2), np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        bench = prepare(find_collection(asked.collection), Protocol(), Path(scratch), None)
        with bench.open(bench.base) as fw:
            n_votes = _cast(fw, bench.train.queries, bench.train.qrels, users, rng)
        before = _peak_mib()
        with Flywheel.open(bench.base, encoder=bench.encoder) as fw:  # remembers nothing, like cron
            began, worked = time.monotonic(), time.process_time()
            report = fw.refresh()
            seconds, worked = time.monotonic() - began, time.process_time() - worked
    found = {
        "commit": commit(),
        "collection": asked.collection,
        "n_votes": n_votes,
        "refresh_seconds": round(seconds, 1),
        "refresh_processor_seconds": round(worked, 1),
        "peak_mib_before": before,
        "peak_mib_after": _peak_mib(),
        "report": {"reason": report.reason, **report.scores},
        "n_cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "python": platform.python_version(),
    }
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def _cast(
    fw: Flywheel,
    queries: Mapping[str, str],
    qrels: Qrels,
    users: Users,
    rng: np.random.Generator,
) -> int:
    n_votes, names = 0, sorted(queries)
    for start in range(0, len(names), 256):
        part = names[start : start + 256]
        shown = fw.retrieve_many([queries[q] for q in part], SHOWN)
        votes = [
            vote
            for q, seen in zip(part, shown, strict=True)
            for vote in users.votes(seen, qrels[q], q, rng)
        ]
        n_votes += fw.feedback_many(votes[: N_VOTES - n_votes])
        if n_votes >= N_VOTES:
            break
    return n_votes


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
