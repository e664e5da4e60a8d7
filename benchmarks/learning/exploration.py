"""What exploration costs and finds: the last place of some answers goes to a passage from below.

    python benchmarks/learning/exploration.py --out benchmarks/results/exploration.json

RAG_FLYWHEEL_DATA holds the BEIR folders. Of each collection 300 train questions (150 where each is asked
ten times) are asked under several kinds of traffic, in three cycles with a refresh each, by users of
whom a fifth of the verdicts are wrong, and by the same users whatever is explored: whoever asks at one
place of the traffic looks at the same ranks and errs at the same ranks. Then 300 test questions are
scored.

`reach`: share of the questions asked of which a right passage got a "helpful" on that question.
`reach_right`: the mean share of a question's right passages that did. `reach_test`: the mean share of
a test question's right passages that got one on any question that they answer. `headroom`: the share of
train questions whose first right passage the index without votes has at ranks 9 to 50, which is what
exploring could find at most. `shown`: what users were shown, by place of the traffic. Intervals (95 %)
are bootstrapped over the questions of all seeds. Which answers are explored depends on the ids of
retrievals, which are random, so no two runs are the same.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Vote
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.cycles import answers, asking_of
from rag_flywheel.bench.intervals import paired_difference
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.measures import by_query, mean, ndcg_at_10
from rag_flywheel.bench.protocol import Protocol, Traffic
from rag_flywheel.bench.setup import Bench, prepare
from rag_flywheel.bench.users import Users, people
from rag_flywheel.config import FILE_NAME, config_text, read_config
from rag_flywheel.records import Retrieval

NAMES = ("scifact", "stackfaq")
SHARES = (0.0, 0.1, 0.2, 0.5)
N_TEST, N_CYCLES, DEPTH, DEEP = 300, 3, 10, 50
MEASURES = ("nDCG@8", "R@8")
ByName = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Kind:
    """Traffic in which each question is asked `times`, or by Zipf's law (`n_asked` in all).

    eta: as of `Users`. silent: users say what helps, and nothing of what does not.
    """

    times: int = 1
    eta: float = 1.0
    zipf: bool = False
    n_asked: int | None = None
    silent: bool = False
    n_questions: int = 300


KINDS: Mapping[str, Kind] = {
    "asked once": Kind(),
    "asked once, all hits read": Kind(eta=0.0),
    "cycles-v2": Kind(zipf=True),
    "cycles-v2, 1,500 asked": Kind(zipf=True, n_asked=1_500),
    "asked 10 times": Kind(times=10, n_questions=150),
    "asked 10 times, all hits read": Kind(times=10, eta=0.0, n_questions=150),
    "asked 10 times, all hits read, thumbs up alone": Kind(10, 0.0, silent=True, n_questions=150),
    "asked 30 times, all hits read, thumbs up alone": Kind(30, 0.0, silent=True, n_questions=150),
}


def run(name: str, kind: Kind, seed: int, shares: Sequence[float]) -> tuple[float, list[ByName]]:
    """The headroom, and for each share explored the values of one seed, by measure and by question."""
    users = Users(eta=kind.eta, eps=0.2)
    protocol = Protocol(
        n_cycles=N_CYCLES,
        seed=seed,
        max_train=kind.n_questions,
        max_test=N_TEST,
        users=users,
        traffic=Traffic(kind.n_asked) if kind.zipf else None,
    )
    with tempfile.TemporaryDirectory() as scratch:
        bench = prepare(find_collection(name), protocol, Path(scratch), None)
        if not kind.zipf:
            bench = replace(bench, parts=_asked_again(bench, kind.times, seed))
        with bench.open(bench.base) as fw:
            static = answers(fw, bench.train, DEEP)
        rights = {q: _right(bench.train.qrels[q]) for q in static}
        found = [not rights[q] & {*run[:8]} and rights[q] & {*run} for q, run in static.items()]
        return sum(map(bool, found)) / len(found), [
            _explored(bench, protocol, share, seed, silent=kind.silent) for share in shares
        ]


def _asked_again(bench: Bench, times: int, seed: int) -> tuple[tuple[str, ...], ...]:
    """The train questions, each asked so many times, in any order, cut into cycles."""
    rng = np.random.default_rng([seed, times])
    every = rng.permutation([q for part in bench.parts for q in part] * times).tolist()
    return tuple(
        tuple(every[i] for i in cut) for cut in np.array_split(range(len(every)), N_CYCLES)
    )


def _explored(bench: Bench, protocol: Protocol, share: float, seed: int, *, silent: bool) -> ByName:
    folder = Path(shutil.copytree(bench.base, bench.folder("explored")))
    settings = replace(read_config(folder / FILE_NAME), explore=share)
    (folder / FILE_NAME).write_text(config_text(settings), encoding="utf-8")
    train, lists = bench.train, dict[str, list[str]]()
    n_explored, reached = [0], defaultdict[str, set[str]](set)
    with bench.open(folder) as fw:
        for cycle, part in enumerate(bench.parts):
            ask = _users(bench, protocol, cycle, seed)

            def respond(place: int, seen: Retrieval) -> list[Vote]:
                query = part[place]  # noqa: B023
                lists[f"{cycle} {place} {query}"] = [hit.passage_id for hit in seen.hits]  # noqa: B023
                n_explored[0] += any(hit.explored for hit in seen.hits)
                votes = ask(place, seen)  # noqa: B023
                if silent:
                    votes = [vote for vote in votes if vote.verdict == "helpful"]
                right = _right(train.qrels[query])
                reached[query] |= {v.passage_id for v in votes if v.verdict == "helpful"} & right
                return votes

            asking_of(fw, train, part, respond)()
            fw.refresh()
        test = answers(fw, bench.test, DEPTH)
    shutil.rmtree(folder)
    asked = sorted({query for part in bench.parts for query in part})
    by_any = {p for found in reached.values() for p in found}
    shown_right = {place: train.qrels[place.split(" ", 2)[2]] for place in lists}
    shown = by_query(MEASURES, shown_right, lists)
    return {
        "nDCG@10": ndcg_at_10(bench.test.qrels, test),
        "reach": {q: float(bool(reached[q])) for q in asked},
        "reach_right": {q: _share(train.qrels[q], reached[q]) for q in asked},
        "reach_test": {q: _share(bench.test.qrels[q], by_any) for q in bench.test.queries},
        **{f"shown {name}": values for name, values in shown.items()},
        "lists explored": {"all": n_explored[0] / len(lists)},
    }


def _users(
    bench: Bench, protocol: Protocol, cycle: int, seed: int
) -> Callable[[int, Retrieval], list[Vote]]:
    """Who votes on what is shown at each place of a cycle."""
    part, traffic = bench.parts[cycle], protocol.traffic
    if traffic is None:
        crowd = None
    else:
        crowd = people(
            protocol.users, traffic.n_users, traffic.willingness, np.random.default_rng(seed)
        )

    def votes(place: int, seen: Retrieval) -> list[Vote]:
        rng, right = np.random.default_rng([seed, cycle, place]), bench.train.qrels[part[place]]
        if crowd is None:
            return protocol.users.votes(seen, right, f"user {cycle} {place}", rng)
        person = crowd[bench.askers[cycle][place]]
        return [v for v in person.feedback(seen, right, rng) if isinstance(v, Vote)]

    return votes


def _right(grades: Mapping[str, int]) -> set[str]:
    return {passage for passage, grade in grades.items() if grade > 0}


def _share(grades: Mapping[str, int], reached: set[str]) -> float:
    right = _right(grades)
    return len(right & reached) / len(right)


def summary(name: str, kind: str, seeds: int, shares: Sequence[float]) -> dict[str, Any]:
    """One collection under one kind of traffic, over all seeds."""
    began = time.monotonic()
    headrooms, pooled = list[float](), [defaultdict[str, dict[str, float]](dict) for _ in shares]
    for seed in range(seeds):
        headroom, found = run(name, KINDS[kind], seed, shares)
        headrooms.append(headroom)
        for every, own in zip(pooled, found, strict=True):
            for measure, values in own.items():
                every[measure].update({f"{seed} {q}": value for q, value in values.items()})
    return {
        "collection": name,
        "traffic": kind,
        "seeds": seeds,
        "headroom": round(mean(dict(enumerate(headrooms))), 4),  # type: ignore[arg-type]
        "shares": [
            {
                "explore": share,
                **{measure: round(mean(values), 4) for measure, values in every.items()},
                "against 0": {
                    measure: _difference(values, pooled[0][measure])
                    for measure, values in every.items()
                    if share and measure != "lists explored"
                },
            }
            for share, every in zip(shares, pooled, strict=True)
        ],
        "seconds": round(time.monotonic() - began, 1),
    }


def _difference(ours: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    found = paired_difference(ours, other, seed=0)
    assert found is not None
    return {name: round(value, 4) for name, value in found.items()}


def main() -> None:
    """Run what is asked for and not yet there, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", nargs="+", default=list(NAMES))
    parser.add_argument("--traffic", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/exploration.json"))
    asked = parser.parse_args()
    held: dict[str, Any] = {"k": 8, "cycles": N_CYCLES, "runs": []}
    if asked.out.exists():
        held = json.loads(asked.out.read_text(encoding="utf-8"))
    for kind in asked.traffic:
        for name in asked.collections:
            done = [r for r in held["runs"] if (r["collection"], r["traffic"]) == (name, kind)]
            if not done:
                found = summary(name, kind, asked.seeds, asked.shares) | {"commit": commit()}
                held["runs"].append(found)
                asked.out.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
                done = [found]
            print(name, kind, f"headroom {done[0]['headroom']}, {done[0]['seconds']} s")
            for line in done[0]["shares"]:
                print("  ", {k: v for k, v in line.items() if k != "against 0"}, flush=True)


if __name__ == "__main__":
    main()
