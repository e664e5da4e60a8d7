"""What signals alone teach: users copy, edit and regenerate answers, and nobody ever votes.

    python benchmarks/signals.py --seeds 1 --out benchmarks/results/signals.json

RAG_FLYWHEEL_DATA holds the BEIR folders. Protocol cycles-v1 with ten cycles, all train and all test
queries. Each train query is asked once; a simulated reader writes the answer from one hit (see
`rag_flywheel.bench.reader`), the application stores it, and its user does one thing, by whether that
hit is right, with the probabilities in DONE. An answer that is edited a little has every tenth word
replaced, one that is edited much all but every third. "Nothing to tell": the same with one table of
probabilities for right and wrong answers, so that signals say nothing and nothing should move.
"""

import argparse
import json
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Flywheel
from rag_flywheel.bench.bench import commit
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.cycles import SHOWN, answers
from rag_flywheel.bench.measures import by_query
from rag_flywheel.bench.reader import CAREFUL, write
from rag_flywheel.bench.setup import Bench, Protocol, prepare
from rag_flywheel.evaluate.paired import bootstrap_interval
from rag_flywheel.records import Retrieval

NAMES = ("metatool", "squad11_dev")
DONE = ("copied", "edited a little", "edited much", "regenerated", "nothing")
RIGHT = (0.30, 0.15, 0.05, 0.05, 0.45)
WRONG = (0.10, 0.05, 0.15, 0.30, 0.40)
SETTINGS = {"signals": (RIGHT, WRONG), "nothing to tell": (RIGHT, RIGHT)}
MEASURE = "nDCG@10"
Json = dict[str, Any]


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
    began = time.monotonic()
    protocol = Protocol(seed=seed)
    with tempfile.TemporaryDirectory() as scratch:
        bench = prepare(find_collection(name), protocol, Path(scratch), None)
        rng, done, new = np.random.default_rng([seed, 2]), Counter[str](), 0
        with bench.open(bench.base) as fw:
            runs = [answers(fw, bench.test, protocol.depth)]
            for part in bench.parts:
                done += _cycle(fw, bench, part, setting, rng)
                new += fw.refresh().parameters == "new"
                runs.append(answers(fw, bench.test, protocol.depth))
            version = fw.status().version
        file = bench.base / "versions" / str(version) / "parameters.json"
        parameters = json.loads(file.read_text(encoding="utf-8"))
    found = [by_query((MEASURE,), bench.test.qrels, each)[MEASURE] for each in runs]
    queries = sorted(found[0])
    static, learned = (np.array([f[q] for q in queries]) for f in (found[0], found[-1]))
    low, high = bootstrap_interval(learned - static, seed=seed)
    return {
        "collection": name,
        "setting": setting,
        "seed": seed,
        "done": dict(done),
        "static": float(static.mean()),
        "learned": float(learned.mean()),
        "gain": float((learned - static).mean()),
        "gain_interval": [low, high],
        "by_cycle": [float(np.mean([f[q] for q in queries])) for f in found],
        "new_weights": new,
        "noise": parameters["noise"],
        "kernel": parameters.get("kernel"),
        "seconds": round(time.monotonic() - began, 1),
        "commit": commit(),
    }


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
        "machine": {"python": platform.python_version(), "machine": platform.platform()},
        "versions": {
            p: metadata.version(p) for p in ("numpy", "scipy", "sentence-transformers", "torch")
        },
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
