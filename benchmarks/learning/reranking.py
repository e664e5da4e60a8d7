"""What votes do for an application that keeps its own vector store and only calls `rerank`.

    python benchmarks/learning/reranking.py --out benchmarks/results/reranking.json

RAG_FLYWHEEL_DATA holds the BEIR folders. The index has no passage: each question comes with the 50 best
candidates of a retriever, with its scores as they are. Train questions are asked once, half of them
before each of two refreshes; users look at rank r with probability 1/r and err in a fifth of their
verdicts. nDCG@10 of the test questions, which get no vote: `retriever` in the order of the
retriever's scores, `before` any vote, `votes` after the first half and before a refresh, and after each
`refresh`.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel import Candidate, Flywheel
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.machine import commit
from rag_flywheel.bench.measures import Run, mean, ndcg_at_10
from rag_flywheel.bench.prepared import PreparedEncoder, read_prepared
from rag_flywheel.bench.users import Users
from rag_flywheel.deploy.loaded import load_parameters
from rag_flywheel.formats.beir import Collection, Split, read_beir
from rag_flywheel.index.lexical import LexicalIndex, tokenize
from rag_flywheel.records import Vote
from rag_flywheel.store.passages import encoded_text

NAMES = ("scifact", "stackfaq", "xquad_de")
N_CANDIDATES, SHOWN, DEPTH = 50, 8, 50
USERS = Users(eta=1.0, eps=0.2)
Scores = npt.NDArray[np.float64]
Given = Callable[[str], list[Candidate]]


def retrievers(
    collection: Collection, encoder: PreparedEncoder
) -> Mapping[str, Callable[[str], Scores]]:
    """By name: the scores that a retriever gives to every passage of the collection for a query."""
    texts = [encoded_text(p) for p in collection.passages]
    vectors, index = encoder.encode_passages(texts), LexicalIndex.build(map(tokenize, texts))

    def cosine(query: str) -> Scores:
        found: Scores = (vectors @ encoder.encode_queries([query])[0]).astype(np.float64)
        return found

    def bm25(query: str) -> Scores:
        return index.scores(tokenize(query)).astype(np.float64) * 2.2  # k1 + 1, as many libraries

    def reciprocal(query: str) -> Scores:
        ranks = [np.argsort(np.argsort(-each(query))) for each in (cosine, bm25)]
        found: Scores = np.sum([1.0 / (61.0 + rank) for rank in ranks], axis=0)
        return found

    def mixed(query: str) -> Scores:
        """Cosines, negated squared distances or BM25, as each question happens to get."""
        kinds = (cosine, lambda q: 2.0 * cosine(q) - 2.0, bm25)
        return kinds[sum(query.encode()) % 3](query)

    return {
        "cosine": cosine,
        "negated distance": lambda query: -np.sqrt(np.maximum(2.0 - 2.0 * cosine(query), 0.0)),
        "reciprocal ranks": reciprocal,
        "bm25": bm25,
        "mixed": mixed,
    }


def run(name: str, seed: int, kinds: Sequence[str]) -> list[dict[str, Any]]:
    """One collection under one seed: a result for each retriever."""
    folder = find_collection(name)
    collection = read_beir(folder)
    encoder = read_prepared(folder, collection)
    assert encoder is not None
    every = retrievers(collection, encoder)
    found = []
    for kind in kinds or every:
        scores = every[kind]

        def given(query: str, scores: Callable[[str], Scores] = scores) -> list[Candidate]:
            each = scores(query)
            best = np.argsort(-each, kind="stable")[:N_CANDIDATES].tolist()
            passages = collection.passages
            return [
                Candidate(p.id, p.text, float(each[i]), p.title)
                for i, p in ((i, passages[i]) for i in best)
            ]

        with tempfile.TemporaryDirectory() as scratch:
            result = _cycles(Path(scratch), collection, encoder, given, seed)
        found.append({"collection": name, "scores": kind, "seed": seed, **result})
        print(json.dumps(found[-1]), flush=True)
    return found


def _cycles(
    folder: Path, collection: Collection, encoder: PreparedEncoder, given: Given, seed: int
) -> dict[str, Any]:
    train, test = collection.splits["train"], collection.splits["test"]
    rng = np.random.default_rng(seed)
    asked = rng.permutation(sorted(train.queries)).tolist()
    half = len(asked) // 2
    with Flywheel.open(folder / "index", encoder=encoder) as fw:
        static = {q: [c.passage_id for c in given(text)] for q, text in test.queries.items()}
        values = {
            "retriever": _ndcg(test, static),
            "before": _ndcg(test, _reranked(fw, test, given)),
        }
        ms = [_milliseconds(fw, test, given)]
        n_votes = _vote(fw, train, asked[:half], given, rng)
        values["votes"] = _ndcg(test, _reranked(fw, test, given))
        first = fw.refresh()
        values["refresh"] = _ndcg(test, _reranked(fw, test, given))
        n_votes += _vote(fw, train, asked[half:], given, rng)
        began = time.perf_counter()
        second = fw.refresh()
        seconds = time.perf_counter() - began
        values["second refresh"] = _ndcg(test, _reranked(fw, test, given))
        ms.append(_milliseconds(fw, test, given))
        live = load_parameters(folder / "index" / "versions" / str(fw.status().version))
        size = fw.status().bytes_on_disk
    return {
        **{key: round(value, 4) for key, value in values.items()},
        "n_votes": n_votes,
        "new": [first.parameters, second.parameters],
        "why": [first.reason, second.reason],
        "weights": {"candidate": live.candidate_spread, **getattr(live, "given", {})},
        "sharpness": getattr(live, "given_sharpness", 1.0),
        "answers": live.answers,
        "noise": live.rates.noise,
        "refresh_s": round(seconds, 1),
        "rerank_ms": ms,
        "bytes": size,
    }


def _vote(
    fw: Flywheel, train: Split, asked: Sequence[str], given: Given, rng: np.random.Generator
) -> int:
    n_votes = 0
    for query in asked:
        seen = fw.rerank(train.queries[query], given(train.queries[query]), SHOWN)
        votes: list[Vote] = USERS.votes(
            seen, train.qrels[query], f"user-{rng.integers(2**62)}", rng
        )
        n_votes += fw.feedback_many(votes)
    return n_votes


def _reranked(fw: Flywheel, test: Split, given: Given) -> Run:
    return {
        q: [h.passage_id for h in fw.rerank(text, given(text), DEPTH, record=False).hits]
        for q, text in test.queries.items()
    }


def _milliseconds(fw: Flywheel, test: Split, given: Given) -> float:
    """The median of a call with the 50 candidates at hand, which is not recorded."""
    taken = []
    for text in list(test.queries.values())[:100]:
        candidates = given(text)
        began = time.perf_counter()
        fw.rerank(text, candidates, SHOWN, record=False)
        taken.append((time.perf_counter() - began) * 1000.0)
    return round(statistics.median(taken), 2)


def _ndcg(test: Split, run: Run) -> float:
    return mean(ndcg_at_10(test.qrels, run))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--names", nargs="*", default=NAMES)
    parser.add_argument("--kinds", nargs="*", default=())
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    began = time.time()
    runs = [
        each for s in range(args.seeds) for name in args.names for each in run(name, s, args.kinds)
    ]
    if args.out is not None:
        what = {
            "what": __doc__,
            "commit": commit(),
            "seconds": round(time.time() - began),
            "runs": runs,
        }
        args.out.write_text(json.dumps(what, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
