"""What attackers leave of the lift: nDCG@10 of test queries that never get a vote, by kind of attack.

    python benchmarks/learning/attacks.py --seeds 3 --out benchmarks/results/attacks.json

RAG_FLYWHEEL_DATA holds the BEIR folders. Protocol cycles-v1 with five cycles, and people with names:
each train query is asked by one of a hundred, who look at rank r with probability 1/r and err in a
fifth of their verdicts. Chance is the same for every attack under a seed: the same people ask the same
queries, and the honest ones look at the same ranks and err at the same places, so that runs differ by
what attackers do. Attackers look at every hit:

    silent     nothing: what is lost then is not lost to an attack, but with so many voters
    inverting  the opposite of what they know to be right
    pushing    "helpful" on one passage, the same for all of them, "harmful" on all others; where it is
               not shown, they name it as the answer
    helpful    "helpful" on every hit

A run that the result file already holds is not run again. `lift`: learned less static; `kept`: its
share of the lift without attackers under the same seed, where that is at least LEAST_LIFT (on feedbackqa
there is none in seeds in which the gate lets no weights in); `junk`: the share of test queries that show
the pushed passage among the first eight, where it is wrong and was not there before any vote.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Flywheel
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.cycles import SHOWN, answers
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.measures import mean, ndcg_at_10
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.setup import Bench, prepare
from rag_flywheel.bench.users import Users
from rag_flywheel.records import Retrieval, Vote

NAMES = ("metatool", "feedbackqa", "stackfaq")
ATTACKS = {
    "none": ("none", 0.0),
    "silent 5 %": ("silent", 0.05),
    "inverting 5 %": ("inverting", 0.05),
    "inverting 10 %": ("inverting", 0.1),
    "inverting 20 %": ("inverting", 0.2),
    "pushing 5 %": ("pushing", 0.05),
    "helpful 10 %": ("helpful", 0.1),
}
PEOPLE, MAX_TRAIN, MAX_TEST, N_CYCLES = 100, 3_000, 1_000, 5
HONEST = Users(eta=1.0, eps=0.2)
LEAST_LIFT = 0.005
_AT_A_TIME = 16


def run(bench: Bench, name: str, attack: str, seed: int) -> dict[str, Any]:
    """One collection under one attack."""
    began = time.monotonic()
    kind, share = ATTACKS[attack]
    rng = np.random.default_rng([seed, 7])
    pushed = str(rng.choice(sorted(p.id for p in bench.collection.passages)))
    attackers = set(rng.permutation(PEOPLE)[: round(share * PEOPLE)].tolist())
    with bench.copy("attacked") as fw:
        before = answers(fw, bench.test, 10)
        for number, part in enumerate(bench.parts):
            _cycle(fw, bench, part, kind, attackers, pushed, (seed, number))
            report = fw.refresh()
        after = answers(fw, bench.test, 10)
        caught = _caught(fw, attackers)
    static, learned = (mean(ndcg_at_10(bench.test.qrels, found)) for found in (before, after))
    return {
        "collection": name,
        "attack": attack,
        "seed": seed,
        "static": static,
        "learned": learned,
        "lift": learned - static,
        "junk": _junk(bench, pushed, before, after),
        "raters": caught,
        "last_refresh": {"reason": report.reason, **report.scores},
        "seconds": round(time.monotonic() - began, 1),
    }


def _cycle(
    fw: Flywheel,
    bench: Bench,
    queries: Sequence[str],
    kind: str,
    attackers: set[int],
    pushed: str,
    seeds: tuple[int, int],
) -> None:
    for start in range(0, len(queries), _AT_A_TIME):
        part = queries[start : start + _AT_A_TIME]
        votes: list[Vote] = []
        shown = fw.retrieve_many([bench.train.queries[q] for q in part], SHOWN)
        for place, (query, seen) in enumerate(zip(part, shown, strict=True), start):
            rng = np.random.default_rng([*seeds, place])  # of this question, whoever asks
            person = int(rng.integers(PEOPLE))
            known = bench.train.qrels[query]
            if person not in attackers:
                votes += HONEST.votes(seen, known, f"person-{person}", rng)
                continue
            verdicts = _verdicts(kind, seen, known, pushed)
            votes += [
                Vote(seen.id, p, "helpful" if good else "harmful", f"person-{person}")
                for p, good in verdicts.items()
            ]
            if kind == "pushing" and pushed not in verdicts and seen.id is not None:
                fw.correct(seen.id, pushed, user_id=f"person-{person}")
        fw.feedback_many(votes)


def _verdicts(kind: str, seen: Retrieval, known: Mapping[str, int], pushed: str) -> dict[str, bool]:
    if kind == "silent":
        return {}
    if kind == "inverting":
        return {h.passage_id: known.get(h.passage_id, 0) <= 0 for h in seen.hits}
    if kind == "pushing":
        return {h.passage_id: h.passage_id == pushed for h in seen.hits}
    return {h.passage_id: True for h in seen.hits}


def _junk(
    bench: Bench,
    pushed: str,
    before: Mapping[str, Sequence[str]],
    after: Mapping[str, Sequence[str]],
) -> float:
    new = [
        pushed in found[:SHOWN]
        and pushed not in before[query][:SHOWN]
        and bench.test.qrels[query].get(pushed, 0) <= 0
        for query, found in after.items()
    ]
    return sum(new) / len(new)


def _caught(fw: Flywheel, attackers: set[int]) -> dict[str, Any]:
    """The weights of attackers and of the others, as `fw.raters` reports them, and how many of each look
    like a crowd."""
    raters = fw.raters([f"person-{i}" for i in range(PEOPLE)])
    of = {int(str(r.name).removeprefix("person-")): r for r in raters if r.name is not None}
    found = {}
    for kind, people in (("attackers", attackers), ("others", of.keys() - attackers)):
        some = [of[i] for i in people if i in of]
        if some:
            weights = [r.weight for r in some]
            found[kind] = {
                "mean": round(statistics.mean(weights), 3),
                "least": min(weights),
                "most": max(weights),
                "in_crowds": sum(r.crowd is not None for r in some),
            }
    return found


def main() -> None:
    """Run what is asked for and not yet there, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attacks", nargs="+", choices=list(ATTACKS), default=list(ATTACKS))
    parser.add_argument("--collections", nargs="+", default=list(NAMES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/attacks.json"))
    asked = parser.parse_args()
    for seed in range(asked.seeds):
        for name in asked.collections:
            _all_of(name, list(dict.fromkeys(["none", *asked.attacks])), seed, asked.out)
    held = _read(asked.out)
    for name in asked.collections:
        for attack in asked.attacks:
            runs = [r for r in held["runs"] if (r["collection"], r["attack"]) == (name, attack)]
            kept = [share for share in (_kept(held, r) for r in runs) if share is not None]
            middle = f"keeps {statistics.median(kept):.0%}" if kept else "nothing to keep"
            junk = statistics.median(r["junk"] for r in runs)
            seeds = f"{len(kept)} of {len(runs)} seeds gain without attackers"
            print(f"{name}, {attack}: {middle}, junk in {junk:.1%}, {seeds}")


def _all_of(name: str, attacks: Sequence[str], seed: int, out: Path) -> None:
    """Run what is missing of one collection and seed."""
    missing = [a for a in attacks if _find(_read(out), name, a, seed) is None]
    if not missing:
        return
    protocol = Protocol(seed=seed, n_cycles=N_CYCLES, max_train=MAX_TRAIN, max_test=MAX_TEST)
    with tempfile.TemporaryDirectory() as scratch:
        bench = prepare(find_collection(name), protocol, Path(scratch), None)
        for attack in missing:
            found = run(bench, name, attack, seed)
            held = _read(out)
            held["runs"].append(found | {"commit": commit()})
            out.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
            print(_line(held, found), flush=True)


def _line(held: dict[str, Any], found: dict[str, Any]) -> str:
    kept = _kept(held, found)
    return (
        f"{found['collection']}, {found['attack']}, seed {found['seed']}: {found['static']:.4f} -> "
        f"{found['learned']:.4f}, keeps {'-' if kept is None else f'{kept:.0%}'}, junk {found['junk']:.1%}, "
        f"{found['raters']}, {found['seconds']} s; {found['last_refresh']['reason']}"
    )


def _kept(held: dict[str, Any], found: dict[str, Any]) -> float | None:
    """The share of the lift that is left, None: there is none without attackers."""
    clean = _find(held, found["collection"], "none", found["seed"])
    if clean is None or clean["lift"] < LEAST_LIFT:
        return None
    return float(found["lift"] / clean["lift"])


def _find(held: dict[str, Any], name: str, attack: str, seed: int) -> dict[str, Any] | None:
    same = (name, attack, seed)
    return next(
        (r for r in held["runs"] if (r["collection"], r["attack"], r["seed"]) == same), None
    )


def _read(path: Path) -> dict[str, Any]:
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    machine = {"python": platform.python_version(), "n_cores": os.cpu_count()}
    people = {"people": PEOPLE, "max_train": MAX_TRAIN, "max_test": MAX_TEST}
    return {"protocol": "cycles-v1", "cycles": N_CYCLES, **people, "machine": machine, "runs": []}


if __name__ == "__main__":
    main()
