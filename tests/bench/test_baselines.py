import math
from collections import Counter
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from scipy import sparse

from rag_flywheel.bench.baselines import (
    GLOBAL_RULES,
    STATIC_RULES,
    History,
    Matrices,
    Rule,
    RuleQueries,
    ScoreMatrix,
    VoteTable,
    bm25_share,
    choose,
    clamped_votes,
    hybrid,
    net_votes,
    onyx_multiplier,
    oracle_scores,
    reciprocal_rank_fusion,
    run_of,
    wilson_lower_bounds,
)
from rag_flywheel.bench.baselines_by_query import (
    BY_QUERY_RULES,
    adapter_gradient,
    fit_adapter,
    lader,
    query_adapter,
    rocchio,
)

Floats = npt.NDArray[np.float32]
N_TRAIN, N_PASSAGES, N_ASKED, DIM = 30, 12, 9, 6
LEARNING = GLOBAL_RULES + BY_QUERY_RULES


def unit(rng: np.random.Generator, n: int) -> Floats:
    drawn = rng.normal(size=(n, DIM))
    rows: Floats = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    return rows


def votes_of(rows: list[tuple[int, int, bool]]) -> VoteTable:
    query, passage, helpful = zip(*rows, strict=True) if rows else ((), (), ())
    return VoteTable(
        np.array(query, dtype=np.int64),
        np.array(passage, dtype=np.int64),
        np.array(helpful, dtype=np.bool_),
    )


@pytest.fixture
def world() -> tuple[History, RuleQueries]:
    """Random passages, past queries with votes (some on the same pair, some queries without), queries."""
    rng = np.random.default_rng(0)
    passages, asked = unit(rng, N_PASSAGES), unit(rng, N_ASKED)
    voted = [(q, p, bool(h)) for q, p, h in rng.integers((0, 0, 0), (25, N_PASSAGES, 2), (80, 3))]
    bm25 = np.maximum(rng.normal(size=(N_ASKED, N_PASSAGES)), 0.0).astype(np.float32)
    bm25[2] = 0.0  # a query that matches no passage
    names = [f"p{i}" for i in range(N_PASSAGES)]
    history = History(unit(rng, N_TRAIN), names, passages, votes_of(voted))
    ids = [f"q{i}" for i in range(N_ASKED)]
    return history, RuleQueries(ids, asked, Matrices(asked @ passages.T, bm25))


def rows(votes: VoteTable) -> list[tuple[int, int, bool]]:
    return list(
        zip(votes.query.tolist(), votes.passage.tolist(), votes.helpful.tolist(), strict=True)
    )


def shares(bm25: Floats) -> list[list[float]]:
    return [[float(b) / max(row) if max(row) > 0 else 0.0 for b in row] for row in bm25.tolist()]


def close(found: ScoreMatrix, expected: object) -> None:
    assert found.dtype == np.float32
    assert np.allclose(found, np.asarray(expected), atol=2e-6)


def nearest(vector: Floats, history: History, among: set[int], k: int) -> list[tuple[int, float]]:
    cosines = {t: float(vector @ history.query_vectors[t]) for t in among}
    return sorted(cosines.items(), key=lambda item: -item[1])[:k]


def test_bm25_share_and_hybrid_of_a_table_worked_by_hand() -> None:
    bm25 = np.array([[4.0, 1.0, 0.0], [0.0, 0.0, 0.0]], dtype=np.float32)
    cosines = np.array([[0.2, 0.5, 0.1], [0.3, 0.2, 0.1]], dtype=np.float32)
    close(bm25_share(bm25), [[1.0, 0.25, 0.0], [0.0, 0.0, 0.0]])
    close(hybrid(Matrices(cosines, bm25)), [[0.5, 0.575, 0.1], [0.3, 0.2, 0.1]])
    close(hybrid(Matrices(cosines, bm25), 1.0), [[1.2, 0.75, 0.1], [0.3, 0.2, 0.1]])


def test_reciprocal_rank_fusion_of_a_table_worked_by_hand() -> None:
    cosines = np.array([[0.9, 0.5, 0.7, 0.5]], dtype=np.float32)  # ranks 1, 3, 2, 4: ties in order
    bm25 = np.array([[0.0, 2.0, 3.0, 0.0]], dtype=np.float32)  # ranks -, 2, 1, -
    expected = [[1 / 61, 1 / 63 + 1 / 62, 1 / 62 + 1 / 61, 1 / 64]]
    close(reciprocal_rank_fusion(Matrices(cosines, bm25)), expected)
    steep = reciprocal_rank_fusion(Matrices(cosines, bm25), 0.0)
    close(steep, [[1, 1 / 3 + 1 / 2, 1 / 2 + 1, 1 / 4]])


