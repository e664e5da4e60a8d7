"""Compares the flywheel with every other rule on the same votes: measures, tests, slices.

It works on arrays and runs; it must not know of index folders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.bench.baselines import (
    GLOBAL_RULES,
    STATIC_RULES,
    Asked,
    History,
    Matrices,
    Rule,
    VoteTable,
    choose,
    oracle_scores,
    run_of,
)
from rag_flywheel.bench.baselines_by_query import BY_QUERY_RULES
from rag_flywheel.bench.intervals import bootstrap_interval, helped_hurt_untouched
from rag_flywheel.bench.measures import Run, all_means, mean, ndcg_at_10
from rag_flywheel.bench.runs import CycledRun, FixedVote
from rag_flywheel.bench.setup import Bench, Protocol
from rag_flywheel.encoder import Encoder
from rag_flywheel.evaluate.paired import randomisation_test
from rag_flywheel.formats.beir import Qrels, Split
from rag_flywheel.index.lexical import LexicalIndex, tokenize
from rag_flywheel.records import Vectors
from rag_flywheel.store.passages import encoded_text

STATIC = "hybrid"
OURS = ("flywheel", "flywheel, fixed exposure")
NEAR_DUPLICATE = 0.95
_NEAR, _RELATED = 0.999, 0.98  # quantiles of the similarity of random pairs of train queries


@dataclass(frozen=True)
class Compared:
    """Rankings by name with their runs of the test queries, and nDCG@10 of each query."""

    runs: Mapping[str, Run]
    ndcg: Mapping[str, Mapping[str, float]]


def compare(
    bench: Bench,
    protocol: Protocol,
    encoder: Encoder,
    runs: Sequence[CycledRun],
    cast: Sequence[FixedVote],
) -> dict[str, Any]:
    """The parts of a collection's result that set rankings side by side."""
    ids = [p.id for p in bench.collection.passages]
    passages = encoder.encode_passages([encoded_text(p) for p in bench.collection.passages])
    lexical = LexicalIndex.build(tokenize(encoded_text(p)) for p in bench.collection.passages)
    train = sorted(bench.train.queries)
    history = History(
        encoder.encode_queries([bench.train.queries[q] for q in train]),
        ids,
        passages,
        _table(cast, train, ids),
    )
    dev, test = (asked(split, encoder, passages, lexical) for split in (bench.dev, bench.test))
    rules = _rule_runs(bench, protocol, history, dev, test)
    last = {run.name: run.cycles[-1][1] for run in runs}
    rankings = [
        _own(OURS[0], "votes on its own hits", last["votes"]),
        _own(
            OURS[1],
            "learns from the same votes as the rules",
            last["fixed exposure"],
        ),
        *rules,
    ]
    found = {r["name"]: r.pop("run") for r in rankings}
    compared = Compared(found, {n: ndcg_at_10(bench.test.qrels, r) for n, r in found.items()})
    nearest = (test.vectors @ history.query_vectors.T).max(axis=1)
    apart = [q for q, cosine in zip(test.ids, nearest, strict=True) if cosine < NEAR_DUPLICATE]
    for ranking in rankings:
        ranking |= _measured(ranking["name"], compared, bench.test.qrels, apart, protocol.seed)
    votes = next(run for run in runs if run.name == "votes")
    return {
        "static": STATIC,
        "rankings": rankings,
        "slices": _slices(bench, protocol, history, test, nearest, compared, cast),
        "correction": _correction(votes, bench.test.qrels),
    }


def _own(name: str, what: str, run: Run) -> dict[str, Any]:
    return {"name": name, "what": what, "source": "", "weight": None, "chosen": None, "run": run}


def _rule_runs(
    bench: Bench, protocol: Protocol, history: History, dev: Asked, test: Asked
) -> list[dict[str, Any]]:
    found = []
    for rule in (*STATIC_RULES, *GLOBAL_RULES, *BY_QUERY_RULES):
        weight = choose(rule, history, dev, bench.dev.qrels)
        scores = rule.scores(weight, history, test)
        run = run_of(scores, test.ids, history, depth=protocol.depth)
        found.append(_rule(rule, weight, run))
    scores = oracle_scores(test, history, bench.test.qrels)
    run = run_of(scores, test.ids, history, depth=protocol.depth)
    what = "knows the answers among the candidates"
    return [*found, _own("oracle", what, run)]


def _rule(rule: Rule, weight: float, run: Run) -> dict[str, Any]:
    chosen = "on dev" if len(rule.grid) > 1 else "fixed"
    return {
        "name": rule.name,
        "what": "",
        "source": rule.source,
        "weight": weight,
        "chosen": chosen,
        "run": run,
    }


def _table(cast: Sequence[FixedVote], train: Sequence[str], ids: Sequence[str]) -> VoteTable:
    query, passage = {q: i for i, q in enumerate(train)}, {p: i for i, p in enumerate(ids)}
    return VoteTable(
        np.array([query[v.query] for v in cast], dtype=np.int64),
        np.array([passage[v.passage] for v in cast], dtype=np.int64),
        np.array([v.helpful for v in cast], dtype=bool),
    )


