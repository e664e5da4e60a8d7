"""What eighty corrections of one user cost a topic: nDCG@10 of test queries before and after them.

    python benchmarks/learning/one_attacker.py --seeds 3 --out benchmarks/results/one_attacker.json

RAG_FLYWHEEL_DATA holds the BEIR folders. First the train queries are asked in five cycles by a hundred
people, who look at rank r with probability 1/r and err in a fifth of their verdicts. Then one more
user asks the eighty train queries nearest to one of them, a topic, and names the same wrong passage as
the answer of each. `topic`: the test queries nearest to the topic, a tenth of all; `elsewhere`: all
others; each before the corrections, at once, and after a refresh.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.cycles import answers, asking_of
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.measures import mean, ndcg_at_10
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.setup import prepare
from rag_flywheel.bench.users import Users
from rag_flywheel.records import Retrieval, Vote

NAMES = ("metatool", "feedbackqa", "stackfaq")
PEOPLE, MAX_TRAIN, MAX_TEST, N_CYCLES, N_CORRECTIONS = 100, 3_000, 1_000, 5, 80
HONEST = Users(eta=1.0, eps=0.2)


def run(name: str, seed: int) -> dict[str, Any]:
    """One collection under one seed."""
    began = time.monotonic()
    protocol = Protocol(seed=seed, n_cycles=N_CYCLES, max_train=MAX_TRAIN, max_test=MAX_TEST)
    with tempfile.TemporaryDirectory() as scratch:
        bench = prepare(find_collection(name), protocol, Path(scratch), None)
        assert bench.encoder is not None, "needs prepared vectors"
        rng = np.random.default_rng([seed, 13])
        asked, tests = [q for part in bench.parts for q in part], sorted(bench.test.queries)
        vectors = bench.encoder.encode_queries([bench.train.queries[q] for q in asked])
        centre = vectors[int(rng.integers(len(asked)))]
        chosen = [asked[i] for i in np.argsort(-(vectors @ centre))[:N_CORRECTIONS].tolist()]
        cosines = bench.encoder.encode_queries([bench.test.queries[q] for q in tests]) @ centre
        topic = {tests[i] for i in np.argsort(-cosines)[: len(tests) // 10].tolist()}
        with bench.open(bench.base) as fw:
            for part in bench.parts:

                def respond(
                    place: int, seen: Retrieval, part: tuple[str, ...] = part
                ) -> list[Vote]:
                    person = f"person-{rng.integers(PEOPLE)}"
                    return HONEST.votes(seen, bench.train.qrels[part[place]], person, rng)

                asking_of(fw, bench.train, part, respond)()
                fw.refresh()
            found = {"before": answers(fw, bench.test, 10)}
            right = {p for q in chosen for p in bench.train.qrels[q]}
            junk = next(p.id for p in fw.passages() if p.id not in right)
            for query in chosen:
                shown = fw.retrieve(bench.train.queries[query], user_id="one")
                fw.correct(shown.id, junk, user_id="one")
            found["at once"] = answers(fw, bench.test, 10)
            fw.refresh()
            found["after a refresh"] = answers(fw, bench.test, 10)
    by_query = {when: ndcg_at_10(bench.test.qrels, each) for when, each in found.items()}
    return {
        "collection": name,
        "seed": seed,
        "topic": {w: mean({q: v[q] for q in topic}) for w, v in by_query.items()},
        "elsewhere": {
            w: mean({q: x for q, x in v.items() if q not in topic}) for w, v in by_query.items()
        },
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> None:
    """Run all, and print the medians of what is lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", nargs="+", default=list(NAMES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/one_attacker.json"))
    asked = parser.parse_args()
    runs = []
    for seed in range(asked.seeds):
        for name in asked.collections:
            runs.append(run(name, seed))
            print(runs[-1], flush=True)
    machine = {"python": platform.python_version(), "n_cores": os.cpu_count()}
    result = {"corrections": N_CORRECTIONS, "people": PEOPLE, "machine": machine}
    result |= {"commit": commit(), "runs": runs}
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name in asked.collections:
        own = [r for r in runs if r["collection"] == name]
        for where in ("topic", "elsewhere"):
            for when in ("at once", "after a refresh"):
                lost = statistics.median(r[where]["before"] - r[where][when] for r in own)
                print(f"{name}, {where}, {when}: loses {lost:.4f}, median of {len(own)} seeds")


if __name__ == "__main__":
    main()
