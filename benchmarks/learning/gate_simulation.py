"""How often the gate errs: false replacements, losses let through, real gains not seen.

    python benchmarks/learning/gate_simulation.py --out benchmarks/results/gate_simulation.json

Four parts, each on the gate's own code. Differences: candidates whose gain in nDCG@10 is known,
with differences by query of a given spread (most queries 0, the others of both signs; skewed: few
large losses against many small gains). Families: twenty looks at growing votes under one live
version. Forgets: ten looks, with users forgotten in between. Fits: two fits to two random halves of the
same voted queries of a real collection, either of them the candidate, so neither is better; needs
RAG_FLYWHEEL_DATA.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.cycles import asking
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.setup import prepare
from rag_flywheel.bench.users import Users
from rag_flywheel.curate.groups import query_groups
from rag_flywheel.evaluate.gate import GROWTH, Looks, Pair, TrialResults, alpha_of, decide
from rag_flywheel.evaluate.held_out import Judges
from rag_flywheel.evaluate.trial import Side, gated
from rag_flywheel.improve.examples import Examples, no_golden
from rag_flywheel.improve.fit import calibrated_parameters, propose
from rag_flywheel.rank.parameters import Parameters

SPREADS = (0.12, 0.17, 0.22)  # standard deviations of paired differences in nDCG@10
QUERIES = (300, 1_000)
GAINS = (-0.02, 0.0, 0.02)
LOOKS, FIRST, MANY = 20, 50, 2_000
FORGOTTEN = 12  # users after each look
_CHANGED = 0.4  # share of queries with any difference
Rng = np.random.Generator


def differences(
    rng: Rng, n: int, spread: float, gain: float, *, skewed: bool
) -> npt.NDArray[np.float64]:
    """n differences of mean `gain` and this spread, of which most are alike but for the mean."""
    size = rng.exponential(1.0, n)
    if skewed:  # one loss of four for four gains of one
        sign = np.where(rng.random(n) < 0.2, -4.0, 1.0)
        scale = np.sqrt(_CHANGED * 2.0 * (0.2 * 16.0 + 0.8))
    else:
        sign = np.where(rng.random(n) < 0.5, -1.0, 1.0)
        scale = np.sqrt(_CHANGED * 2.0)
    changed = rng.random(n) < _CHANGED
    return gain + spread * np.where(changed, sign * size / scale, 0.0)


def replaced(found: npt.NDArray[np.float64], before: Looks, seed: int) -> bool:
    """Whether the gate lets a candidate in whose golden queries differ by this."""
    golden = Pair(found, np.zeros(len(found)))
    return decide(TrialResults(golden=golden), 0, before, seed=seed).replaces


def by_differences(rounds: int) -> list[dict[str, Any]]:
    """The share of candidates let in at their first look, by their true gain."""
    rows = []
    for spread in SPREADS:
        for n in QUERIES:
            for gain in GAINS:
                for skewed in (False, True):
                    rng = np.random.default_rng([n, int(1000 * spread), int(100 * gain) + 10])
                    taken = sum(
                        replaced(differences(rng, n, spread, gain, skewed=skewed), Looks(), i)
                        for i in range(rounds)
                    )
                    rows.append(
                        {
                            "spread": spread,
                            "n_queries": n,
                            "gain": gain,
                            "skewed": skewed,
                            "replaced": taken / rounds,
                        }
                    )
                    print(rows[-1], flush=True)
    return rows


def families(rounds: int) -> dict[str, Any]:
    """Twenty looks each at growing votes, no candidate being better: how many let one in.

    Above MANY queries the distribution of sums under random signs is taken as normal.
    """
    erred = np.zeros((rounds, LOOKS), dtype=bool)
    for i in range(rounds):
        rng = np.random.default_rng([7, i])
        found = np.empty(0)
        for k in range(LOOKS):
            n = int(FIRST * GROWTH**k)
            more = differences(rng, n - len(found), 0.17, 0.0, skewed=False)
            found = np.append(found, more)
            if n <= MANY:
                erred[i, k] = replaced(found, Looks(k), i)
            else:
                z = found.sum() / np.sqrt((found**2).sum())
                erred[i, k] = norm.sf(z) <= alpha_of(k + 1)
    return {
        "families": rounds,
        "looks": LOOKS,
        "queries_first": FIRST,
        "growth": GROWTH,
        "per_look": float(erred.mean()),
        "ever_in_10": float(erred[:, :10].any(axis=1).mean()),
        "ever_in_20": float(erred.any(axis=1).mean()),
    }


def forgets(rounds: int) -> dict[str, Any]:
    """Ten looks at growing votes, no candidate being better, while twelve users are forgotten after each:
    how many families let something in, and keep it.

    Each forgotten user takes the votes on one query in fifty with them, which others then give anew.
    without: nobody is forgotten. again: a look's number and votes outlast the users; what is live is
    learned again from the votes that it was let in by and that are left, and stays while it gains.
    restarted: as it was before that, forgetting counts looks from one, and takes one. The same normal
    approximation of the test serves all three.
    """
    n_looks, ever = 10, dict.fromkeys(("without", "again", "restarted"), 0)
    kept, taken = 0, dict.fromkeys(ever, 0)
    for i in range(rounds):
        rng = np.random.default_rng([13, i])
        found, let_in = np.empty(0), dict.fromkeys(ever, False)
        live: npt.NDArray[np.float64] | None = None
        since_restart = 0
        for k in range(n_looks):
            n = int(FIRST * GROWTH**k)
            more = differences(rng, n - len(found), 0.17, 0.0, skewed=False)
            found = np.append(found, more)
            passes = _passes(found, alpha_of(k + 1))
            let_in["without"] |= passes
            taken["without"] += 1
            taken["again"] += 1
            if passes and live is None:
                let_in["again"], live = True, found.copy()
            since_restart += 1
            taken["restarted"] += 1
            let_in["restarted"] |= _passes(found, alpha_of(since_restart))
            for _ in range(FORGOTTEN):
                gone = rng.random(len(found)) < 1 / 50
                if live is not None and live[~gone[: len(live)]].sum() <= 0.0:
                    live = None  # withdrawn
                left = found[~gone]
                taken["restarted"] += 1
                let_in["restarted"] |= _passes(left, alpha_of(1))
                fresh = differences(rng, int(gone.sum()), 0.17, 0.0, skewed=False)
                found = found.copy()
                found[gone] = fresh
                since_restart = 1
        kept += live is not None
        for name, erred in let_in.items():
            ever[name] += erred
    return {
        "families": rounds,
        "looks": n_looks,
        "forgotten_after_each_look": FORGOTTEN,
        "queries_first": FIRST,
        "ever": {name: n / rounds for name, n in ever.items()},
        "looks_taken": {name: n / rounds for name, n in taken.items()},
        "live_at_the_end_again": kept / rounds,
    }


def _passes(found: npt.NDArray[np.float64], alpha: float) -> bool:
    z = found.sum() / np.sqrt((found**2).sum())
    return bool(norm.sf(z) <= alpha)


def fits(name: str, rounds: int) -> dict[str, Any]:
    """Fits to two halves of the same votes, either of them the candidate."""
    with tempfile.TemporaryDirectory() as scratch:
        examples = voted(name, Path(scratch))
    groups = query_groups(examples.vectors)
    taken: list[bool] = []
    gains: list[float] = []
    for i in range(rounds):
        rng = np.random.default_rng([11, i])
        third = rng.integers(0, 3, groups.max() + 1)[groups]  # whole groups
        judges, one, two = (np.flatnonzero(third == part) for part in range(3))
        others = examples.at(np.sort(np.append(one, two)))
        candidate, live = (
            calibrated_parameters(others, _fitted(examples.at(rows))) for rows in (one, two)
        )
        results = Judges(examples.at(judges), no_golden(examples), others)
        gate = gated(Side(candidate, results), Side(live, results), groups[judges], 0, Looks())
        taken.append(gate.decision.replaces)
        gains.append(gate.decision.mean or 0.0)
    return {
        "collection": name,
        "refreshes": rounds,
        "fitted_to": len(examples) // 3,
        "judged_by": len(examples) // 3,
        "replaced": float(np.mean(taken)),
        "mean_gain": float(np.mean(gains)),
        "spread_of_gains": float(np.std(gains)),
    }


def _fitted(examples: Examples) -> Parameters:
    found = propose(examples, Parameters()).parameters
    assert found is not None, "a third of the queries is too few to fit"
    return found


def voted(name: str, scratch: Path) -> Examples:
    """Past queries of a collection, asked once and voted on by users who are wrong at times."""
    from shipped_kernel import read_past_queries

    protocol = Protocol(seed=0, users=Users(eta=1.0, eps=0.2))
    bench = prepare(find_collection(name), protocol, scratch, None)
    with bench.open(bench.base) as fw:
        queries = [q for part in bench.parts for q in part]
        asking(fw, bench.train, queries, protocol.users, np.random.default_rng([0, 0]))()
    return read_past_queries(bench)[0]


def main() -> None:
    """Run the parts that were asked for, and write them into the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1_000)
    parser.add_argument("--families", type=int, default=1_000)
    parser.add_argument(
        "--forgets-alone", action="store_true", help="keep the other parts as they are"
    )
    parser.add_argument("--collections", nargs="*", default=["scifact"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gate_simulation.json"))
    asked = parser.parse_args()
    began = time.monotonic()
    if asked.forgets_alone:
        before = json.loads(asked.out.read_text(encoding="utf-8"))
        part = {"forgets": {"commit": commit(), **forgets(asked.families)}}
        print(json.dumps(part, indent=1))
        asked.out.write_text(json.dumps({**before, **part}, indent=1) + "\n", encoding="utf-8")
        return
    result: Mapping[str, Any] = {
        "commit": commit(),
        "machine": platform.platform(),
        "fits": [fits(name, asked.rounds) for name in asked.collections],
        "differences": by_differences(asked.rounds),
        "families": families(asked.families),
        "forgets": forgets(asked.families),
    }
    print(json.dumps({k: result[k] for k in ("fits", "families", "forgets")}, indent=1))
    whole = {**result, "seconds": round(time.monotonic() - began, 1)}
    asked.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
