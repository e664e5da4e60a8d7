"""What signals alone teach: users copy, edit and regenerate answers, and nobody ever votes.

    python benchmarks/learning/signals.py --seeds 1 --out benchmarks/results/signals.json

RAG_FLYWHEEL_DATA holds the BEIR folders. Protocol cycles-v1 with ten cycles, all train and all test
queries. Each train query is asked once; a simulated reader writes the answer from one hit (see
`rag_flywheel.bench.reader`), the application stores it, and its user does one thing, by whether that
hit is right, with the probabilities in DONE. An answer that is edited a little has every tenth word
replaced, one that is edited much all but every third. "Nothing to tell": the same with one table of
probabilities for right and wrong answers, so that signals say nothing and nothing should move.
"""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from gain import Json, gained, surroundings
from rag_flywheel import Flywheel
from rag_flywheel.bench.cycles import SHOWN
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.reader import CAREFUL, write
from rag_flywheel.bench.setup import Bench
from rag_flywheel.records import Retrieval

NAMES = ("metatool", "squad11_dev")
DONE = ("copied", "edited a little", "edited much", "regenerated", "nothing")
RIGHT = (0.30, 0.15, 0.05, 0.05, 0.45)
WRONG = (0.10, 0.05, 0.15, 0.30, 0.40)
SETTINGS = {"signals": (RIGHT, WRONG), "nothing to tell": (RIGHT, RIGHT)}


def act(
    fw: Flywheel,
    seen: Retrieval,
    grades: Mapping[str, int],
    chances: tuple[Sequence[float], Sequence[float]],
    rng: np.random.Generator,
) -> str:
    """One user gets an answer and does something with it; returns what."""
    helps = {hit.passage_id: grades.get(hit.passage_id, 0) > 0 for hit in seen.hits}
    source, text = write(seen, helps, CAREFUL, rng)
    fw.answer(str(seen.id), text)
    done = str(rng.choice(DONE, p=chances[0] if helps[source] else chances[1]))
    user = f"user-{rng.integers(2**62)}"
    if done in ("copied", "regenerated"):
        fw.signal(seen.id, "copied" if done == "copied" else "regenerated", user_id=user)
    elif done != "nothing":
        words = text.split()
        kept = [
            (i + 1) % 10 != 0 if done == "edited a little" else i % 3 == 0
            for i in range(len(words))
        ]
        final = " ".join(w if k else "other" for w, k in zip(words, kept, strict=True))
        fw.signal(seen.id, "edited", final, user_id=user)
    return done


def run(name: str, setting: str, seed: int) -> Json:
    """One collection under one kind of user."""
    rng, done = np.random.default_rng([seed, 2]), Counter[str]()

    def cycle(fw: Flywheel, bench: Bench, part: Sequence[str]) -> None:
        done.update(_cycle(fw, bench, part, setting, rng))

    found = gained(name, Protocol(seed=seed), cycle)
    return {"collection": name, "setting": setting, "seed": seed, "done": dict(done), **found}


def _cycle(
    fw: Flywheel, bench: Bench, part: Sequence[str], setting: str, rng: np.random.Generator
) -> Counter[str]:
    done = Counter[str]()
    for start in range(0, len(part), 16):
        some = part[start : start + 16]
        shown = fw.retrieve_many([bench.train.queries[q] for q in some], SHOWN)
        for query, seen in zip(some, shown, strict=True):
            done[act(fw, seen, bench.train.qrels[query], SETTINGS[setting], rng)] += 1
    return done


def main() -> None:
    """Run all and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", nargs="+", default=list(NAMES))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/signals.json"))
    asked = parser.parse_args()
    result: Json = {
        "protocol": "cycles-v1",
        "k": SHOWN,
        "cycles": 10,
        "careful": CAREFUL,
        "done": {
            "right": dict(zip(DONE, RIGHT, strict=True)),
            "wrong": dict(zip(DONE, WRONG, strict=True)),
        },
        **surroundings(),
        "runs": [],
    }
    for seed in range(asked.seeds):
        for setting in SETTINGS:
            for name in asked.collections:
                found = run(name, setting, seed)
                print({k: v for k, v in found.items() if k != "by_cycle"}, flush=True)
                result["runs"].append(found)
                asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
