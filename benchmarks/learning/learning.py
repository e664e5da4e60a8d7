"""What votes teach, by kind of user: nDCG@10 of test queries that never get a vote.

    python benchmarks/learning/learning.py --setting main --seeds 3 --out benchmarks/results/learning.json

    python benchmarks/learning/learning.py --setting tuned --out benchmarks/results/tuning.json

RAG_FLYWHEEL_DATA holds the BEIR folders. Protocol cycles-v1 with ten cycles, all test queries,
scored after the last cycle alone. A run that the result file already holds is not run again.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Flywheel, Vote
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.compare import unanswered
from rag_flywheel.bench.cycles import answers, asking
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.measures import by_query, mean
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.bench.setup import Bench, prepare
from rag_flywheel.bench.users import Users
from rag_flywheel.encoder import Encoder
from rag_flywheel.improve.threshold import thetas
from rag_flywheel.index.nearest import nearest_rows
from rag_flywheel.records import Vectors

NAMES = ("scifact", "metatool", "feedbackqa", "squad11_dev", "stackfaq")
SETTINGS = {
    "main": Users(eta=1.0, eps=0.2),
    "clean": Users(eta=1.0, eps=0.0),
    "five cycles": Users(eta=1.0, eps=0.2),
    "five cycles, clean": Users(eta=1.0, eps=0.0),
    "wrong40": Users(eta=1.0, eps=0.4),
    "random votes": Users(eta=1.0, eps=0.5),
    "malicious5": Users(eta=1.0, eps=0.0, malicious=0.05, attack="inverted"),
    "compressed": Users(eta=1.0, eps=0.2),
    "tuned": Users(eta=1.0, eps=0.2),
}
MAX_TRAIN = {"wrong40": 3_000, "random votes": 3_000}  # train queries of a collection
TUNE_AFTER = {"tuned": (3, 6, 10)}  # cycles whose refresh tunes the encoder of queries as well
MEASURES = ("nDCG@10", "P@8", "R@8", "R@75")
RELATED = (
    0.98  # quantile of the cosines of random pairs of train queries, below which a query is far
)


class Compressed:
    """An encoder whose cosines are mapped into [0.6, 1]: a constant is added to every vector."""

    def __init__(self, inner: Encoder) -> None:
        self._inner = inner
        self.name, self.revision = f"{inner.name}, compressed", f"{inner.revision}-compressed"
        self.dim = inner.dim + 1

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        return _compressed(self._inner.encode_queries(texts))

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        return _compressed(self._inner.encode_passages(texts))


def _compressed(vectors: Vectors) -> Vectors:
    """cos -> 0.8 + 0.2 cos, so that -1 becomes 0.6."""
    constant = np.full((len(vectors), 1), np.sqrt(0.8), dtype=np.float32)
    return np.hstack([vectors * np.float32(np.sqrt(0.2)), constant]).astype(np.float32)


def run(name: str, setting: str, seed: int) -> dict[str, Any]:
    """One collection under one kind of user."""
    began = time.monotonic()
    protocol = Protocol(
        seed=seed,
        users=SETTINGS[setting],
        n_cycles=5 if setting.startswith("five") else 10,
        max_train=MAX_TRAIN.get(setting),
    )
    with tempfile.TemporaryDirectory() as scratch:
        bench = prepare(find_collection(name), protocol, Path(scratch), None)
        if setting == "compressed":
            bench = _reindexed(bench, Path(scratch))
        rng = np.random.default_rng([seed, 0])
        with bench.open(bench.base) as fw:
            before = _scored(fw, bench)
            cast = fw.feedback_many
            reached: set[str] = set()

            def feedback_many(votes: Iterable[Vote], **_: object) -> int:
                given = list(votes)
                reached.update(vote.passage_id for vote in given)
                return cast(given)

            fw.feedback_many = feedback_many  # type: ignore[method-assign]
            tunings = []
            for number, part in enumerate(bench.parts, 1):
                asking(fw, bench.train, part, protocol.users, rng)()
                tune = number in TUNE_AFTER.get(setting, ())
                report = fw.refresh(tune=tune)
                if tune:
                    tunings.append(
                        {"cycle": number, "encoder": report.encoder, "reason": report.reason}
                        | {"seconds": round(report.seconds, 1)}
                    )
            after = _scored(fw, bench)
        version = bench.base / "versions" / str(report.version)
        parameters = json.loads((version / "parameters.json").read_text(encoding="utf-8"))
    return {
        "collection": name,
        "setting": setting,
        "seed": seed,
        "static": {m: mean(before[m]) for m in MEASURES},
        "learned": {m: mean(after[m]) for m in MEASURES},
        "slices": {
            name: {
                "n": len(queries),
                "static": mean({q: before["nDCG@10"][q] for q in queries}),
                "learned": mean({q: after["nDCG@10"][q] for q in queries}),
            }
            for name, queries in _slices(bench, reached).items()
            if queries
        },
        "parameters": parameters,
        "last_refresh": {"reason": report.reason, **report.scores},
        "tunings": tunings,
        "seconds": round(time.monotonic() - began, 1),
    }


def _scored(fw: Flywheel, bench: Bench) -> dict[str, dict[str, float]]:
    return by_query(MEASURES, bench.test.qrels, answers(fw, bench.test, 75))


def _slices(bench: Bench, reached: Collection[str]) -> dict[str, list[str]]:
    """Test queries that are far from all that were asked, and those of which no right passage got a
    vote."""
    assert bench.encoder is not None
    asked = bench.encoder.encode_queries(
        [bench.train.queries[q] for part in bench.parts for q in part]
    )
    ids = sorted(bench.test.queries)
    tests = bench.encoder.encode_queries([bench.test.queries[q] for q in ids])
    (theta,) = thetas(asked, [RELATED])
    nearest = nearest_rows(tests, asked, 1).cosines[:, 0].tolist()
    return {
        "far": [q for q, cosine in zip(ids, nearest, strict=True) if cosine < theta],
        "answer no vote reached": unanswered(ids, bench.test.qrels, reached),
    }


def _reindexed(bench: Bench, scratch: Path) -> Bench:
    assert bench.encoder is not None, "the compressed encoder is made from prepared vectors"
    shutil.rmtree(bench.base)
    again = replace(bench, encoder=Compressed(bench.encoder), base=scratch / "compressed")
    with again.open(again.base) as fw:
        fw.add(bench.collection.passages)
        fw.refresh()
    return again


def main() -> None:
    """Run what is asked for and not yet there, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--setting", choices=sorted(SETTINGS), default="main")
    parser.add_argument("--collections", nargs="+", default=list(NAMES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/learning.json"))
    asked = parser.parse_args()
    for seed in range(asked.seeds):
        for name in asked.collections:
            held = _read(asked.out)
            if not any(_is(r, name, asked.setting, seed) for r in held["runs"]):
                found = run(name, asked.setting, seed)
                print(found["collection"], setting_line(found), flush=True)
                held = _read(asked.out)
                held["runs"].append(found | {"commit": commit()})
                asked.out.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")
    for name in asked.collections:
        runs = [r for r in _read(asked.out)["runs"] if _is(r, name, asked.setting, r["seed"])]
        median = statistics.median(r["learned"]["nDCG@10"] for r in runs)
        print(f"{name}, {asked.setting}: median nDCG@10 {median:.4f} of {len(runs)} seeds")


def setting_line(found: dict[str, Any]) -> str:
    """A run as one line."""
    static, learned = found["static"], found["learned"]
    return (
        f"{found['setting']} seed {found['seed']}: {static['nDCG@10']:.4f} -> "
        f"{learned['nDCG@10']:.4f}, P@8 {static['P@8']:.3f} -> {learned['P@8']:.3f}, recall@8 "
        f"{static['R@8']:.3f} -> {learned['R@8']:.3f}, "
        f"rates {found['parameters']['rates']}, answers {found['parameters']['answers']}, "
        f"{found['seconds']} s"
    )


def _is(found: dict[str, Any], name: str, setting: str, seed: int) -> bool:
    return (found["collection"], found["setting"], found["seed"]) == (name, setting, seed)


def _read(path: Path) -> dict[str, Any]:
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    machine = {"python": platform.python_version(), "n_cores": os.cpu_count()}
    return {"protocol": "cycles-v1", "k": 8, "cycles": 10, "machine": machine, "runs": []}


if __name__ == "__main__":
    main()