def test_votes_are_summed_and_clamped_after_each() -> None:
    table = votes_of([(0, 1, False), (0, 1, True), (1, 1, True), (1, 2, False), (2, 0, True)])
    assert net_votes(table, 4).tolist() == [1, 1, -1, 0]
    # The harmful vote on passage 1 came first, at 0: it is lost.
    assert clamped_votes(table, 4).tolist() == [1, 2, 0, 0]
    many = votes_of([(0, 0, True)] * 130 + [(0, 0, False)] * 10)
    assert clamped_votes(many, 1).tolist() == [90]
    assert net_votes(many, 1).tolist() == [120]


def test_onyx_multiplier_goes_from_half_to_double() -> None:
    found = onyx_multiplier(np.array([-5000.0, -3.0, 0.0, 3.0, 5000.0]))
    low, high = 0.5 + 1 / (1 + math.e), 2 / (1 + 1 / math.e)
    assert found == pytest.approx([0.5, low, 1.0, high, 2.0])


def test_wilson_lower_bounds_of_published_values() -> None:
    # 3 of 3: 3 / (3 + 1.96²) = 0.4385; 7 of 10: 0.397 in tables of the 95 % Wilson interval.
    table = votes_of(
        [(0, 0, False)] * 3 + [(0, 1, True)] * 3 + [(0, 2, True)] * 7 + [(0, 2, False)] * 3
    )
    found = wilson_lower_bounds(table, 4)
    assert found == pytest.approx([0.0, 0.4385, 0.3968, 0.0], abs=1e-4)


def test_wilson_lower_bound_solves_the_score_equation() -> None:
    table = votes_of([(0, 0, True)] * 12 + [(0, 0, False)] * 5)
    low = float(wilson_lower_bounds(table, 1)[0])
    assert (12 / 17 - low) / math.sqrt(low * (1 - low) / 17) == pytest.approx(1.96, abs=1e-9)


def test_static_rules_are_their_functions(world: tuple[History, RuleQueries]) -> None:
    history, asked = world
    found = {rule.name: rule.scores(rule.grid[-1], history, asked) for rule in STATIC_RULES}
    close(found["dense"], asked.matrices.cosines)
    close(found["BM25"], asked.matrices.bm25)
    close(found["RRF"], reciprocal_rank_fusion(asked.matrices))
    close(found["hybrid"], hybrid(asked.matrices))
    close(found["hybrid, tuned"], hybrid(asked.matrices, 2.0))


def test_global_rules_are_those_of_plain_python(world: tuple[History, RuleQueries]) -> None:
    history, asked = world
    base = hybrid(asked.matrices).astype(float)
    net, clamped = Counter[int](), Counter[int]()
    for _, p, h in rows(history.votes):
        net[p] += 1 if h else -1
        clamped[p] = max(0, min(100, clamped[p] + (1 if h else -1)))
    found = {rule.name: rule.scores(0.05, history, asked) for rule in GLOBAL_RULES}
    every = range(N_PASSAGES)
    close(found["±1 unbounded"], base + 0.05 * np.array([net[p] for p in every]))
    close(found["±1 clamped 0..100"], base + 0.05 * np.array([clamped[p] for p in every]))

    multipliers = onyx_multiplier(0.05 * np.array([float(net[p]) for p in every]))
    close(found["±1 multiplier"], base * multipliers)

    close(found["Wilson boost"], base + 0.05 * wilson_lower_bounds(history.votes, N_PASSAGES))
    assert min(net.values()) < 0 < max(net.values())


def test_rocchio_is_that_of_plain_python(world: tuple[History, RuleQueries]) -> None:
    history, asked = world
    table = rows(history.votes)
    expected = []
    for vector, share in zip(asked.vectors, shares(asked.matrices.bm25), strict=True):
        near = {t for t, _ in nearest(vector, history, {q for q, _, _ in table}, 5)}
        good = [history.passage_vectors[p] for q, p, h in table if q in near and h]
        bad = [history.passage_vectors[p] for q, p, h in table if q in near and not h]
        moved = vector.astype(float)
        moved += 0.5 * 0.75 * np.mean(good, axis=0) if good else 0.0
        moved -= 0.5 * 0.15 * np.mean(bad, axis=0) if bad else 0.0
        moved /= math.sqrt(sum(x * x for x in moved))
        expected.append(
            [
                float(moved @ p) + 0.3 * s
                for p, s in zip(history.passage_vectors, share, strict=True)
            ]
        )
    close(rocchio(0.5, history, asked), expected)


