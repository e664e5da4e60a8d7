"""What a query costs when passages were edited since the last refresh: one of them, or 1 %.

    RAG_FLYWHEEL_DATA=... python benchmarks/speed/speed_edits.py --work FOLDER

Queries come with their vectors. Copies of one index are asked the same in turns: one without edits, one
with one, one with 1 % edited; each query as a new one and right again. "over_none" is the median over
rounds of the ratio to the index without edits. At the end a passage is edited before each query.

FOLDER/none is used when it is there, else built.
"""

import argparse
import json
import shutil
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.bench.machine import commit, machine
from rag_flywheel.store.passages import encoded_text
from speed_data import SEED, Data, near, read_data
from speed_times import Times, percentiles, timed

K = 8
LIBRARIES = ("faiss-cpu", "numpy")
_SINGLE = 40  # edits with a query after each


def edited(data: Data, places: list[int], word: str) -> list[Passage]:
    """These passages with another word; their vectors are near what they were."""
    old = [data.passages[i] for i in places]
    new = [Passage(p.id, f"{p.text} {word}", p.title, p.metadata) for p in old]
    vectors = data.encoder.encode_passages([encoded_text(p) for p in old])
    moved = near(vectors, len(new), np.random.default_rng(SEED))
    data.encoder.also([encoded_text(p) for p in new], moved)
    return new


def _ask(fw: Flywheel, query: str, _: int) -> object:
    return fw.retrieve(query, K, record=False)


def one_round(indexes: dict[str, Flywheel], queries: list[str]) -> dict[str, Times]:
    """Each query to each index in turn, twice."""
    found: dict[str, Times] = {}
    for name in indexes:
        found |= {f"{name}_new": [], f"{name}_again": []}
    for fw in indexes.values():
        fw.lookups.clear()
    for query in queries:
        for name, fw in indexes.items():
            for kind in ("new", "again"):
                found[f"{name}_{kind}"] += timed(partial(_ask, fw, query), 1)
    return found


def after_each_edit(fw: Flywheel, data: Data) -> dict[str, dict[str, float]]:
    """The first query after an edit, a new one, and the same again."""
    first: Times = []
    again: Times = []
    for i in range(_SINGLE):
        fw.add(edited(data, [i * 7 + 3], f"edit{i}"))
        query = data.queries[i]
        first += timed(partial(_ask, fw, query), 1)
        again += timed(partial(_ask, fw, query), 1)
    return {"first_after_edit": percentiles([first]), "then_again": percentiles([again])}


def main() -> None:
    """Make the copies, measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", default="aws_docs")
    parser.add_argument("--passages", type=int, default=159_173)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed_edits.json"))
    asked = parser.parse_args()
    began = time.perf_counter()
    data = read_data(asked.collection, asked.passages)
    none = asked.work / "none"
    if not none.exists():
        with Flywheel.open(none, encoder=data.encoder, config=Config(encoder="")) as fw:
            fw.add(data.passages)
            fw.refresh()
    every = list(range(0, len(data.passages), 100))
    places = {"none": [], "one": every[:1], "percent": every}
    with ExitStack() as stack:
        indexes = {}
        for name, of in places.items():
            root = asked.work / name
            if name != "none":
                shutil.rmtree(root, ignore_errors=True)
                shutil.copytree(none, root)
            fw = stack.enter_context(Flywheel.open(root, encoder=data.encoder))
            fw.retrieve(data.queries[0], K, record=False)
            if of:
                fw.add(edited(data, of, "revised"))
            indexes[name] = fw
        queries = data.queries[: asked.queries]
        rounds = []
        for turn in range(asked.rounds + 1):
            print(f"{time.strftime('%H:%M:%S')} round {turn}", file=sys.stderr, flush=True)
            spent = one_round(indexes, queries)
            rounds += [spent] if turn else []  # the first one warms up
        single = after_each_edit(indexes["percent"], data)
    calls = {}
    for name in rounds[0]:
        base = f"none_{name.split('_')[1]}"
        ratio = np.median([_cpu(each[name]) / _cpu(each[base]) for each in rounds])
        of_rounds = percentiles([each[name] for each in rounds])
        calls[name] = {**of_rounds, "cpu_over_none": round(float(ratio), 3)}
    found = {
        "commit": commit(),
        "seed": SEED,
        "machine": machine(*LIBRARIES),
        "collection": asked.collection,
        "n_passages": len(data.passages),
        "n_edited": {name: len(of) for name, of in places.items()},
        "k": K,
        "n_queries": len(queries),
        "rounds": asked.rounds,
        "calls": {**calls, **single},
        "seconds": round(time.perf_counter() - began, 1),
    }
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found["calls"], indent=1))


def _cpu(spent: Times) -> float:
    return float(np.median([busy for _, busy in spent]))


if __name__ == "__main__":
    main()
