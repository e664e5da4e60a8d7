"""What a filter on metadata costs: by how many texts pass it, after a vote, and when it is a new one.

    RAG_FLYWHEEL_DATA=... python benchmarks/speed/speed_filters.py --out benchmarks/results/speed_filters.json

Queries come with their vectors, and what is remembered of them is forgotten before each call. Each
round asks every kind once with the same queries, in turns; "cpu_over_none" is the median over rounds of
the ratio to the calls without a filter. Before a call "after_vote" another one, `status()`, reads the vote,
and so turns the processor's caches over; "after_status" is the same without a vote, and "a_vote_costs"
the median over rounds of what lies between the two.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.bench.machine import commit, machine
from rag_flywheel.deploy.versions import version_folder
from rag_flywheel.index.dense import DenseIndex
from rag_flywheel.index.part import Part
from speed_data import SEED, Data, read_data
from speed_times import Times, percentiles, timed

K = 8
SHARES = {"half": 0.5, "fifth": 0.2, "tenth": 0.1, "twentieth": 0.05, "thousandth": 0.001}
AFTER = ("_after_status", "_after_vote")
LIBRARIES = ("faiss-cpu", "numpy", "msgspec")
_RECALL_QUERIES = 200
_VOTES = 20  # by kind and round: reading the whole status before each takes long


def labelled(data: Data) -> list[Passage]:
    """The passages with metadata: for each share a key whose values have that share of the texts each, a
    number of their own, and one of 400 days."""
    rng = np.random.default_rng(SEED)
    n = len(data.passages)
    groups = {name: rng.integers(0, round(1 / share), n).tolist() for name, share in SHARES.items()}
    return [
        Passage(
            p.id,
            p.text,
            p.title,
            {name: values[i] for name, values in groups.items()}
            | {"number": i, "other": i % 97, "day": f"2030-{1 + i % 12:02d}-{1 + i % 28:02d}"},
        )
        for i, p in enumerate(data.passages)
    ]


def calls(fw: Flywheel, queries: list[str]) -> dict[str, Callable[[int], object]]:
    """What is timed, by its name."""

    def asked(where: dict[str, Any] | None) -> Callable[[int], object]:
        def call(i: int) -> object:
            return fw.retrieve(queries[i], K, where=where, record=False)

        return call

    def new(where: Callable[[int], dict[str, Any]]) -> Callable[[int], object]:
        turn = iter(range(10**6))

        def call(i: int) -> object:
            return fw.retrieve(queries[i], K, where=where(next(turn)), record=False)

        return call

    return {
        "none": asked(None),
        **{name: asked({name: 0}) for name in SHARES},
        **{f"none{after}": asked(None) for after in AFTER},
        **{f"twentieth{after}": asked({"twentieth": 1}) for after in AFTER},
        **{f"half{after}": asked({"half": 1}) for after in AFTER},
        "new_value": new(lambda i: {"number": {"in": list(range(i, i + 1000))}}),
        "new_range": new(lambda i: {"number": {"gte": i}}),
        "new_dates": new(lambda i: {"day": {"gte": "2030-02-03"}, "number": {"gte": i}}),
        "new_and_or": new(
            lambda i: {"or": [{"tenth": i % 10}, {"twentieth": 3, "number": {"lt": i}}]}
        ),
    }


def _at(call: Callable[[int], object], i: int, _: int) -> object:
    return call(i)


def one_round(fw: Flywheel, queries: list[str]) -> dict[str, Times]:
    """Each query by each kind of call. Votes go to other questions than the one that is asked."""
    answers = [fw.retrieve(query, K) for query in queries]
    found: dict[str, Times] = {}
    for name, call in calls(fw, queries).items():
        spent: Times = []
        for i in range(_VOTES if name.endswith(AFTER) else len(queries)):
            fw.lookups.clear()
            if name.endswith("after_vote"):
                voted = answers[i - 1]
                fw.feedback(voted.id, voted.hits[i % K].passage_id, "helpful", user_id=f"u{i}")
            if name.endswith(AFTER):
                fw.status()
            elif name in SHARES or name == "none":
                call(i)
                fw.lookups.clear()
            spent += timed(partial(_at, call, i), 1)
        found[name] = spent
    return found


def of_first_calls(root: Path, data: Data) -> dict[str, dict[str, float]]:
    """The first filter of a process, the second, and the first on another key."""
    found = {}
    with Flywheel.open(root, encoder=data.encoder) as fw:
        fw.retrieve(data.queries[0], K, record=False)
        for name, where in (
            ("first_key", {"half": 1}),
            ("same_key", {"half": 0}),
            ("other_key", {"other": 3}),
        ):
            query = data.queries[1]

            def call(_: int, query: str = query, where: dict[str, int] = where) -> object:
                return fw.retrieve(query, K, where=where, record=False)

            ((wall, busy),) = timed(call, 1)
            found[name] = {"ms": round(wall, 2), "cpu_ms": round(busy, 2)}
    return found


def recalls(root: Path, data: Data, fw: Flywheel) -> dict[str, float]:
    """The share of the exact 10 nearest among a filter's texts that the dense search finds."""
    live = fw.status().version
    assert live is not None
    index = DenseIndex.load(version_folder(root, live), dim=data.encoder.dim)
    queries = data.encoder.encode_queries(data.queries[:_RECALL_QUERIES])
    rng = np.random.default_rng(SEED)
    found = {}
    for name, share in SHARES.items():
        part = Part.of(rng.random(len(index)) < share)
        pairs = zip(
            index.search(queries, 10, part), index.search_all(queries, 10, part), strict=True
        )
        found[name] = round(float(np.mean([np.isin(a, b).mean() for a, b in pairs])), 4)
    return found


