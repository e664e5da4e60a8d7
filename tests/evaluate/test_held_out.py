"""What held-out queries say: tables by hand, ir_measures, and what serving would compute."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_flywheel.evaluate.held_out import (
    HeldOut,
    chances_of,
    golden_ndcg,
    judge_held_out,
    neighbour_chances,
    shared_hits,
    slices,
)
from rag_flywheel.improve.examples import Examples, Floats, nearest_of
from rag_flywheel.improve.propagate import build_memory
from rag_flywheel.rank.evidence import EvidenceView, evidence_for
from rag_flywheel.rank.features import FEATURES
from rag_flywheel.rank.parameters import Kernel, Parameters
from rag_flywheel.rank.posterior import NOISE_LIMIT, Rates, credited
from rag_flywheel.rank.score import Votes, chance_of, score
from rag_flywheel.rank.stored_evidence import PastQuery
from rag_flywheel.records import Judgment, QueryKey
from thorough import thorough
from voted import asked, even

KERNEL = Kernel(0.2, 0.9, 2.0, 0.5)
BY_COSINE = replace(
    Parameters(),
    weights={**dict.fromkeys(FEATURES, 0.0), "dense": 1.0, "bm25": 0.3},
    kernel=KERNEL,
    rates=even(0.2),
)
OFF = replace(BY_COSINE, kernel=replace(KERNEL, neighbours=0))
seeds = st.integers(0, 2**32 - 1)


def made(
    lineages: Sequence[Sequence[int]],
    dense: Sequence[Sequence[float]],
    yes: Sequence[Sequence[float]],
    no: Sequence[Sequence[float]] | None = None,
    vectors: Floats | None = None,
) -> Examples:
    """Queries of one tenant whose candidates have this `dense`, and nothing else."""
    helpful = np.array(yes, dtype=np.float64)
    harmful = np.zeros_like(helpful) if no is None else np.array(no, dtype=np.float64)
    n, width = helpful.shape
    features = np.zeros((n, width, len(FEATURES)), dtype=np.float32)
    features[:, :, 0] = dense
    given = np.ones((n, 1)) if vectors is None else vectors
    return Examples(
        [QueryKey(i.to_bytes(16, "big"), None) for i in range(n)],
        (given / np.linalg.norm(given, axis=1, keepdims=True)).astype(np.float32),
        np.array(lineages, dtype=np.int64),
        features,
        helpful,
        harmful,
        np.zeros(n, dtype=np.int64),
    )


def random_examples(seed: int, n: int, width: int, *, passages: int = 12, dim: int = 3) -> Examples:
    """Candidates out of a few passages, some of them missing; a hit gets one kind of votes only."""
    rng = np.random.default_rng(seed)
    lineages = rng.permuted(np.tile(np.arange(passages), (n, 1)), axis=1)[:, :width]
    lineages[:, 1:][rng.random((n, width - 1)) < 0.2] = -1
    net = np.where(lineages < 0, 0, rng.integers(-2, 3, lineages.shape))
    found = made(
        lineages.tolist(),
        rng.uniform(0, 1, lineages.shape).tolist(),
        np.maximum(net, 0).tolist(),
        np.maximum(-net, 0).tolist(),
        rng.normal(size=(n, dim)),
    )
    return replace(found, tenants=rng.integers(0, 2, n))


def says(test: Examples, others: Examples, parameters: Parameters) -> HeldOut:
    return judge_held_out(test, chances_of(test, others, parameters), parameters)


def ordered(
    golden: Examples,
    answers: Sequence[Mapping[int, float]],
    others: Examples,
    parameters: Parameters,
) -> Floats:
    return golden_ndcg(golden, answers, chances_of(golden, others, parameters))


def none(like: Examples) -> Examples:
    return like.at(np.empty(0, dtype=np.int64))


def calculated(measure: Any, qrels: Mapping[str, Mapping[str, int]], runs: object) -> Any:
    """A measure by query, as ir_measures has it."""
    return {m.query_id: m.value for m in ir_measures.iter_calc([measure], qrels, runs)}


def test_the_order_of_judged_hits_by_hand() -> None:
    dense = [[0.9, 0.8, 0.7, 0.6]] * 6
    net = [
        [1, 0, -1, 2],  # right, wrong, right
        [-1, 0, 0, 1],  # wrong, right
        [1, 1, 0, -1],  # as it should be
        [1, 0, 0, 2],  # all right
        [-1, 0, -1, 0],  # all wrong
        [0, 0, 0, 0],  # nothing is judged
    ]
    rows = np.array(net, dtype=np.float64)
    test = made(
        [[1, 2, 3, 4]] * 6, dense, np.maximum(rows, 0).tolist(), np.maximum(-rows, 0).tolist()
    )
    found = says(test, none(test), BY_COSINE)
    ideal = 1 + 1 / math.log2(3)
    expected = [1.5 / ideal, 1 / math.log2(3), 1.0]
    assert found.condensed[:3] == pytest.approx(expected)
    assert np.isnan(found.condensed[3:]).all()
    worst_first = replace(BY_COSINE, weights={**BY_COSINE.weights, "dense": -1.0})
    turned = says(test, none(test), worst_first).condensed
    assert turned[:3] == pytest.approx([1.5 / ideal, 1.0, (1 / math.log2(3) + 0.5) / ideal])
    assert np.isnan(turned[3:]).all()


@thorough(20, few=6)
@given(seeds)
def test_the_order_of_judged_hits_is_that_of_ir_measures(seed: int) -> None:
    both = random_examples(seed, 24, 7)
    test, others = both.at(np.arange(9)), both.at(np.arange(9, 24))
    chances = chances_of(test, others, BY_COSINE)
    found = says(test, others, BY_COSINE).condensed
    qrels: dict[str, dict[str, int]] = {}
    runs: dict[str, dict[str, float]] = {}
    for i in range(9):
        judged = np.flatnonzero(test.net[i]).tolist()
        qrels[str(i)] = {f"p{c}": int(test.net[i, c] > 0) for c in judged}
        runs[str(i)] = {f"p{c}": float(chances[i, c]) for c in judged}
    theirs = calculated(ir_measures.nDCG, qrels, runs)
    for i, value in enumerate(found.tolist()):
        if len(set(qrels[str(i)].values())) == 2:
            assert value == pytest.approx(theirs[str(i)], abs=1e-6)
        else:
            assert math.isnan(value)


def test_ndcg_of_golden_queries_by_hand() -> None:
    lineages = [[*range(1, 12), -1], [5, 6, -1, *[-1] * 9]]
    dense = [[(12 - c) / 12 for c in range(12)]] * 2
    golden = made(lineages, dense, np.zeros((2, 12)).tolist())
    both = ordered(golden, [{1: 1.0, 3: 2.0}, {6: 1.0, 99: 1.0}], none(golden), BY_COSINE)
    ideal = 2 + 1 / math.log2(3)
    second = (1 / math.log2(3)) / (1 + 1 / math.log2(3))  # one found in place 2, one nowhere
    assert both == pytest.approx([(1 + 2 / 2) / ideal, second])
    late = ordered(golden, [{11: 1.0}, {5: 1.0, 6: 1.0}], none(golden), BY_COSINE)
    assert late == pytest.approx([0.0, 1.0])  # in place 11, and as good as can be
    assert ordered(none(golden), [], none(golden), BY_COSINE).shape == (0,)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_ndcg_of_golden_queries_is_that_of_ir_measures(seed: int) -> None:
    rng = np.random.default_rng(seed)
    both = random_examples(seed, 24, 14, passages=30)
    golden, others = both.at(np.arange(9)), both.at(np.arange(9, 24))
    answers = [
        {int(p): float(rng.integers(1, 4)) for p in rng.permutation(30)[: rng.integers(1, 15)]}
        for _ in range(9)
    ]
    chances = chances_of(golden, others, BY_COSINE)
    qrels = {str(i): {f"p{p}": int(g) for p, g in a.items()} for i, a in enumerate(answers)}
    runs = {
        str(i): {
            f"p{p}": float(chance)
            for p, chance in zip(golden.lineages[i].tolist(), chances[i].tolist(), strict=True)
            if p >= 0
        }
        for i in range(9)
    }
    found = ordered(golden, answers, others, BY_COSINE)
    theirs = calculated(ir_measures.nDCG @ 10, qrels, runs)
    assert found == pytest.approx([theirs[str(i)] for i in range(9)], abs=1e-6)


def served(test: Examples, i: int, others: Examples, parameters: Parameters) -> Floats:
    """Scores of query i as they are served after a refresh whose past queries are `others`: they
    bring in passages that are no candidates of its own."""
    memory = build_memory(others, parameters)
    found = {}
    for row, key in enumerate(others.keys):
        judgments = [
            Judgment(key.query_hash, None, int(p), max(v, 0.0), max(-v, 0.0), 1, (row,))
            for p, v in zip(others.lineages[row], others.net[row].tolist(), strict=True)
            if v
        ]
        several = parameters.answers is not None
        after = credited(memory.before(row), judgments, parameters.rates, several=several)
        found[QueryKey(key.query_hash, f"tenant {others.tenants[row]}")] = PastQuery(after, (row,))
    vectors = {key.query_hash: others.vectors[row] for row, key in enumerate(others.keys)}
    view = EvidenceView(others.vectors.shape[1]).updated(found, vectors)
    tenant = f"tenant {test.tenants[i]}"
    (evidence,) = evidence_for(view, asked(test.vectors[i : i + 1]), tenant, parameters.memory)
    own = test.lineages[i][test.present[i]]
    brought = np.array(sorted(set(evidence.support) - set(own.tolist())), dtype=np.int64)
    unlike = np.full((len(brought), test.features.shape[2]), -100.0)  # no prior to speak of
    features = np.concatenate([test.features[i][test.present[i]], unlike])
    votes = Votes.of(evidence, np.concatenate([own, brought]))
    return score(parameters, features, votes).scores[: len(own)]


@thorough(15, few=5)
@given(seeds)
def test_chances_are_those_that_would_be_served(seed: int) -> None:
    both = random_examples(seed, 30, 6)
    test, others = both.at(np.arange(6)), both.at(np.arange(6, 30))
    uneven = replace(BY_COSINE, rates=Rates(0.3, 0.1))
    several = replace(uneven, answers=2.5)
    for parameters in (
        BY_COSINE,
        OFF,
        replace(BY_COSINE, rates=even(NOISE_LIMIT + 0.01)),
        uneven,
        several,
        replace(several, kernel=OFF.kernel),
    ):
        chances = chances_of(test, others, parameters)
        for i in range(6):
            expected = served(test, i, others, parameters)
            own = chances[i][test.present[i]]
            scores = np.log(own) if parameters.answers is None else np.log(-np.log1p(-own))
            assert scores == pytest.approx(expected, abs=1e-4)
            assert [chance_of(s, parameters.answers) for s in expected] == pytest.approx(
                own, rel=1e-4
            )
            assert not chances[i][~test.present[i]].any()
            assert parameters.answers or chances[i].sum() <= 1.0 + 1e-9


def test_votes_on_other_queries_are_heard_and_those_on_held_out_ones_are_not() -> None:
    both = random_examples(3, 30, 6)
    test, others = both.at(np.arange(6)), both.at(np.arange(6, 30))
    chances = chances_of(test, others, BY_COSINE)
    assert np.abs(chances - chances_of(test, others, OFF)).max() > 0.1
    assert np.abs(chances - chances_of(test, none(test), BY_COSINE)).max() > 0.1
    turned = replace(test, helpful=test.harmful, harmful=test.helpful)
    assert chances_of(turned, others, BY_COSINE).tolist() == chances.tolist()
    alone = chances_of(test.at(np.array([4])), others, BY_COSINE)
    assert alone[0] == pytest.approx(chances[4], abs=1e-9)  # nor do they hear each other


@given(seeds, st.floats(0.02, 0.45))
@settings(max_examples=20, deadline=None)
def test_the_likelihood_is_that_of_each_vote_given_each_answer(seed: int, noise: float) -> None:
    both = random_examples(seed, 20, 5)
    test, others = both.at(np.arange(5)), both.at(np.arange(5, 20))
    parameters = replace(BY_COSINE, rates=even(noise))
    chances = chances_of(test, others, parameters)
    found = says(test, others, parameters).log_likelihood
    for i in range(5):
        total, others_chance = 0.0, 1.0 - chances[i].sum()
        for answer, chance in enumerate([*chances[i].tolist(), others_chance]):
            for hit, net in enumerate(test.net[i].tolist()):
                right = (net > 0) == (hit == answer)
                chance *= ((1 - noise) if right else noise) ** abs(net)
            total += chance
        assert found[i] == pytest.approx(math.log(total), abs=1e-9)


def test_the_best_hits_and_how_many_are_judged_by_hand() -> None:
    lineages = [[*range(20, 32)], [7, 8, 9, *[-1] * 9]]
    dense = [[c / 12 for c in range(12)]] * 2  # the last is the best
    yes = np.zeros((2, 12))
    yes[0, [11, 9, 4, 3]] = 1.0  # places 1, 3, 8 and 9
    found = says(made(lineages, dense, yes.tolist()), none(random_examples(0, 2, 3)), OFF)
    assert found.best.tolist() == [[*range(31, 23, -1)], [9, 8, 7, *[-1] * 5]]
    assert found.judged.tolist() == [3 / 8, 0.0]


def test_the_share_of_judged_hits_is_of_those_there_are() -> None:
    lineages, yes = [[7, 8, 9, *[-1] * 7]] * 2, [[1, 1, 1, *[0] * 7], [1, 0, 0, *[0] * 7]]
    test = made(lineages, [[0.5] * 10] * 2, yes)
    qrels = {"0": {"7": 1, "8": 1, "9": 1}, "1": {"7": 1}}
    runs = {str(i): {"7": 3.0, "8": 2.0, "9": 1.0} for i in range(2)}
    theirs = calculated(ir_measures.Judged @ 8, qrels, runs)
    assert [theirs["0"], theirs["1"]] == pytest.approx([1.0, 1 / 3])
    assert says(test, none(test), OFF).judged == pytest.approx([1.0, 1 / 3])


def best(*rows: Sequence[int]) -> HeldOut:
    empty = np.empty(0)
    return HeldOut(empty, empty, np.array(rows, dtype=np.int64), empty)


def test_hits_that_are_kept_by_hand() -> None:
    one, other = best([1, 2, 3, 4], [5, 6, -1, -1]), best([4, 3, 9, 8], [6, 5, -1, -1])
    assert shared_hits(one, other) == shared_hits(other, one) == 4 / 6
    assert shared_hits(one, one) == 1.0
    assert shared_hits(best([1, 2]), best([3, 4])) == 0.0
    assert shared_hits(best([5], [6]), best([6], [5])) == 0.0  # each query for itself
    assert shared_hits(best([-1, -1]), best([-1, -1])) == 1.0
    nobody = HeldOut(np.empty(0), np.empty(0), np.empty((0, 8), dtype=np.int64), np.empty(0))
    assert shared_hits(nobody, nobody) == 1.0


@thorough(40, few=10)
@given(seeds, st.integers(1, 20), st.integers(2, 40))
def test_slices_part_the_queries_by_their_nearest_past_query(seed: int, n: int, m: int) -> None:
    both = random_examples(seed, n + m, 4, dim=2)
    test, others = both.at(np.arange(n)), both.at(np.arange(n, n + m))
    found = slices(test, others)
    assert list(found) == ["near", "related", "far"]
    assert (sum(mask.astype(int) for mask in found.values()) == 1).all()
    pairs = (others.vectors @ others.vectors.T)[np.triu_indices(m, 1)]
    related, near = (min(max(float(np.quantile(pairs, q)), 0.0), 0.99) for q in (0.98, 0.999))
    for i in range(n):
        same = others.vectors[others.tenants == test.tenants[i]]
        cosine = float((same @ test.vectors[i]).max()) if len(same) else -2.0
        if min(abs(cosine - related), abs(cosine - near)) > 0.001:
            name = "near" if cosine > near else "related" if cosine > related else "far"
            assert found[name][i], (cosine, related, near)


def test_there_are_no_slices_without_queries_to_tell_apart() -> None:
    one = random_examples(1, 1, 3)
    assert slices(none(one), random_examples(2, 9, 3)) == {}
    assert slices(one, one) == {}
    assert slices(one, none(one)) == {}


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_a_memory_and_neighbours_that_are_known_are_those_that_would_be_found(seed: int) -> None:
    test, others = random_examples(seed, 9, 4), random_examples(seed + 1, 30, 4)
    memory, near = neighbour_chances(others, BY_COSINE), nearest_of(test, others)
    found = chances_of(test, others, BY_COSINE, memory=memory, near=near)
    assert found.tolist() == chances_of(test, others, BY_COSINE).tolist()
    parts, same = slices(test, others, near), slices(test, others)
    assert {n: m.tolist() for n, m in parts.items()} == {n: m.tolist() for n, m in same.items()}
