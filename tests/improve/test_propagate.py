"""The memory of past queries, against a loop in plain Python over all pairs of them."""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from rag_flywheel.improve import propagate
from rag_flywheel.improve.examples import Examples, Links
from rag_flywheel.improve.likelihood import neighbour_chances_of
from rag_flywheel.improve.propagate import before_votes, build_memory
from rag_flywheel.index.nearest import Nearest
from rag_flywheel.rank.features import FEATURES
from rag_flywheel.rank.parameters import Kernel, Parameters
from rag_flywheel.rank.posterior import NOISE_LIMIT
from rag_flywheel.records import QueryKey
from voted import even, of_net

WIDTH = 6
KERNEL = Kernel(0.3, 0.9, 2.0, 0.5)
HEARD = replace(Parameters(), kernel=KERNEL)
OFF = replace(HEARD, kernel=replace(KERNEL, neighbours=0))


def few(seed: int, n: int = 10) -> Examples:
    """Queries in clusters of four, of two tenants, with some candidates missing."""
    rng = np.random.default_rng(seed)
    cluster = np.arange(n) // 4
    vectors = rng.normal(size=(n, 24))[cluster] + 0.15 * rng.normal(size=(n, 24))
    lineages = cluster[:, None] * WIDTH + np.arange(WIDTH)
    missing = rng.random(lineages.shape) < 0.2
    missing[:, 0] = False
    features = np.zeros((n, WIDTH, len(FEATURES)))
    features[:, :, :2] = rng.uniform(0.1, 0.2, (n, WIDTH, 2)) * rng.choice([1, 8], (n, WIDTH, 1))
    votes = np.where(missing, 0, rng.integers(-2, 3, lineages.shape))
    return Examples(
        [QueryKey(i.to_bytes(16, "big"), None) for i in range(n)],
        (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
        np.where(missing, -1, lineages).astype(np.int64),
        features.astype(np.float32),
        *of_net(votes).values(),
        (np.arange(n) % 7 == 0).astype(np.int64),
    )


def plain_after(
    before: dict[int, float], net: dict[int, float], odds: float, least: float = 0.01
) -> dict[int, float]:
    """Chances after the votes; small ones say nothing, unless votes call them helpful."""
    joint = {p: chance * odds ** net[p] for p, chance in before.items()}
    others = max(0.0, 1.0 - sum(before.values()))
    share = {p: j / (sum(joint.values()) + others) for p, j in joint.items()}
    return {p: s for p, s in share.items() if s >= least or net[p] > 0}


def plain_rows(
    examples: Examples, parameters: Parameters
) -> tuple[list[dict[int, float]], list[dict[int, float]]]:
    """(prior, net votes) of each query by passage."""
    prior, net = [], []
    for i in range(len(examples)):
        row: dict[int, float] = {}
        votes: dict[int, float] = {}
        for c, lineage in enumerate(examples.lineages[i].tolist()):
            if lineage >= 0:
                values = examples.features[i, c].tolist()
                named = zip(FEATURES, values, strict=True)
                row[lineage] = float(np.exp(sum(parameters.weights[n] * v for n, v in named)))
                votes[lineage] = float(examples.net[i, c])
        prior.append({p: e / sum(row.values()) for p, e in row.items()})
        net.append(votes)
    return prior, net


Row = dict[int, float]


def plain_before(prior: Row, told: Mapping[int, tuple[float, Row]], n0: float) -> Row:
    """Chances before the votes, from what neighbours say and what each of them weighs."""
    every = sum(weight * sum(row.values()) for weight, row in told.values())
    return {
        p: (n0 * chance + sum(weight * row.get(p, 0.0) for weight, row in told.values()))
        / (n0 + every)
        for p, chance in prior.items()
    }


def plain_memory(examples: Examples, parameters: Parameters) -> list[Row]:
    """`remember` in plain Python, by passage, for at most 33 queries: all others are neighbours.

    Each tells each what it would say if it had not been told anything by that one.
    """
    kernel, odds = parameters.kernel, (1 - parameters.rates.noise) / parameters.rates.noise
    prior, net = plain_rows(examples, parameters)
    told: list[dict[int, tuple[float, Row]]] = [{} for _ in prior]
    for i, ours in enumerate(examples.vectors):
        for j, theirs in enumerate(examples.vectors):
            if i == j or examples.tenants[i] != examples.tenants[j] or not kernel.neighbours:
                continue
            cosine = min(float(ours @ theirs), 1.0)
            weight = max(0.0, (cosine - kernel.theta) / (1 - kernel.theta)) ** kernel.gamma
            told[i][j] = weight, plain_after(prior[j], net[j], odds)
    for _ in range(2):
        heard, told = told, [{} for _ in prior]
        for i, neighbours in enumerate(heard):
            for j, (weight, _) in neighbours.items():
                said = plain_after(plain_before(prior[j], heard[j], kernel.n0), net[j], odds)
                others = {t: one for t, one in heard[j].items() if t != i}
                before = plain_before(prior[j], others, kernel.n0)
                after = plain_after(before, net[j], odds, least=0.0)
                told[i][j] = weight, {p: chance for p, chance in after.items() if p in said}
    return [
        {p: c for p, c in plain_before(row, told[i], kernel.n0).items() if c >= 0.002 or net[i][p]}
        for i, row in enumerate(prior)
    ]


def plain_of_each_passage(examples: Examples, parameters: Parameters) -> list[Row]:
    """`plain_memory` with several answers: every passage on its own, in plain Python."""
    kernel, answers = parameters.kernel, parameters.answers
    assert answers is not None
    prior, net = plain_rows(examples, parameters)
    prior = [{p: 1 - math.exp(-answers * share) for p, share in row.items()} for row in prior]

    def near(i: int, j: int) -> float:
        if i == j or examples.tenants[i] != examples.tenants[j]:
            return 0.0
        cosine = min(float(examples.vectors[i] @ examples.vectors[j]), 1.0)
        return max(0.0, (cosine - kernel.theta) / (1 - kernel.theta)) ** kernel.gamma

    def after(chance: float, votes: float) -> float:
        odds = 4.0**votes
        return chance * odds / (chance * odds + 1 - chance)

    n = len(prior)
    told: list[dict[tuple[int, int], float]] = [
        {} for _ in prior
    ]  # to i: {(neighbour, passage): chance}

    def before(i: int, p: int, without: int = -1) -> float:
        said = [(near(i, j), c) for (j, q), c in told[i].items() if q == p and j != without]
        total = kernel.n0 + sum(weight for weight, _ in said)
        return (kernel.n0 * prior[i][p] + sum(weight * c for weight, c in said)) / total

    for _ in range(3):
        new: list[dict[tuple[int, int], float]] = [{} for _ in prior]
        for i in range(n):
            for j in range(n):
                for p in prior[j]:
                    speaks = net[j][p] or after(before(j, p), net[j][p]) >= 0.01
                    if near(i, j) > 0 and p in prior[i] and speaks:
                        new[i][j, p] = after(before(j, p, without=i), net[j][p])
        told = new
    return [{p: before(i, p) for p in row} for i, row in enumerate(prior)]


@pytest.mark.parametrize("kernel", [KERNEL, Kernel(0.0, 0.9, 1.0, 0.05)])
@pytest.mark.parametrize("seed", [1, 2])
def test_with_several_answers_every_passage_has_messages_of_its_own(
    seed: int, kernel: Kernel
) -> None:
    examples = few(seed, 30)
    parameters = replace(HEARD, kernel=kernel, answers=2.0)
    expected = plain_of_each_passage(examples, parameters)
    found = before_votes(examples, parameters)
    for i, row in enumerate(expected):
        for c, lineage in enumerate(examples.lineages[i].tolist()):
            assert found[i, c] == pytest.approx(row.get(lineage, 0.0), abs=1e-6)
    assert found.sum(axis=1).max() > 1.2  # more than one may be right


def test_with_several_answers_nothing_is_pushed_aside_by_what_is_said_of_others() -> None:
    examples = few(3, 30)
    parameters = replace(HEARD, answers=2.0)
    turned = examples.helpful.copy()
    turned[:, 0] += 5.0 * examples.present[:, 0]  # the first passage of each, and nothing else
    first = before_votes(examples, parameters)
    second = before_votes(replace(examples, helpful=turned), parameters)
    assert (second[:, 0] >= first[:, 0] - 1e-9).all()
    assert second[:, 0].max() > first[:, 0].max()
    assert second[:, 1:] == pytest.approx(first[:, 1:], abs=1e-9)


@pytest.mark.parametrize("kernel", [KERNEL, Kernel(0.0, 0.9, 1.0, 0.05), Parameters().kernel])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_memory_is_that_of_a_loop_in_plain_python(seed: int, kernel: Kernel) -> None:
    examples = few(seed, 30)
    parameters = replace(HEARD, kernel=kernel)
    memory = build_memory(examples, parameters)
    expected = plain_memory(examples, parameters)
    assert memory.keys == tuple(examples.keys)
    assert any(len(row) < int((examples.lineages[i] >= 0).sum()) for i, row in enumerate(expected))
    for i, row in enumerate(expected):
        assert memory.before(i) == pytest.approx(row, abs=1e-5)


def test_chances_before_votes_are_chances() -> None:
    """What they lack to 1 is that of passages of whom neighbours speak, and which are no candidates."""
    examples = few(4, 30)
    found = before_votes(examples, HEARD)
    total = found.sum(axis=1)
    assert (total <= 1.0 + 1e-9).all()
    assert (total < 0.9).any()
    assert (found >= 0.0).all()
    assert not found[examples.lineages < 0].any()


def test_chances_before_the_votes_do_not_hold_a_query_s_own_votes() -> None:
    """Neighbours pass on what they heard; a query that has none has its prior, whatever its votes."""
    examples = few(1)
    lonely = 9
    vectors = np.concatenate([examples.vectors, np.zeros((10, 1), np.float32)], axis=1)
    vectors[lonely] = np.eye(vectors.shape[1])[-1]
    changed = examples.net.copy()
    changed[lonely, 0] += 3.0
    changed[lonely, 1:] -= examples.present[lonely, 1:]
    first = replace(examples, vectors=vectors)
    second = replace(first, **of_net(changed))
    prior = build_memory(first, OFF)
    one, other = build_memory(first, HEARD), build_memory(second, HEARD)
    both = set(one.before(lonely)) & set(other.before(lonely))
    assert int(first.lineages[lonely, 0]) in both
    for lineage in both:
        assert one.before(lonely)[lineage] == other.before(lonely)[lineage]
        assert one.before(lonely)[lineage] == pytest.approx(prior.before(lonely)[lineage])


@pytest.mark.parametrize("n", [2, 3])
def test_votes_do_not_come_back_to_their_query(n: int) -> None:
    """Of two neighbours neither hears its own votes; nor do the ends of a chain of three."""
    rng = np.random.default_rng(0)
    angles = np.arange(n) * 0.7  # neighbours: cosine 0.76; ends of the chain: 0.17
    pair = replace(
        few(6, n),
        vectors=np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32),
        features=np.zeros((n, WIDTH, len(FEATURES)), np.float32),
        tenants=np.zeros(n, np.int64),
    )
    parameters = replace(HEARD, kernel=Kernel(0.3, 0.9, 1.0, 0.3), rates=even(0.4))
    first = before_votes(pair, parameters)
    for row in range(n):
        changed = pair.net.copy()
        changed[row] = np.where(pair.present[row], rng.integers(-1, 3, WIDTH), 0)
        second = before_votes(replace(pair, **of_net(changed)), parameters)
        assert second[row] == pytest.approx(first[row], abs=1e-9)
        others = [i for i in range(n) if abs(i - row) == 1]
        assert np.abs(second[others] - first[others]).max() > 0.01