def test_lader_is_that_of_plain_python(world: tuple[History, RuleQueries]) -> None:
    history, asked = world
    table = rows(history.votes)

    def scaled(row: list[float]) -> list[float]:
        low, high = min(row), max(row)
        return [(x - low) / (high - low) for x in row]

    expected = []
    for vector, base in zip(asked.vectors, hybrid(asked.matrices).tolist(), strict=True):
        near = dict(nearest(vector, history, {q for q, _, h in table if h}, 10))
        memory = [0.0] * N_PASSAGES
        for q, p, h in table:
            if h and q in near:
                memory[p] += max(near[q], 0.0)
        pairs = zip(scaled(base), scaled(memory), strict=True)
        expected.append([0.8 * b + 0.2 * m for b, m in pairs])
    close(lader(0.2, history, asked), expected)


def adapter_loss(
    adapter: npt.NDArray[np.float64], history: History, batch: list[int], scale: float
) -> float:
    table = rows(history.votes)
    asked = [table[i][0] for i in batch]
    pool = {table[i][1] for i in batch} | {p for q, p, h in table if q in asked and not h}
    loss = 0.0
    for i in batch:
        query, helpful, _ = table[i]
        moved = history.query_vectors[query].astype(float) @ adapter
        logits = {p: scale * float(moved @ history.passage_vectors[p]) for p in pool}
        loss += math.log(sum(math.exp(x) for x in logits.values())) - logits[helpful]
    return loss / len(batch)


def test_the_adapters_gradient_is_the_slope_of_its_loss(world: tuple[History, RuleQueries]) -> None:
    history, _ = world
    harmful = np.zeros((N_TRAIN, N_PASSAGES), dtype=np.float32)
    for q, p, h in rows(history.votes):
        harmful[q, p] += not h
    batch = np.flatnonzero(history.votes.helpful)[:7]
    start = np.eye(DIM) + 0.1 * np.random.default_rng(1).normal(size=(DIM, DIM))
    found = adapter_gradient(
        start.astype(np.float32), history, sparse.csr_array(harmful), batch, 5.0
    )
    slopes = np.zeros((DIM, DIM))
    for i in range(DIM):
        for j in range(DIM):
            step = np.zeros((DIM, DIM))
            step[i, j] = 1e-4
            above = adapter_loss(start + step, history, batch.tolist(), 5.0)
            below = adapter_loss(start - step, history, batch.tolist(), 5.0)
            slopes[i, j] = (above - below) / 2e-4
    assert np.abs(slopes).max() > 0.1
    assert np.allclose(found, slopes, atol=1e-4)


def test_the_adapter_learns_a_turn_of_space_and_is_the_same_every_time() -> None:
    # Passages answer the query whose vector, turned, is nearest: only a matrix can see it.
    rng = np.random.default_rng(2)
    turn = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0].astype(np.float32)
    queries, passages, new = unit(rng, 3_000), unit(rng, N_PASSAGES), unit(rng, 50)
    best = np.argmax(queries @ turn @ passages.T, axis=1)
    table = votes_of([(q, int(p), True) for q, p in enumerate(best)])
    history = History(queries, [f"p{i}" for i in range(N_PASSAGES)], passages, table)
    matrices = Matrices(new @ passages.T, np.zeros((50, N_PASSAGES), dtype=np.float32))
    asked = RuleQueries([f"q{i}" for i in range(50)], new, matrices)

    adapter = fit_adapter(history, 20.0)
    assert np.array_equal(adapter, fit_adapter(history, 20.0))
    every = list(range(0, 3_000, 30))
    before = adapter_loss(np.eye(DIM), history, every, 20.0)
    assert adapter_loss(adapter.astype(float), history, every, 20.0) < 0.9 * before
    moved = new @ adapter / np.linalg.norm(new @ adapter, axis=1, keepdims=True)
    close(query_adapter(20.0, history, asked), moved @ passages.T)
    gain = query_adapter(20.0, history, asked) - query_adapter(0.0, history, asked)
    right = np.argmax(new @ turn @ passages.T, axis=1)
    assert gain[np.arange(50), right].mean() > gain.mean() + 0.02


