"""Chooses the weight of the memory without a model, the same for every collection.

    python benchmarks/learning/memory_constants.py --out benchmarks/results/memory_constants.json

RAG_FLYWHEEL_DATA holds the BEIR folders. In each, a stream of at most 1,500 questions, as in
cycles-v2, is asked of the static ranking and voted on; dev questions, which never get a vote, are
then ranked with each weight of a grid. Test questions are not read. Chosen is the weight with the
largest mean gain in nDCG@10 over the hybrid.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from rag_flywheel.bench.baselines import run_of
from rag_flywheel.bench.baselines_repeated import WEIGHTS, memory_without_a_model
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.compare import rule_inputs
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.measures import mean, ndcg_at_10
from rag_flywheel.bench.protocol import Protocol, Traffic
from rag_flywheel.bench.runs import run_fixed
from rag_flywheel.bench.setup import only, prepare

NAMES = ("stackfaq", "scifact", "metatool", "feedbackqa", "squad11_dev")
MOST_ASKED, MOST_DEV = 1_500, 500


def of_dev(name: str, seed: int) -> list[float]:
    """nDCG@10 of dev questions with each weight."""
    protocol = Protocol(n_cycles=1, seed=seed, max_train=MOST_ASKED, traffic=Traffic())
    with tempfile.TemporaryDirectory() as scratch:
        bench = prepare(find_collection(name), protocol, Path(scratch), None)
        dev = only(bench.dev, sorted(bench.dev.queries)[:MOST_DEV])
        bench = replace(bench, dev=dev, test=dev)
        _, votes = run_fixed(bench, protocol)
        assert bench.encoder is not None, "the collections come with prepared vectors"
        history, asked, _ = rule_inputs(bench, bench.encoder, votes)
        runs = (
            run_of(memory_without_a_model(weight, history, asked), asked.ids, history)
            for weight in WEIGHTS
        )
        return [round(mean(ndcg_at_10(dev.qrels, run)), 5) for run in runs]


def main() -> None:
    """Measure every collection under every seed, and print the weight that is chosen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    runs = []
    for name in NAMES:
        for seed in range(given.seeds):
            runs.append({"collection": name, "seed": seed, "ndcg_at_10": of_dev(name, seed)})
            print(runs[-1], flush=True)
    values = np.array([run["ndcg_at_10"] for run in runs])
    gains = (values - values[:, :1]).mean(axis=0)
    chosen = WEIGHTS[int(gains.argmax())]
    print(
        f"mean gains {dict(zip(WEIGHTS, gains.round(4).tolist(), strict=True))}; chosen: {chosen}"
    )
    result = {"commit": commit(), "weights": WEIGHTS, "chosen": chosen, "runs": runs}
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
