"""The same question asked again, before any refresh: how close the order is to Bayes' rule.

    python benchmarks/learning/asked_again.py --out benchmarks/results/asked_again.json

RAG_FLYWHEEL_DATA holds the BEIR folders. Each of 200 train questions is asked by m users who look
at rank r with probability 1/r and err in a fifth of their verdicts. nDCG@10 of the same questions:
`start` before any vote, `ours` after m users, `bayes` the order before votes times ((1 - eps) /
eps)^(helpful - harmful) of the question's own votes, `bound` whatever right passage was among the
first eight comes first. `duplicates`: the same for other questions at a cosine of at least 0.95,
which got no vote themselves.
"""

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Flywheel
from rag_flywheel.bench.baselines_repeated import bayes
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.measures import mean, ndcg_at_10
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.setup import Bench, prepare
from rag_flywheel.bench.users import Users
from rag_flywheel.records import Vote

NAMES = ("scifact", "metatool", "feedbackqa")
ASKED_BY, N_QUESTIONS, SHOWN, DEPTH = (2, 3, 5, 9), 200, 8, 75
DUPLICATE = 0.95
USERS = Users(eta=1.0, eps=0.2)
Scores = Mapping[str, Mapping[str, float]]
"""The logarithms of the chances of passages, by question."""


def run(name: str, seed: int) -> list[dict[str, Any]]:
    """One collection under one seed: a result for each number of users."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        bench = prepare(find_collection(name), Protocol(seed=seed), Path(scratch), None)
        asked = [q for part in bench.parts for q in part][:N_QUESTIONS]
        twins = _twins(bench, asked)
        for m in ASKED_BY:
            with bench.copy(f"asked by {m}") as fw:
                found.append(
                    {"collection": name, "seed": seed, "m": m}
                    | _asked(fw, bench, asked, twins, m, seed)
                )
    return found


def _asked(
    fw: Flywheel,
    bench: Bench,
    asked: Sequence[str],
    twins: Mapping[str, str],
    m: int,
    seed: int,
) -> dict[str, Any]:
    rng, train = np.random.default_rng([seed, m]), bench.train
    every = [*asked, *twins]
    start = _scores(fw, bench, every)
    net: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    shown: dict[str, set[str]] = defaultdict(set)
    for user in range(m):
        votes: list[Vote] = []
        for query, seen in zip(
            asked, fw.retrieve_many([train.queries[q] for q in asked], SHOWN), strict=True
        ):
            shown[query] |= {hit.passage_id for hit in seen.hits}
            given = USERS.votes(seen, train.qrels[query], f"user {user} of {query}", rng)
            for vote in given:
                net[query][vote.passage_id] += 1.0 if vote.verdict == "helpful" else -1.0
            votes += given
        fw.feedback_many(votes)
    by_rule = {q: _bayes(start[q], net[twins.get(q, q)]) for q in every}
    right = {q: train.qrels[q] for q in every}
    bound = {
        q: {
            p: s + 1e6 * (p in shown[twins.get(q, q)] and right[q].get(p, 0) > 0)
            for p, s in start[q].items()
        }
        for q in every
    }
    orders = {"start": start, "ours": _scores(fw, bench, every), "bayes": by_rule, "bound": bound}
    return {
        "n": len(asked),
        "again": {k: _ndcg(bench, asked, v) for k, v in orders.items()},
        "n_duplicates": len(twins),
        "duplicates": {k: _ndcg(bench, list(twins), v) for k, v in orders.items()}
        if twins
        else None,
    }


def _bayes(start: Mapping[str, float], net: Mapping[str, float]) -> dict[str, float]:
    """The logarithms of the chances `start` after the net votes on each passage."""
    votes = np.array([net.get(passage, 0.0) for passage in start])
    scores = bayes(np.array(list(start.values())), votes, USERS.eps)
    return dict(zip(start, scores.tolist(), strict=True))


def _twins(bench: Bench, asked: Sequence[str]) -> dict[str, str]:
    """Train questions that are not asked, each with the nearest asked one at 0.95 or more."""
    assert bench.encoder is not None
    others = sorted(set(bench.train.queries) - set(asked))
    vectors = [
        bench.encoder.encode_queries([bench.train.queries[q] for q in some])
        for some in (others, asked)
    ]
    cosines = vectors[0] @ vectors[1].T
    best = cosines.argmax(axis=1)
    return {
        q: asked[at]
        for q, at, row in zip(others, best.tolist(), cosines, strict=True)
        if row[at] >= DUPLICATE
    }


def _scores(fw: Flywheel, bench: Bench, queries: Sequence[str]) -> dict[str, dict[str, float]]:
    texts = [bench.train.queries[q] for q in queries]
    found = fw.retrieve_many(texts, DEPTH, record=False)
    return {
        q: {hit.passage_id: hit.score for hit in seen.hits}
        for q, seen in zip(queries, found, strict=True)
    }


def _ndcg(bench: Bench, queries: Sequence[str], scores: Scores) -> float:
    run = {q: sorted(scores[q], key=lambda p, q=q: (-scores[q][p], p)) for q in queries}  # type: ignore[misc]
    return mean(ndcg_at_10({q: bench.train.qrels[q] for q in queries}, run))


def main() -> None:
    """Run every collection under every seed, write one file, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", nargs="+", default=list(NAMES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/asked_again.json"))
    given = parser.parse_args()
    runs = [r for name in given.collections for seed in range(given.seeds) for r in run(name, seed)]
    given.out.write_text(
        json.dumps({"commit": commit(), "runs": runs}, indent=1) + "\n", encoding="utf-8"
    )
    for name in given.collections:
        for m in ASKED_BY:
            some = [r for r in runs if (r["collection"], r["m"]) == (name, m)]
            for what in ("again", "duplicates"):
                values = [r[what] for r in some if r[what]]
                if values:
                    line = {k: round(statistics.median(v[k] for v in values), 3) for k in values[0]}
                    print(name, f"m = {m}", what, line, flush=True)


if __name__ == "__main__":
    main()
