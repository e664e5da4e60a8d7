"""Measures a change of the encoder on a collection with votes: quality before and after, time and memory.

The index begins with one encoder, simulated users vote on the train queries, it is refreshed, and then its
encoder is changed: to a better one, a worse one, and one that is as good. They are all-MiniLM-L6-v2 (384
wide), its first 32 numbers alone, and the 384 turned at random in a space of 512. Vectors were computed
before, so that the seconds are those of everything but the model. Beside it stands a plain rebuild: a new
index of the same passages and encoder, refreshed once, without votes. Each runs in a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Flywheel
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.cycles import SHOWN, answers
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.measures import mean, ndcg_at_10
from rag_flywheel.bench.prepared import read_prepared
from rag_flywheel.bench.setup import only
from rag_flywheel.bench.users import Users
from rag_flywheel.encoder import Encoder
from rag_flywheel.formats.beir import Collection, Split, read_beir
from rag_flywheel.records import Vectors

SEED, USERS = 0, Users(eta=1.0, eps=0.2)
NARROW, WIDE = 32, 512
MOST_ASKED, MOST_SCORED = 1_500, 500  # queries, by seed
N_KNOWN = 100  # test queries whose answers are imported, with --known; the others are scored
CHANGES = {
    "better": ("narrow", "whole"),
    "worse": ("whole", "narrow"),
    "as good": ("whole", "turned"),
}


class Seen:
    """Another encoder made of one: its vectors by a matrix, of unit length again."""

    def __init__(self, encoder: Encoder, name: str, by: Vectors) -> None:
        self._encoder, self._by = encoder, by
        self.name, self.revision, self.dim = name, f"{encoder.revision}-{name}", by.shape[1]

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return self._unit(self._encoder.encode_queries(texts))

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        return self._unit(self._encoder.encode_passages(texts))

    def _unit(self, rows: Vectors) -> Vectors:
        turned = rows @ self._by
        found: Vectors = turned / np.linalg.norm(turned, axis=1, keepdims=True)
        return found


def encoder_of(name: str, whole: Encoder) -> Encoder:
    eye = np.eye(whole.dim, WIDE, dtype=np.float32)
    if name == "whole":
        return whole
    if name == "narrow":
        return Seen(whole, name, eye[:, :NARROW])
    turn = np.linalg.qr(np.random.default_rng(SEED).standard_normal((WIDE, WIDE)))[0]
    return Seen(whole, name, eye @ turn.astype(np.float32))


def cast(fw: Flywheel, train: Split) -> int:
    rng, n_votes, names = np.random.default_rng(SEED), 0, sorted(train.queries)
    for start in range(0, len(names), 256):
        part = names[start : start + 256]
        shown = fw.retrieve_many([train.queries[q] for q in part], SHOWN)
        for query, seen in zip(part, shown, strict=True):
            n_votes += fw.feedback_many(USERS.votes(seen, train.qrels[query], query, rng))
    return n_votes


def scored(fw: Flywheel, collection: Collection, n_known: int = 0) -> dict[str, float]:
    """nDCG@10 of the test queries, and of train queries asked again."""
    return {
        name: mean(ndcg_at_10(split.qrels, answers(fw, split, 10)))
        for name in ("test", "train")
        for split in (others(collection.splits[name], n_known if name == "test" else 0),)
    }


def others(split: Split, n: int) -> Split:
    """At most 500 of the queries of a split without the first n."""
    known = some(split, n).queries
    left = [q for q in some(split, MOST_SCORED + n).queries if q not in known]
    return only(split, sorted(left))


def some(split: Split, n: int) -> Split:
    """At most n of the queries of a split; the more are those of the fewer and others."""
    order = np.random.default_rng(SEED).permutation(sorted(split.queries)).tolist()
    return only(split, sorted(order[:n]))


def change(
    collection: Collection, whole: Encoder, which: str, root: Path, n_known: int
) -> dict[str, Any]:
    old, new = (encoder_of(name, whole) for name in CHANGES[which])
    with Flywheel.open(root, encoder=old) as fw:
        fw.add(collection.passages)
        fw.refresh()
        if n_known:
            known = some(collection.splits["test"], n_known)
            fw.golden.add_answers(
                (text, passage, grade)
                for query, text in known.queries.items()
                for passage, grade in known.qrels[query].items()
            )
        static = scored(fw, collection, n_known)
        n_votes = cast(fw, some(collection.splits["train"], MOST_ASKED))
        fw.refresh()
        before, judged = scored(fw, collection, n_known), fw.judgments()
        at_most = _most_mb()
        report = fw.change_encoder(new)
        found = {"static": static, "n_votes": n_votes, "before": before, "report": asdict(report)}
        found |= {"most_mb_before": at_most, "most_mb": _most_mb()}
        if report.outcome == "rejected":
            found["after"] = scored(fw, collection, n_known)
            again = fw.change_encoder(new, force=True)
            found["forced_seconds"], found["forced"] = (
                again.seconds,
                scored(fw, collection, n_known),
            )
        else:
            found["after"] = scored(fw, collection, n_known)
        found["same_judgments"] = fw.judgments() == judged
        assert fw.verify() == []
    return found


def rebuild(
    collection: Collection, whole: Encoder, which: str, root: Path, n_known: int
) -> dict[str, Any]:
    began = time.monotonic()
    with Flywheel.open(root, encoder=encoder_of(CHANGES[which][1], whole)) as fw:
        fw.add(collection.passages)
        fw.refresh()
        return {
            "seconds": time.monotonic() - began,
            "most_mb": _most_mb(),
            "static": scored(fw, collection, n_known),
        }


def _most_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    """Run every change and rebuild in a process of its own, and write one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", nargs="+", default=["feedbackqa", "scifact"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/change_encoder.json"))
    parser.add_argument("--changes", nargs="+", default=list(CHANGES))
    parser.add_argument("--known", action="store_true", help="Import the answers of some queries.")
    parser.add_argument("--one", nargs=3, metavar=("COLLECTION", "WHAT", "CHANGE"))
    asked = parser.parse_args()
    n_known = N_KNOWN if asked.known else 0
    if asked.one is not None:
        name, what, which = asked.one
        folder = find_collection(name)
        collection = read_beir(folder)
        whole = read_prepared(folder, collection)
        assert whole is not None, f"{folder} has no prepared vectors"
        with tempfile.TemporaryDirectory() as scratch:
            run = {"change": change, "rebuild": rebuild}[what]
            print(json.dumps(run(collection, whole, which, Path(scratch) / "kb", n_known)))
        return
    found = []
    for name in asked.collections:
        for which in asked.changes:
            row: dict[str, Any] = {"collection": name, "which": which}
            for what in ("rebuild", "change"):
                words = [sys.executable, __file__, "--one", name, what, which]
                words += ["--known"] if asked.known else []
                done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
                row[what] = json.loads(done.stdout.splitlines()[-1])
            found.append(row)
            report = row["change"]["report"]
            print(name, which, report["outcome"], report["reason"], flush=True)
            print({k: row["change"].get(k) for k in ("static", "before", "after", "forced")})
            print(
                f"{report['seconds']:.1f} s, a rebuild {row['rebuild']['seconds']:.1f} s",
                flush=True,
            )
    held = {"commit": commit(), "n_known": n_known, "changes": found}
    asked.out.write_text(json.dumps(held, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
