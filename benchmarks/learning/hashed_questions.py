"""What is learned from votes where no words of questions are stored (store_queries = "hash").

    RAG_FLYWHEEL_DATA=... python benchmarks/learning/hashed_questions.py --out hashed_questions.json

The same collections, users and seeds under either setting: cycles-v1, in which every train question is asked
once and test questions get no votes.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.measures import ndcg_at_10
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.runs import run_votes
from rag_flywheel.bench.setup import prepare
from rag_flywheel.bench.users import Users
from rag_flywheel.config import FILE_NAME

COLLECTIONS = "scifact", "metatool"
SETTINGS = "text", "hash"


def run(name: str, protocol: Protocol) -> dict[str, Any]:
    """nDCG@10 of the test questions before and after the cycles, by setting."""
    found: dict[str, Any] = {"collection": name, "seed": protocol.seed}
    began = time.monotonic()
    for how in SETTINGS:
        with tempfile.TemporaryDirectory() as scratch:
            bench = prepare(find_collection(name), protocol, Path(scratch), None)
            settings = bench.base / FILE_NAME
            text = settings.read_text(encoding="utf-8")
            assert 'store_queries = "text"' in text
            text = text.replace('store_queries = "text"', f'store_queries = "{how}"')
            settings.write_text(text, encoding="utf-8")
            cycles = run_votes(bench, protocol, None).cycles
            static, learned = (
                statistics.fmean(ndcg_at_10(bench.test.qrels, of).values())
                for _, of in (cycles[0], cycles[-1])
            )
        found |= {"n_votes": cycles[-1][0], "static": round(static, 4), how: round(learned, 4)}
    return {**found, "seconds": round(time.monotonic() - began, 1)}


def main() -> None:
    """Run every collection under every seed, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", nargs="*", default=list(COLLECTIONS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--cycles", type=int, default=5)
    parser.add_argument("--max-train", type=int, default=2_000)
    parser.add_argument("--max-test", type=int, default=1_000)
    parser.add_argument("--eps", type=float, default=0.2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    runs = []
    for name in given.collections:
        for seed in range(given.seeds):
            protocol = Protocol(
                n_cycles=given.cycles,
                seed=seed,
                max_train=given.max_train,
                max_test=given.max_test,
                users=Users(eps=given.eps),
            )
            runs.append(run(name, protocol))
            print(json.dumps(runs[-1]), flush=True)
    kept = {k: v for k, v in vars(given).items() if k != "out"}
    result = {"commit": commit(), "settings": kept, "runs": runs}
    if given.out is not None:
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