def test_votes_on_a_query_move_the_chances_of_its_neighbours() -> None:
    examples = few(1)
    praised = examples.net.copy()
    praised[1, 0] += 5.0
    before, after = (
        build_memory(e, HEARD).before(2)[int(examples.lineages[2, 0])]
        for e in (examples, replace(examples, **of_net(praised)))
    )
    assert examples.tenants[1] == examples.tenants[2]
    assert after > before + 0.05


@pytest.mark.parametrize(
    "parameters", [OFF, replace(HEARD, rates=even(NOISE_LIMIT + 1e-4))], ids=str
)
def test_without_neighbours_the_memory_is_the_prior(parameters: Parameters) -> None:
    """As it is where votes are too often wrong to be heard."""
    examples = few(2)
    memory = build_memory(examples, parameters)
    for i, row in enumerate(plain_memory(examples, OFF)):
        assert memory.before(i) == pytest.approx(row, abs=1e-6)
    heard = build_memory(examples, replace(HEARD, rates=even(NOISE_LIMIT)))
    assert any(heard.before(i) != memory.before(i) for i in range(len(examples)))


def test_one_query_and_none_have_their_prior() -> None:
    one = few(3).at(np.array([5]))
    (row,) = plain_memory(one, OFF)
    assert build_memory(one, HEARD).before(0) == pytest.approx(row, abs=1e-6)
    none = build_memory(few(3).at(np.empty(0, dtype=np.int64)), HEARD)
    assert (none.keys, none.offsets.tolist()) == ((), [0])