@pytest.mark.parametrize("rule", LEARNING, ids=lambda rule: rule.name)
def test_no_weight_or_no_votes_is_the_hybrid_order(
    rule: Rule, world: tuple[History, RuleQueries]
) -> None:
    history, asked = world
    base = run_of(hybrid(asked.matrices), asked.ids, history)
    assert rule.grid[0] == 0.0
    assert run_of(rule.scores(0.0, history, asked), asked.ids, history) == base
    empty = replace(history, votes=votes_of([]))
    assert run_of(rule.scores(0.5, empty, asked), asked.ids, history) == base


@pytest.mark.parametrize("rule", STATIC_RULES + LEARNING, ids=lambda rule: rule.name)
def test_scores_are_float32_for_every_passage_and_leave_their_input_alone(
    rule: Rule, world: tuple[History, RuleQueries]
) -> None:
    history, asked = world
    before = asked.matrices.cosines.copy(), asked.matrices.bm25.copy(), asked.vectors.copy()
    for weight in rule.grid:
        scores = rule.scores(weight, history, asked)
        assert scores.shape == (N_ASKED, N_PASSAGES)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()
    after = asked.matrices.cosines, asked.matrices.bm25, asked.vectors
    assert all(np.array_equal(x, y) for x, y in zip(before, after, strict=True))
    assert rule.source
    assert rule.published is None or rule.published in rule.grid


def test_more_queries_than_fit_in_one_part_score_as_alone(
    world: tuple[History, RuleQueries],
) -> None:
    history, asked = world
    times = (1030 // N_ASKED + 1, 1)
    cosines, bm25 = np.tile(asked.matrices.cosines, times), np.tile(asked.matrices.bm25, times)
    ids = list(asked.ids) * times[0]
    many = RuleQueries(ids, np.tile(asked.vectors, times), Matrices(cosines, bm25))
    for rule in (rocchio, lader):
        close(rule(0.3, history, many)[-N_ASKED:], rule(0.3, history, asked))


def test_run_of_takes_the_best_and_keeps_the_order_of_ties(
    world: tuple[History, RuleQueries],
) -> None:
    history, _ = world
    scores = np.zeros((1, N_PASSAGES), dtype=np.float32)
    scores[0, [7, 3]] = 2.0
    scores[0, 5] = 3.0
    assert run_of(scores, ["q"], history, depth=5) == {"q": ["p5", "p3", "p7", "p0", "p1"]}
    assert len(run_of(scores, ["q"], history, depth=99)["q"]) == N_PASSAGES


def toy_rule(good: float) -> Rule:
    """Ranks passage p1 first at the weight `good`, and last otherwise."""

    def scores(weight: float, history: History, asked: RuleQueries) -> ScoreMatrix:
        found = np.zeros((len(asked.ids), len(history.passage_ids)), dtype=np.float32)
        found[:, 1] = 1.0 if weight == good else -1.0
        return found

    return Rule("toy", "this test", (0.0, 1.0, 2.0, 3.0), None, scores)


def test_choose_takes_the_weight_best_on_dev_and_of_ties_the_mildest(
    world: tuple[History, RuleQueries],
) -> None:
    history, asked = world
    qrels = {q: {"p1": 1} for q in asked.ids}
    assert choose(toy_rule(2.0), history, asked, qrels) == 2.0
    assert choose(toy_rule(9.0), history, asked, qrels) == 0.0
    fixed = Rule("one", "this test", (0.3,), None, toy_rule(9.0).scores)
    assert choose(fixed, history, asked, qrels) == 0.3


def test_oracle_puts_relevant_candidates_first_and_no_others() -> None:
    n, none = 200, np.zeros((0, DIM), dtype=np.float32)
    bm25 = np.zeros((1, n), dtype=np.float32)
    bm25[0, 10] = 1.0
    matrices = Matrices(np.linspace(0.0, 1.0, n, dtype=np.float32)[None], bm25)
    history = History(none, [f"p{i}" for i in range(n)], none, votes_of([]))
    # p125 is the last dense candidate, p124 none; of BM25 only p10 matches, and p3 does not.
    qrels = {"q": {"p125": 1, "p124": 1, "p10": 2, "p3": 1, "p198": 0, "p199": -1}}
    scores = oracle_scores(RuleQueries(["q"], none, matrices), history, qrels)
    assert run_of(scores, ["q"], history, depth=4) == {"q": ["p10", "p125", "p199", "p198"]}
