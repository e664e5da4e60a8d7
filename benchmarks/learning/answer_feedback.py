"""What votes on whole answers teach, beside votes on passages by users of the same seed.

    python benchmarks/learning/answer_feedback.py --seeds 3 --out benchmarks/results/answer_feedback.json

RAG_FLYWHEEL_DATA holds the BEIR folders. Protocol cycles-v1 with ten cycles, all train and all test
queries, a fifth of verdicts wrong. One user asks each train query, and either votes on passages
(attention 1/rank) or gives one verdict on the answer that a simulated reader wrote (see
`rag_flywheel.bench.reader`). Part: the gain in nDCG@10 of test queries over the ranking before any
vote, as a share of the gain from votes on passages. A run that the result file already holds is not
run again.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gain import Json, gained, surroundings
from rag_flywheel import Flywheel
from rag_flywheel.bench.cycles import asking
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.setup import Bench
from rag_flywheel.bench.users import Users

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


def run(name: str, setting: str, seed: int) -> Json:
    """One collection under one kind of user."""
    protocol = Protocol(seed=seed, users=SETTINGS[setting])
    rng, n_votes = np.random.default_rng([seed, 0]), list[int]()

    def cycle(fw: Flywheel, bench: Bench, part: Sequence[str]) -> None:
        n_votes.append(asking(fw, bench.train, part, protocol.users, rng)())

    found = gained(name, protocol, cycle)
    return {"collection": name, "setting": setting, "seed": seed, "n_votes": sum(n_votes), **found}


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
    return {
        "protocol": "cycles-v1",
        "k": 8,
        "cycles": 10,
        "eps": 0.2,
        "eta": 1.0,
        **surroundings(),
        "parts": [],
        "runs": [],
    }


if __name__ == "__main__":
    main()
