"""Compares the flywheel with every other rule on the same votes: measures, significance tests, slices.

It works on arrays and runs; it must not know of index folders.
"""

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_flywheel.bench.baselines import (
    GLOBAL_RULES,
    STATIC_RULES,
    History,
    Matrices,
    Rule,
    RuleQueries,
    VoteTable,
    choose,
    oracle_scores,
    run_of,
)
from rag_flywheel.bench.baselines_by_query import BY_QUERY_RULES
from rag_flywheel.bench.intervals import helped_hurt_untouched, paired_difference
from rag_flywheel.bench.measures import Run, all_means, mean, ndcg_at_10
from rag_flywheel.bench.protocol import CycledRun, FixedVote, Protocol
from rag_flywheel.encoder import Encoder
from rag_flywheel.formats.beir import Qrels, Split
from rag_flywheel.index.lexical import LexicalIndex, tokenize
from rag_flywheel.records import Vectors
from rag_flywheel.store.passages import encoded_text

if TYPE_CHECKING:
    from rag_flywheel.bench.setup import Bench

STATIC = "hybrid"
RULES: tuple[Rule, ...] = (*STATIC_RULES, *GLOBAL_RULES, *BY_QUERY_RULES)
OURS = ("flywheel", "flywheel, fixed exposure")
NEAR_DUPLICATE = 0.95
_NEAR, _RELATED = 0.999, 0.98  # quantiles of the similarity of random pairs of train queries


Scores = Mapping[str, Mapping[str, float]]
"""nDCG@10 of each test query, by ranking."""


def compare(
    bench: "Bench",
    protocol: Protocol,
    encoder: Encoder,
    runs: Sequence[CycledRun],
    fixed_votes: Sequence[FixedVote],
) -> dict[str, Any]:
    """The rankings, slices and correction lag of a collection's result.

    fixed_votes: the votes of the run "fixed exposure", which every rule learns from.
    """
    history, dev, test = rule_inputs(bench, encoder, fixed_votes)
    rankings = [
        *our_rankings(runs),
        *rule_rankings(RULES, bench, protocol, history, dev, test),
    ]
    ndcg = {r["name"]: ndcg_at_10(bench.test.qrels, r["run"]) for r in rankings}
    nearest = nearest_cosines(test, history)
    distinct = [q for q in test.ids if nearest[q] < NEAR_DUPLICATE]
    for ranking in rankings:
        means = all_means(bench.test.qrels, ranking.pop("run"))
        ranking |= {"values": means, **measured(ranking["name"], ndcg, distinct, protocol.seed)}
    return {
        "static": STATIC,
        "rankings": rankings,
        "slices": _slices(bench, protocol, history, test, nearest, ndcg, fixed_votes),
        "correction": correction(
            next(run for run in runs if run.name == "votes"), bench.test.qrels
        ),
    }


def rule_inputs(
    bench: "Bench", encoder: Encoder, fixed_votes: Sequence[FixedVote]
) -> tuple[History, RuleQueries, RuleQueries]:
    """What every rule learns from, and the dev and the scored queries."""
    ids = [p.id for p in bench.collection.passages]
    passages = encoder.encode_passages([encoded_text(p) for p in bench.collection.passages])
    lexical = LexicalIndex.build(tokenize(encoded_text(p)) for p in bench.collection.passages)
    train = sorted(bench.train.queries)
    history = History(
        encoder.encode_queries([bench.train.queries[q] for q in train]),
        ids,
        passages,
        _table(fixed_votes, train, ids),
        train,
    )
    dev, scored = (asked(split, encoder, passages, lexical) for split in (bench.dev, bench.scored))
    return history, dev, scored


def our_rankings(runs: Sequence[CycledRun]) -> list[dict[str, Any]]:
    """The flywheel after the last cycle of both runs with votes."""
    last = {run.name: run.cycles[-1][1] for run in runs}
    return [
        _ranking(OURS[0], "votes on its own hits", last["votes"]),
        _ranking(OURS[1], "learns from the same votes as the rules", last["fixed exposure"]),
    ]


def nearest_cosines(queries: RuleQueries, history: History) -> dict[str, np.float32]:
    """The cosine of each query to the train query nearest to it."""
    nearest = (queries.vectors @ history.query_vectors.T).max(axis=1)
    return dict(zip(queries.ids, nearest, strict=True))


def _ranking(
    name: str,
    what: str,
    run: Run,
    *,
    source: str = "",
    weight: float | None = None,
    chosen: str | None = None,
) -> dict[str, Any]:
    about = {"name": name, "what": what, "source": source, "weight": weight}
    return {**about, "chosen": chosen, "run": run}


