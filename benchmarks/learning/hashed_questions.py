"""What is learned from votes where no words of questions are stored (store_queries = "hash").

    RAG_FLYWHEEL_DATA=... python benchmarks/learning/hashed_questions.py --out hashed_questions.json

The same collections, users and seeds under either setting: every train question is asked once, by a stranger
who votes on 8 hits. Then the same questions are asked again, and test questions, which never get a vote.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.cycles import answers, asking, run_cycles
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.measures import Run, ndcg_at_10
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.setup import prepare
from rag_flywheel.bench.users import Users
from rag_flywheel.config import FILE_NAME
from rag_flywheel.formats.beir import Split

COLLECTIONS = "scifact", "metatool"
SETTINGS = "text", "hash"


def run(name: str, protocol: Protocol) -> dict[str, Any]:
    """nDCG@10 before any vote and after the cycles, by setting: of test questions, and of those asked."""
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
            rng, test, asked = np.random.default_rng(protocol.seed), bench.test, bench.train
            with bench.copy(how) as fw:
                steps = [asking(fw, asked, part, protocol.users, rng) for part in bench.parts]
                before = _mean(asked, answers(fw, asked, protocol.depth))
                cycles = list(run_cycles(fw, test, steps, depth=protocol.depth))
                again = _mean(asked, answers(fw, asked, protocol.depth))
        found[how] = {
            "n_votes": cycles[-1][0],
            "test": [_mean(test, cycles[0][1]), _mean(test, cycles[-1][1])],
            "again": [before, again],
        }
        print(name, protocol.seed, how, found[how], flush=True)
    return {**found, "seconds": round(time.monotonic() - began, 1)}


def _mean(split: Split, found: Run) -> float:
    return round(statistics.fmean(ndcg_at_10(split.qrels, found).values()), 4)


def main() -> None:
    """Run every collection under every seed, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", nargs="*", default=list(COLLECTIONS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cycles", type=int, default=5)
    parser.add_argument("--max-train", type=int, default=1_000)
    parser.add_argument("--max-test", type=int, default=500)
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
    kept = {k: v for k, v in vars(given).items() if k != "out"}
    result = {"commit": commit(), "settings": kept, "runs": runs}
    if given.out is not None:
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
