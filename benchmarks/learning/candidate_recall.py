"""Whether votes bring in answers that neither dense search nor BM25 puts forward.

    python benchmarks/learning/candidate_recall.py --out benchmarks/results/candidate_recall.json

After the votes of cycles-v1 (eta 1, a fifth wrong), for the test queries of the collections under
RAG_FLYWHEEL_DATA: the share of relevant passages among the candidates, without and with passages
that votes on similar queries speak of, for several numbers of candidates of each kind.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.cycles import asking
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.setup import Bench, prepare
from rag_flywheel.bench.users import Users
from rag_flywheel.config import Config
from rag_flywheel.curate.source import Source
from rag_flywheel.encode.encoder_slot import OneEncoder
from rag_flywheel.rank.evidence import Asked, evidence_for
from rag_flywheel.rank.score import POOL
from rag_flywheel.records import EmbeddedText
from rag_flywheel.serve.candidates import look_up, with_evident
from rag_flywheel.serve.catch_up import initial_state
from rag_flywheel.serve.live_version import LastLoaded, read_live
from rag_flywheel.serve.lookups import Lookups
from rag_flywheel.serve.state import State, scope
from rag_flywheel.store.database import FILE_NAME
from rag_flywheel.store.sqlite import SqliteDatabase

NAMES = ("scifact", "metatool", "feedbackqa", "squad11_dev")
DEPTHS = (10, 25, 50, 100)
SEED = 0


def run(name: str) -> dict[str, Any]:
    """One collection."""
    protocol = Protocol(seed=SEED, users=Users(eta=1.0, eps=0.2))
    with tempfile.TemporaryDirectory() as scratch:
        bench = prepare(find_collection(name), protocol, Path(scratch), None)
        rng = np.random.default_rng([SEED, 0])
        with bench.open(bench.base) as fw:
            for part in bench.parts:
                asking(fw, bench.train, part, protocol.users, rng)()
                fw.refresh()
        assert bench.encoder is not None, "the vectors of the queries are prepared"
        database = SqliteDatabase(bench.base / FILE_NAME)
        version, frozen_at = read_live(bench.base, database, LastLoaded(OneEncoder(bench.encoder)))
        config = Config(encoder="")
        with database.snapshot() as conn:
            source = Source(bench.encoder, config)
            state = initial_state(version, frozen_at, conn, source)
        found = {str(n): _recall(state, bench, n) for n in DEPTHS}
        database.close()
    return {"collection": name, "by_candidates_of_each_kind": found}


def _recall(state: State, bench: Bench, n: int) -> dict[str, float]:
    assert bench.encoder is not None
    names = sorted(bench.test.queries)
    vectors = bench.encoder.encode_queries([bench.test.queries[q] for q in names])
    queries = [EmbeddedText(bench.test.queries[q], v) for q, v in zip(names, vectors, strict=True)]
    inside = scope(state, None)
    lookups = look_up(state, inside, queries, n, Lookups(0))
    said = evidence_for(
        state.evidence, [Asked(v) for v in vectors], None, state.version.parameters.kernel
    )
    ids = {i + 1: p.id for i, p in enumerate(bench.collection.passages)}  # rows in order of adding
    without: list[float] = []
    with_votes: list[float] = []
    for name, query, lookup, evidence in zip(names, queries, lookups, said, strict=True):
        relevant = {p for p, grade in bench.test.qrels[name].items() if grade > 0}
        brought, _ = with_evident(state, inside, query, lookup, evidence.strongest(POOL))
        for pids, shares in ((lookup.pids, without), (brought, with_votes)):
            shares.append(len(relevant & {ids[p] for p in pids.tolist()}) / len(relevant))
    return {"without": float(np.mean(without)), "with": float(np.mean(with_votes))}


def main() -> None:
    """Run every collection and write one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", nargs="+", default=list(NAMES))
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/candidate_recall.json")
    )
    asked = parser.parse_args()
    result = {
        "commit": commit(),
        "protocol": "cycles-v1",
        "seed": SEED,
        "n_cores": os.cpu_count(),
        "collections": [run(name) for name in asked.collections],
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
