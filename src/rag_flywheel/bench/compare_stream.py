"""Compares the rankings of cycles-v2: P@8 and recall@8 beside nDCG@10, by slice of the questions.

It works on arrays and runs; it must not know of index folders.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat

from rag_flywheel.bench.baselines_repeated import MEMORY, OWN_VOTES, repeated_rules
from rag_flywheel.bench.compare import (
    NEAR_DUPLICATE,
    OURS,
    RULES,
    STATIC,
    correction,
    measured,
    nearest_cosines,
    our_rankings,
    rule_inputs,
    rule_rankings,
    similarity_quantiles,
    unanswered,
)
from rag_flywheel.bench.intervals import paired_difference
from rag_flywheel.bench.measures import all_means, by_query, mean
from rag_flywheel.bench.protocol import CycledRun, FixedVote, Protocol
from rag_flywheel.bench.stream import need_of
from rag_flywheel.encoder import Encoder
from rag_flywheel.formats.beir import Qrels

if TYPE_CHECKING:
    from rag_flywheel.bench.setup import Bench

FIXED = "fixed exposure"
MEASURES = ("nDCG@10", "P@8", "R@8")
START = "flywheel before votes"
AHEAD_OF = (START, OURS[1], OWN_VOTES, MEMORY, "±1 unbounded")
"""The rankings that the flywheel is compared with in each slice, beside the static hybrid."""
_OFTEN = 5  # times that a question came
_SEVERAL = 0.05  # share of questions with several right answers from which on it is a warning
Values = Mapping[str, Mapping[str, float]]
"""{measure: {query: value}}"""
Slice = tuple[str, str, list[str]]
"""A name, what it means, and its queries."""


def compare_stream(
    bench: "Bench",
    protocol: Protocol,
    encoder: Encoder,
    runs: Sequence[CycledRun],
    fixed_votes: Sequence[FixedVote],
) -> dict[str, Any]:
    """The rankings, slices, correction lag and warnings of a collection's result.

    fixed_votes: the votes of the run "fixed exposure", which every rule learns from. Rankings are
    measured on the test queries; those asked again have a slice of their own.
    """
    history, dev, scored = rule_inputs(bench, encoder, fixed_votes)
    rules = (*RULES, *repeated_rules(protocol.users.eps))
    rankings = [
        *our_rankings(runs),
        *rule_rankings(rules, bench, protocol, history, dev, scored),
    ]
    values = {r["name"]: by_query(MEASURES, bench.scored.qrels, r["run"]) for r in rankings}
    votes = next(run for run in runs if run.name == "votes")
    by_cycle = [by_query(MEASURES, bench.scored.qrels, run) for _, run in votes.cycles]
    nearest = nearest_cosines(scored, history)
    _, related = similarity_quantiles(history, protocol.seed)
    voted = frozenset[str]().union(*(run.voted for run in runs if run.name in ("votes", FIXED)))
    tests = sorted(bench.test.queries)
    slices = slices_of(bench, nearest, related, voted)
    ndcg = {name: _of(found[MEASURES[0]], tests) for name, found in values.items()}
    distinct = [q for q in tests if nearest[q] < NEAR_DUPLICATE]
    for ranking in rankings:
        name, run = ranking["name"], _of(ranking.pop("run"), tests)
        ranking["values"] = all_means(bench.test.qrels, run)
        ranking |= measured(name, ndcg, distinct, protocol.seed)
        others = {m: _paired(values, name, m, tests, protocol) for m in MEASURES[1:]}
        differences = {MEASURES[0]: ranking["difference"], **others}
        ranking["differences"] = None if name == STATIC else differences
    return {
        "static": STATIC,
        "rankings": rankings,
        "slices": [measured_slice(each, values, by_cycle, protocol) for each in slices],
        "correction": correction(votes, bench.test.qrels),
        "warnings": warnings({**bench.train.qrels, **bench.test.qrels}, votes),
    }


def slices_of(
    bench: "Bench", nearest: Mapping[str, SupportsFloat], related: float, voted: frozenset[str]
) -> list[Slice]:
    """The slices of the scored questions.

    "asked again" has the questions of the stream in the same words, and "asked often" those of them
    that came at least five times. Each test query is in one of "rephrased", whose need the stream has
    in other words; "related", a need of its own at a cosine of at least `related` to the nearest
    question of the stream; and "far", below it. "answer no vote reached" has the test queries none of
    whose right passages got a vote, whatever other slice they are in.

    nearest: by query, the cosine to the nearest question of the stream. voted: the passages with votes.
    """
    train, test = bench.train, bench.test
    times = Counter(query for part in bench.parts for query in part)
    needs = {need_of(train, q) for q in train.queries}
    again, tests = sorted(bench.again.queries), sorted(test.queries)
    new = [q for q in tests if need_of(test, q) not in needs]
    what = "a need that nobody asked about, cosine to the nearest question of the stream"
    return [
        ("asked again", "questions of the stream, in the same words", again),
        (
            "asked often",
            f"those of them that came at least {_OFTEN} times",
            [q for q in again if times[q] >= _OFTEN],
        ),
        (
            "rephrased",
            "test queries in words that nobody used, with the same right passages as a question of "
            "the stream",
            sorted(set(tests) - set(new)),
        ),
        (
            "related",
            f"{what} at least {related:.3f}, the 98 % quantile of random pairs",
            [q for q in new if float(nearest[q]) >= related],
        ),
        ("far", f"{what} below {related:.3f}", [q for q in new if float(nearest[q]) < related]),
        (
            "answer no vote reached",
            "test queries none of whose right passages got a vote in “votes” or “fixed exposure”",
            unanswered(tests, test.qrels, voted),
        ),
    ]


def warnings(qrels: Qrels, votes: CycledRun) -> list[str]:
    """What a reader of the result has to know of the collection; empty when there is nothing."""
    counts = [n for judged in qrels.values() if (n := sum(grade > 0 for grade in judged.values()))]
    share = sum(n > 1 for n in counts) / max(1, len(counts))
    if share < _SEVERAL:
        return []
    live = votes.refreshes[-1].parameters if votes.refreshes else {}
    answers = live.get("answers")
    model = (
        "the live version takes one to be the answer, so right votes on the others look wrong to it"
        if not isinstance(answers, int | float)
        else "the live version judges each passage on its own, so there is nothing to do but to read "
        "P@8 and R@8 beside nDCG@10"
    )
    return [
        f"{share:.0%} of the questions have several right passages, {sum(counts) / len(counts):.1f} on "
        f"average: {model}"
    ]


def measured_slice(
    each: Slice, values: Mapping[str, Values], by_cycle: Sequence[Values], p: Protocol
) -> dict[str, Any]:
    """A slice of the result: every ranking's mean of each measure, and the flywheel's differences.

    values: by ranking. by_cycle: those of the run "votes", before any vote and after each cycle.
    """
    name, what, queries = each
    values = {**values, START: by_cycle[0]}
    means = {
        ranking: {m: mean(_of(found[m], queries)) if queries else None for m in MEASURES}
        for ranking, found in values.items()
    }
    differences = {m: _paired(values, OURS[0], m, queries, p) for m in MEASURES}
    ours = _of(values[OURS[0]][MEASURES[0]], queries)
    return {
        "name": name,
        "what": what,
        "n": len(queries),
        "static": means[STATIC][MEASURES[0]],
        "flywheel": means[OURS[0]][MEASURES[0]],
        "difference": differences[MEASURES[0]],
        "differences": differences,
        "rankings": means,
        "ahead": {
            other: paired_difference(ours, values[other][MEASURES[0]], p.seed) for other in AHEAD_OF
        },
        "by_cycle": [
            mean(_of(found[MEASURES[0]], queries)) if queries else None for found in by_cycle
        ],
    }


def _paired(
    values: Mapping[str, Values], name: str, measure: str, queries: Sequence[str], p: Protocol
) -> dict[str, float] | None:
    """The paired difference of a ranking to the static hybrid."""
    ours = _of(values[name][measure], queries)
    return paired_difference(ours, values[STATIC][measure], p.seed)


def _of(found: Mapping[str, Any], queries: Sequence[str]) -> dict[str, Any]:
    return {q: found[q] for q in queries}