def asked(split: Split, encoder: Encoder, passages: Vectors, lexical: LexicalIndex) -> Asked:
    """The queries of a split with what dense search and BM25 say of every passage."""
    ids = sorted(split.queries)
    vectors = encoder.encode_queries([split.queries[q] for q in ids])
    bm25 = np.stack([lexical.scores(tokenize(split.queries[q])) for q in ids])
    return Asked(ids, vectors, Matrices(vectors @ passages.T, bm25))


def _measured(
    name: str, compared: Compared, qrels: Qrels, apart: Sequence[str], seed: int
) -> dict[str, Any]:
    ndcg, static = compared.ndcg[name], compared.ndcg[STATIC]
    differences = np.array([ndcg[q] - static[q] for q in sorted(ndcg)])
    helped, hurt, untouched = helped_hurt_untouched(differences)
    return {
        "values": all_means(qrels, compared.runs[name]),
        "without_near_duplicates": {
            "n": len(apart),
            "values": {"nDCG@10": mean({q: ndcg[q] for q in apart}) if apart else None},
            "difference": _difference({q: ndcg[q] for q in apart}, static, seed),
        },
        "difference": None if name == STATIC else _difference(ndcg, static, seed),
        "ahead": {
            ours: _difference(compared.ndcg[ours], ndcg, seed) for ours in OURS if ours != name
        },
        "helped": helped,
        "hurt": hurt,
        "untouched": untouched,
    }


def _difference(
    ours: Mapping[str, float], static: Mapping[str, float], seed: int
) -> dict[str, float] | None:
    if len(ours) < 2:
        return None
    a = np.array([ours[q] for q in sorted(ours)])
    b = np.array([static[q] for q in sorted(ours)])
    low, high = bootstrap_interval(a - b, seed=seed)
    p = randomisation_test(a, b, seed=seed)
    return {"mean": float((a - b).mean()), "low": low, "high": high, "p": p}


def _slices(
    bench: Bench,
    protocol: Protocol,
    history: History,
    test: Asked,
    nearest: npt.NDArray[np.float32],
    compared: Compared,
    cast: Sequence[FixedVote],
) -> list[dict[str, Any]]:
    rng = np.random.default_rng([protocol.seed, 2])
    pairs = rng.integers(0, len(history.query_vectors), (2, 50_000))
    first, second = pairs[:, pairs[0] != pairs[1]]
    cosines = np.einsum("ij,ij->i", history.query_vectors[first], history.query_vectors[second])
    near, related = np.quantile(cosines, (_NEAR, _RELATED))
    seen = {vote.passage for vote in cast}
    unseen = np.array(
        [not any(p in seen for p in _relevant(bench.test.qrels[q])) for q in test.ids]
    )
    what = "cosine to the nearest train query"
    masks = [
        (
            "near",
            f"{what} at least {near:.3f}, the 99.9 % quantile of random pairs",
            nearest >= near,
        ),
        (
            "related",
            f"{what} from {related:.3f}, the 98 % quantile, to {near:.3f}",
            (nearest >= related) & (nearest < near),
        ),
        ("far", f"{what} below {related:.3f}", nearest < related),
        ("answer never voted on", "no vote of fixed exposure was on any of its answers", unseen),
    ]
    return [_slice(n, w, mask, test.ids, compared, protocol.seed) for n, w, mask in masks]


def _relevant(judged: Mapping[str, int]) -> list[str]:
    return [passage for passage, grade in judged.items() if grade > 0]


def _slice(
    name: str,
    what: str,
    mask: npt.NDArray[np.bool_],
    ids: Sequence[str],
    compared: Compared,
    seed: int,
) -> dict[str, Any]:
    inside = [q for q, kept in zip(ids, mask, strict=True) if kept]
    ours = {q: compared.ndcg[OURS[0]][q] for q in inside}
    static = {q: compared.ndcg[STATIC][q] for q in inside}
    return {
        "name": name,
        "what": what,
        "n": len(inside),
        "static": mean(static) if inside else None,
        "flywheel": mean(ours) if inside else None,
        "difference": _difference(ours, static, seed),
    }


def _correction(votes: CycledRun, qrels: Qrels) -> dict[str, Any]:
    """Of the test queries whose first hit was wrong at first, those for which it became right and
    stayed so to the end, and the median of the cycles it took (the correction lag)."""
    wrong, lags = 0, []
    for query, judged in qrels.items():
        right = [
            bool(run.get(query)) and judged.get(run[query][0], 0) > 0 for _, run in votes.cycles
        ]
        if right[0]:
            continue
        wrong += 1
        if right[-1]:
            lags.append(max(i for i, good in enumerate(right) if not good) + 1)
    median = float(np.median(lags)) if lags else None
    return {"n_wrong_at_first": wrong, "n_corrected": len(lags), "median_cycle": median}