def short_answers(fw: Flywheel, data: Data) -> int:
    """How many answers have fewer than k hits though k texts pass, of 100 queries by each share."""
    found = 0
    for name in SHARES:
        for query in data.queries[:100]:
            found += len(fw.retrieve(query, K, where={name: 1}, record=False).hits) < K
    return found


def vote_costs(rounds: list[dict[str, Times]], name: str) -> float:
    """Milliseconds of the processor that the first call after a vote takes longer for the vote."""
    status, vote = AFTER
    apart = [_median(r[name + vote]) - _median(r[name + status]) for r in rounds]
    return round(float(np.median(apart)), 2)


def main() -> None:
    """Build the index, measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collection", default="aws_docs")
    parser.add_argument("--passages", type=int, default=159_173)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "flywheel-filters"
    )
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    data = read_data(asked.collection, asked.passages)
    root = asked.work / f"{asked.collection}-{len(data.passages)}"
    new = not root.exists()
    with Flywheel.open(
        root, encoder=data.encoder, config=Config(encoder="") if new else None
    ) as fw:
        if new:
            fw.add(labelled(data))
            fw.refresh()
        queries = data.queries[: asked.queries]
        rounds = []
        for turn in range(asked.rounds + 1):
            print(f"{time.strftime('%H:%M:%S')} round {turn}", file=sys.stderr, flush=True)
            spent = one_round(fw, queries)
            rounds += [spent] if turn else []
        names = list(rounds[0])
        ratios = {
            name: float(np.median([_median(r[name]) / _median(r["none"]) for r in rounds]))
            for name in names
        }
        found = {
            "commit": commit(),
            "machine": machine(*LIBRARIES),
            "collection": asked.collection,
            "n_passages": len(data.passages),
            "k": K,
            "rounds": asked.rounds,
            "n_queries": len(queries),
            "calls": {
                name: percentiles([r[name] for r in rounds])
                | {"cpu_over_none": round(ratios[name], 3)}
                for name in names
            },
            "a_vote_costs": {
                name: vote_costs(rounds, name) for name in ("none", "twentieth", "half")
            },
            "recall@10": recalls(root, data, fw),
            "answers_with_fewer_than_k": short_answers(fw, data),
        }
    found["first_calls"] = of_first_calls(root, data)
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


def _median(spent: Times) -> float:
    return float(np.median([busy for _, busy in spent]))


if __name__ == "__main__":
    main()