def rule_rankings(
    rules: Sequence[Rule],
    bench: "Bench",
    protocol: Protocol,
    history: History,
    dev: RuleQueries,
    test: RuleQueries,
) -> list[dict[str, Any]]:
    """The rankings of rules, and the oracle's, of the queries `test`; weights are chosen on `dev`."""
    found = []
    for rule in rules:
        weight = choose(rule, history, dev, bench.dev.qrels)
        scores = rule.scores(weight, history, test)
        run = run_of(scores, test.ids, history, depth=protocol.depth)
        chosen = "on dev" if len(rule.grid) > 1 else "fixed"
        found.append(_ranking(rule.name, "", run, source=rule.source, weight=weight, chosen=chosen))
    scores = oracle_scores(test, history, bench.scored.qrels)
    run = run_of(scores, test.ids, history, depth=protocol.depth)
    return [*found, _ranking("oracle", "knows the answers among the candidates", run)]


def _table(votes: Sequence[FixedVote], train: Sequence[str], ids: Sequence[str]) -> VoteTable:
    query, passage = {q: i for i, q in enumerate(train)}, {p: i for i, p in enumerate(ids)}
    return VoteTable(
        np.array([query[v.query] for v in votes], dtype=np.int64),
        np.array([passage[v.passage] for v in votes], dtype=np.int64),
        np.array([v.helpful for v in votes], dtype=bool),
    )


def asked(split: Split, encoder: Encoder, passages: Vectors, lexical: LexicalIndex) -> RuleQueries:
    """The queries of a split, with the scores of every passage in dense search and BM25."""
    ids = sorted(split.queries)
    vectors = encoder.encode_queries([split.queries[q] for q in ids])
    bm25 = np.stack([lexical.scores(tokenize(split.queries[q])) for q in ids])
    return RuleQueries(ids, vectors, Matrices(vectors @ passages.T, bm25))


def measured(name: str, scores: Scores, distinct: Sequence[str], seed: int) -> dict[str, Any]:
    """A ranking beside the others, by nDCG@10; distinct: the queries that repeat no train query."""
    ndcg, static = scores[name], scores[STATIC]
    differences = np.array([ndcg[q] - static[q] for q in sorted(ndcg)])
    helped, hurt, untouched = helped_hurt_untouched(differences)
    some = {q: ndcg[q] for q in distinct}
    return {
        "without_near_duplicates": {
            "n": len(some),
            "values": {"nDCG@10": mean(some) if some else None},
            "difference": paired_difference(some, static, seed),
        },
        "difference": None if name == STATIC else paired_difference(ndcg, static, seed),
        "ahead": {
            ours: paired_difference(scores[ours], ndcg, seed) for ours in OURS if ours != name
        },
        "helped": helped,
        "hurt": hurt,
        "untouched": untouched,
    }


def _slices(
    bench: "Bench",
    protocol: Protocol,
    history: History,
    test: RuleQueries,
    nearest: Mapping[str, np.float32],
    scores: Scores,
    fixed_votes: Sequence[FixedVote],
) -> list[dict[str, Any]]:
    near, related = similarity_quantiles(history, protocol.seed)
    voted_on = {vote.passage for vote in fixed_votes}
    what = "cosine to the nearest train query"
    slices = []
    for name, description, inside in [
        (
            "near",
            f"{what} at least {near:.3f}, the 99.9 % quantile of random pairs",
            [q for q in test.ids if nearest[q] >= near],
        ),
        (
            "related",
            f"{what} from {related:.3f}, the 98 % quantile, to {near:.3f}",
            [q for q in test.ids if related <= nearest[q] < near],
        ),
        ("far", f"{what} below {related:.3f}", [q for q in test.ids if nearest[q] < related]),
        (
            "answer never voted on",
            "no vote of fixed exposure was on any of its answers",
            unanswered(test.ids, bench.test.qrels, voted_on),
        ),
    ]:
        ours, static = ({q: scores[n][q] for q in inside} for n in (OURS[0], STATIC))
        slices.append(
            {
                "name": name,
                "what": description,
                "n": len(inside),
                "static": mean(static) if inside else None,
                "flywheel": mean(ours) if inside else None,
                "difference": paired_difference(ours, static, protocol.seed),
            }
        )
    return slices


def similarity_quantiles(history: History, seed: int) -> tuple[float, float]:
    """(near, related): the 99.9 and 98 % quantiles of the cosine of random pairs of train queries."""
    rng = np.random.default_rng([seed, 2])
    pairs = rng.integers(0, len(history.query_vectors), (2, 50_000))
    first, second = pairs[:, pairs[0] != pairs[1]]
    cosines = np.einsum("ij,ij->i", history.query_vectors[first], history.query_vectors[second])
    near, related = np.quantile(cosines, (_NEAR, _RELATED))
    return near, related


def unanswered(queries: Sequence[str], qrels: Qrels, voted: Container[str]) -> list[str]:
    """The queries none of whose relevant passages is among those that got votes."""
    return [q for q in queries if not any(g > 0 and p in voted for p, g in qrels[q].items())]


def correction(votes: CycledRun, qrels: Qrels) -> dict[str, Any]:
    """The correction lag: how many of the test queries whose first hit was wrong before any vote were
    corrected and stayed so to the end, and the median number of cycles that it took."""
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
