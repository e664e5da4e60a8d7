"""What each feature of the prior is worth: nDCG@10 of test queries without it, memory off.

    python benchmarks/learning/ablation.py --out benchmarks/results/ablation.json

RAG_FLYWHEEL_DATA holds the BEIR folders. Votes are cast on the static ranking's hits for all train
queries (attention 1/rank, a fifth wrong), weights are fitted to them as a refresh does, with the
feature set to 0 everywhere, and test and dev queries are ranked by the fitted prior.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Config, Flywheel
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.measures import mean, ndcg_at_10
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.setup import Bench, prepare
from rag_flywheel.bench.users import Users
from rag_flywheel.curate.source import Source
from rag_flywheel.encode.encoder_slot import OneEncoder
from rag_flywheel.formats.beir import Split
from rag_flywheel.improve.examples import Examples, Floats
from rag_flywheel.improve.fit import FREE, MOST_QUERIES, STRENGTH
from rag_flywheel.improve.likelihood import Fit, fit
from rag_flywheel.rank.features import FEATURES
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.records import EmbeddedText
from rag_flywheel.refresh.examples import ExampleBuilder
from rag_flywheel.refresh.past import read_past
from rag_flywheel.serve.candidates import look_up
from rag_flywheel.serve.catch_up import bare_state
from rag_flywheel.serve.live_version import LastLoaded, read_live
from rag_flywheel.serve.lookups import Lookups
from rag_flywheel.serve.state import State, scope
from rag_flywheel.store.database import FILE_NAME
from rag_flywheel.store.sqlite import SqliteDatabase

NAMES = ("scifact", "metatool", "feedbackqa", "squad11_dev")
SHOWN, SEED = 8, 0


def run(name: str) -> dict[str, Any]:
    """nDCG@10 with all features, and with each left out."""
    with tempfile.TemporaryDirectory() as scratch:
        bench = prepare(find_collection(name), Protocol(seed=SEED), Path(scratch), None)
        with bench.open(bench.base) as fw:
            n_votes = _cast(fw, bench)
        assert bench.encoder is not None
        database = SqliteDatabase(bench.base / FILE_NAME)
        version, _ = read_live(bench.base, database, LastLoaded(OneEncoder(bench.encoder)))
        encoder = bench.encoder
        past = read_past(database, Source(encoder, Config()), until=2**62)
        examples = ExampleBuilder(database, version, Lookups(0), 100).past(past)
        examples = examples.at(np.arange(len(examples))[-MOST_QUERIES:])
        with database.reading() as conn:
            state = bare_state(version, conn)
        splits = {"test": bench.test, "dev": bench.dev}
        ranked = {s: _features(state, bench, split) for s, split in splits.items()}
        rows = {}
        for left_out in (None, *FEATURES):
            found = _fitted(examples, left_out)
            weights, noise = found.weights, found.rates.noise
            scores = {s: _score(ranked[s], splits[s], weights, bench) for s in splits}
            rows[left_out or "nothing"] = {**scores, "noise": noise, "weights": weights.tolist()}
        shipped = np.array([Parameters().weights[f] for f in FEATURES])
        static = {s: _score(ranked[s], splits[s], shipped, bench) for s in splits}
        database.close()
    return {"collection": name, "n_votes": n_votes, "static": static, "left_out": rows}


def _cast(fw: Flywheel, bench: Bench) -> int:
    users, rng, n_votes = Users(eta=1.0, eps=0.2), np.random.default_rng(SEED), 0
    names = sorted(bench.train.queries)
    for start in range(0, len(names), 256):
        part = names[start : start + 256]
        shown = fw.retrieve_many([bench.train.queries[q] for q in part], SHOWN)
        for query, seen in zip(part, shown, strict=True):
            n_votes += fw.feedback_many(users.votes(seen, bench.train.qrels[query], query, rng))
    return n_votes


def _features(state: State, bench: Bench, split: Split) -> list[tuple[str, Any, Any]]:
    assert bench.encoder is not None
    names = sorted(split.queries)
    vectors = bench.encoder.encode_queries([split.queries[q] for q in names])
    queries = [EmbeddedText(split.queries[q], v) for q, v in zip(names, vectors, strict=True)]
    lookups = look_up(state, scope(state, None), queries, 100, Lookups(0))
    return [(q, found.pids, found.features) for q, found in zip(names, lookups, strict=True)]


def _fitted(examples: Examples, left_out: str | None) -> Fit:
    centre = np.array([Parameters().weights[name] for name in FEATURES])
    features = examples.features.copy()
    if left_out is not None:
        features[:, :, FEATURES.index(left_out)] = 0.0
    free = np.array([float(name in FREE) for name in FEATURES])
    found = fit(replace(examples, features=features), centre, strength=STRENGTH, free=free)
    if left_out is not None:
        found.weights[FEATURES.index(left_out)] = 0.0
    return found


def _score(
    ranked: list[tuple[str, Any, Any]], split: Split, weights: Floats, bench: Bench
) -> float:
    ids = {i + 1: p.id for i, p in enumerate(bench.collection.passages)}  # rows in order of adding
    run = {}
    for query, pids, features in ranked:
        best = np.lexsort((pids, -(features @ weights)))[:10]
        run[query] = [ids[int(pids[i])] for i in best]
    return mean(ndcg_at_10(split.qrels, run))


def main() -> None:
    """Run every collection and write one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", nargs="+", default=list(NAMES))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ablation.json"))
    asked = parser.parse_args()
    found = [run(name) for name in asked.collections]
    held = {"commit": commit(), "collections": found}
    asked.out.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    for result in found:
        whole = result["left_out"]["nothing"]
        print(result["collection"], "static", result["static"], "fitted", whole)
        for name in FEATURES:
            row = result["left_out"][name]
            print(
                f"  without {name}: test {row['test'] - whole['test']:+.4f}, "
                f"dev {row['dev'] - whole['dev']:+.4f}"
            )


if __name__ == "__main__":
    main()
