"""How the shipped parameters were chosen: gains over the static hybrid on queries that are not test.

    python benchmarks/shipped_parameters.py --data DIR --out benchmarks/results/shipped_parameters.json

DIR (or RAG_FLYWHEEL_DATA) holds BEIR folders with prepared vectors (minilm.npz). Votes come from
train queries (attention 1/rank over the top 8 of the static hybrid), gains are nDCG@10 of at most
800 dev queries; where a collection has no dev split, a fifth of the train queries takes its place.
"""

import argparse
import dataclasses
import gzip
import hashlib
import itertools
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.bench.collection import Collection, Split, read_beir
from rag_flywheel.bench.measures import mean, ndcg_at_10
from rag_flywheel.improve.threshold import with_threshold
from rag_flywheel.index.lexical import LexicalIndex, tokenize
from rag_flywheel.rank.evidence import EvidenceView, PastQueryKey, gather, neighbours
from rag_flywheel.rank.features import static_features
from rag_flywheel.rank.parameters import Kernel, Parameters
from rag_flywheel.rank.score import order, score
from rag_flywheel.records import Judgment, Vectors
from rag_flywheel.store.passages import encoded_text, query_hash

NAMES = ("scifact", "metatool", "feedbackqa", "squad11_dev")
SETTINGS = (("scifact", 0.4), ("feedbackqa", 0.4), ("squad11_dev", 0.4))
QUANTILES, INTERCEPTS, STRENGTHS = (0.9, 0.95, 0.98), (-5.2, -7.2, -9.2), (10.0, 20.0, 30.0, 40.0)
SHOWN, N_TRAIN, N_DEV, SEED = 8, 5000, 800, 0


@dataclass(frozen=True)
class Side:
    """Queries of one side: ids, vectors, and features against every passage."""

    ids: list[str]
    vectors: Vectors
    features: list[dict[str, npt.NDArray[np.floating]]]


@dataclass(frozen=True)
class Prepared:
    """A collection ready to be ranked in memory."""

    collection: Collection
    train: Side
    dev: Side
    train_split: Split
    dev_split: Split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("RAG_FLYWHEEL_DATA"))
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    began = time.monotonic()
    rows: list[dict[str, Any]] = []
    for name in NAMES:
        prepared = _prepare(Path(asked.data) / name)
        for eps in (0.2, *(e for n, e in SETTINGS if n == name)):
            rows += _gains(prepared, eps)
            print(f"{name}, {eps:.0%} wrong votes: {time.monotonic() - began:.0f} s", flush=True)
    result = {
        "what": __doc__,
        "chosen": dataclasses.asdict(Parameters()),
        "rows": rows,
        "corpus_sha256": {
            n: hashlib.sha256((Path(asked.data) / n / "corpus.jsonl.gz").read_bytes()).hexdigest()
            for n in NAMES
        },
        "seed": SEED,
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "seconds": round(time.monotonic() - began, 1),
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _prepare(folder: Path) -> Prepared:
    collection = read_beir(folder)
    stored = np.load(folder / "minilm.npz")
    with gzip.open(folder / "queries.jsonl.gz", "rt", encoding="utf-8") as file:
        position = {json.loads(line)["_id"]: i for i, line in enumerate(file)}
    passages = stored["passages"].astype(np.float32)
    lexical = LexicalIndex.build(tokenize(encoded_text(p)) for p in collection.passages)
    train = collection.splits["train"]
    ids = np.random.default_rng(SEED).permutation(sorted(train.queries)).tolist()
    dev = collection.splits.get("dev", train)
    dev_ids = sorted(dev.queries)[:N_DEV] if dev is not train else ids[: len(ids) // 5]
    train_ids = [q for q in ids if dev is not train or q not in set(dev_ids)][:N_TRAIN]

    def side(split: Split, chosen: list[str]) -> Side:
        vectors = stored["queries"][[position[q] for q in chosen]].astype(np.float32)
        features = []
        for query, vector in zip(chosen, vectors, strict=True):
            bm25 = lexical.scores(tokenize(split.queries[query]))
            features.append(static_features(passages @ vector, bm25, float(bm25.max())))
        return Side(chosen, vectors, features)

    dev_split = Split({q: dev.queries[q] for q in dev_ids}, {q: dev.qrels[q] for q in dev_ids})
    return Prepared(collection, side(train, train_ids), side(dev, dev_ids), train, dev_split)


def _view(prepared: Prepared, eps: float) -> EvidenceView:
    """The votes of users who see the static hybrid's best, by past query."""
    rng = np.random.default_rng(SEED + 1)
    pids = [p.id for p in prepared.collection.passages]
    judged: dict[PastQueryKey, tuple[Judgment, ...]] = {}
    vectors: dict[bytes, Vectors] = {}
    for i, query in enumerate(prepared.train.ids):
        found, answers = [], prepared.train_split.qrels[query]
        for rank, passage in enumerate(_ranked(Parameters(), prepared.train, i, None)[:SHOWN], 1):
            looks, errs = rng.random(2)
            if looks < 1.0 / rank:
                good = (answers.get(pids[passage], 0) > 0) != (errs < eps)
                found.append(Judgment(b"", None, int(passage), float(good), float(not good), ()))
        key = query_hash(prepared.train_split.queries[query])
        judged[(key, None)] = tuple(found)
        vectors[key] = prepared.train.vectors[i]
    return EvidenceView(prepared.train.vectors.shape[1]).updated(judged, vectors)


def _ranked(
    parameters: Parameters, side: Side, i: int, view: EvidenceView | None
) -> npt.NDArray[np.int64]:
    features = side.features[i]
    all_passages = np.arange(len(features["dense"]))
    helpful, harmful = np.zeros(len(all_passages)), np.zeros(len(all_passages))
    if view is not None:
        near = neighbours(view, side.vectors[i], None, parameters.kernel)
        helpful, harmful = gather(view, near).amounts(all_passages)
    return order(score(parameters, features, helpful, harmful).scores, all_passages)


def _ndcg(prepared: Prepared, parameters: Parameters, view: EvidenceView | None) -> float:
    ids = [p.id for p in prepared.collection.passages]
    run = {
        query: [ids[p] for p in _ranked(parameters, prepared.dev, i, view)[:10]]
        for i, query in enumerate(prepared.dev.ids)
    }
    return mean(ndcg_at_10(prepared.dev_split.qrels, run))


def _gains(prepared: Prepared, eps: float) -> list[dict[str, Any]]:
    view = _view(prepared, eps)
    static = _ndcg(prepared, Parameters(), None)
    rows = []
    for quantile, intercept, n0 in itertools.product(QUANTILES, INTERCEPTS, STRENGTHS):
        kernel = Kernel(theta_quantile=quantile, n0=n0)
        asked = Parameters(intercept=intercept, kernel=kernel)
        parameters = with_threshold(asked, prepared.train.vectors)
        gain = _ndcg(prepared, parameters, view) - static
        rows.append(
            {
                "collection": prepared.collection.name,
                "wrong_votes": eps,
                "theta_quantile": quantile,
                "theta": parameters.kernel.theta,
                "intercept": intercept,
                "n0": n0,
                "static_ndcg_at_10": static,
                "gain_ndcg_at_10": gain,
            }
        )
    return rows


if __name__ == "__main__":
    main()