def test_small_chances_are_not_said_unless_votes_call_them_helpful() -> None:
    examples = few(5)
    before = before_votes(examples, OFF)
    prior, net = plain_rows(examples, OFF)
    odds = (1 - OFF.rates.noise) / OFF.rates.noise
    said = neighbour_chances_of(examples, before, OFF)
    left_out = 0
    for i, row in enumerate(prior):
        expected = plain_after(row, net[i], odds)
        left_out += len(row) - len(expected)
        for c, lineage in enumerate(examples.lineages[i].tolist()):
            assert said[i, c] == pytest.approx(expected.get(lineage, 0.0), abs=1e-9)
    assert left_out > 0


def test_the_reverse_of_a_link_is_the_one_between_the_same_two_candidates() -> None:
    rng = np.random.default_rng(4)
    n, width, k = 12, 5, 4
    rows = np.stack([rng.permutation(np.delete(np.arange(n), i))[:k] for i in range(n)])
    near = Nearest(rows, np.ones((n, k), np.float32))

    def some(share: float) -> Links:
        """Links in the order that `links` has, each source's candidate in a slot once."""
        slot, of = np.nonzero(rng.random((n * k, width)) < share)
        to = slot // k * width + rng.integers(0, width, len(slot))
        return Links(to, rows.ravel()[slot] * width + of, slot)

    for share in (0.0, 0.3, 0.9):
        one, other = some(0.7), some(share)
        found = propagate._reverse(one, other, propagate._back(near), width)
        pairs = list(zip(other.to.tolist(), other.of.tolist(), strict=True))
        expected = [
            pairs.index(pair) if pair in pairs else -1
            for pair in zip(one.of.tolist(), one.to.tolist(), strict=True)
        ]
        assert found.tolist() == expected
    assert max(expected) > 0 > min(expected)
