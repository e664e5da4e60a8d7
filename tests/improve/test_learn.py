"""What is learned from made votes: when parameters change, when the memory is on, what is in it."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from rag_flywheel.improve.examples import Examples, Floats, Ints
from rag_flywheel.improve.learn import LEAST_QUERIES, Learned, learn, remember
from rag_flywheel.rank.features import FEATURES
from rag_flywheel.rank.memory import Key, Memory
from rag_flywheel.rank.parameters import Kernel, Parameters, parameters_text

SHIPPED = Parameters()
OFF = replace(SHIPPED, kernel=replace(SHIPPED.kernel, neighbours=0))
WIDTH = 6
WINDOW = FEATURES.index("window")


def key(i: int) -> Key:
    return i.to_bytes(16, "big"), None


def units(vectors: Floats) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found.astype(np.float32)


def made(vectors: Floats, lineages: Ints, features: Floats, yes: Floats, no: Floats) -> Examples:
    n = len(vectors)
    return Examples(
        [key(i) for i in range(n)],
        units(vectors),
        lineages.astype(np.int64),
        features.astype(np.float32),
        yes - no,
        yes.sum(axis=1),
        no.sum(axis=1),
        np.zeros(n, dtype=np.int64),
    )


def voted(rng: np.random.Generator, is_answer: Floats, noise: float) -> tuple[Floats, Floats]:
    """Votes on about two thirds of the passages, be they the answer or not."""
    seen = rng.random(is_answer.shape) < 0.7
    says_yes = (rng.random(is_answer.shape) >= noise) == (is_answer > 0)
    return (seen & says_yes).astype(np.float64), (seen & ~says_yes).astype(np.float64)


def clustered(seed: int, *, clusters: int = 30, each: int = 6, noise: float = 0.2) -> Examples:
    """Clusters of alike queries with one set of passages; the answer, in place 0, has the least
    cosine and BM25 of them."""
    rng = np.random.default_rng(seed)
    n = clusters * each
    cluster = np.arange(n) // each
    vectors = rng.normal(size=(clusters, 24))[cluster] + 0.15 * rng.normal(size=(n, 24))
    lineages = cluster[:, None] * WIDTH + np.arange(WIDTH)
    features = np.zeros((n, WIDTH, len(FEATURES)))
    features[:, :, :2] = rng.uniform(0.11, 0.2, (n, WIDTH, 2))
    features[:, 0, :2] = 0.1
    is_answer = np.tile(np.arange(WIDTH) == 0, (n, 1)).astype(np.float64)
    return made(vectors, lineages, features, *voted(rng, is_answer, noise))


def unrelated(seed: int, *, n: int = 200, passages: int = 30) -> Examples:
    """Queries in all directions, whose answers are any of a few passages: neighbours say nothing."""
    rng = np.random.default_rng(seed)
    lineages = rng.permuted(np.tile(np.arange(passages), (n, 1)), axis=1)[:, :WIDTH]
    features = np.zeros((n, WIDTH, len(FEATURES)))
    features[:, :, :2] = rng.uniform(0.0, 0.5, (n, WIDTH, 2))
    z = 6.8 * features[:, :, 0] + 2.4 * features[:, :, 1]
    answers = (z + rng.gumbel(size=z.shape)).argmax(axis=1)
    is_answer = (np.arange(WIDTH) == answers[:, None]).astype(np.float64)
    return made(rng.normal(size=(n, 24)), lineages, features, *voted(rng, is_answer, 0.2))


def tossed(seed: int) -> Examples:
    """Votes by coin toss, on queries that have neighbours."""
    rng = np.random.default_rng(seed)
    examples = clustered(seed)
    seen, yes = rng.random(examples.net.shape) < 0.6, rng.random(examples.net.shape) < 0.5
    helpful, harmful = (seen & yes).astype(np.float64), (seen & ~yes).astype(np.float64)
    return replace(
        examples,
        net=helpful - harmful,
        n_helpful=helpful.sum(axis=1),
        n_harmful=harmful.sum(axis=1),
    )


def windowed(seed: int, n: int, answers_have_it: Floats) -> Examples:
    """Unrelated queries, one passage of each with `window` 1: the answer where it is so said."""
    rng = np.random.default_rng(seed)
    lineages = np.arange(n * WIDTH).reshape(n, WIDTH)
    features = np.zeros((n, WIDTH, len(FEATURES)))
    features[:, :, :2] = rng.uniform(0.0, 0.5, (n, WIDTH, 2))
    features[:, 0, WINDOW] = 1.0
    answers = np.where(answers_have_it, 0, rng.integers(1, WIDTH, n))
    is_answer = (np.arange(WIDTH) == answers[:, None]).astype(np.float64)
    return made(rng.normal(size=(n, 24)), lineages, features, *voted(rng, is_answer, 0.1))


def tenth(n: int) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = np.arange(n) % 10 == 3
    return found


def none(n: int) -> npt.NDArray[np.bool_]:
    return np.zeros(n, dtype=np.bool_)


def memory_bytes(memory: Memory) -> tuple[object, ...]:
    return memory.keys, *(a.tobytes() for a in (memory.offsets, memory.lineages, memory.chances))


@pytest.fixture(scope="module")
def planted() -> tuple[Examples, Learned]:
    examples = clustered(1, each=10)
    return examples, learn(examples, tenth(len(examples)), OFF)


@pytest.mark.parametrize("n", [0, 1, LEAST_QUERIES - 1])
def test_with_few_queries_parameters_are_kept_and_the_memory_is_made(n: int) -> None:
    examples = clustered(2).at(np.arange(n))
    learned = learn(examples, none(n), SHIPPED)
    assert learned.parameters == SHIPPED
    assert learned.memory.keys == tuple(examples.keys)
    assert len(learned.memory.offsets) == n + 1
    assert learned.scores == {"n_fitted": n}
    assert learned.why.startswith(f"not fitted: {n} of the 64")


def test_queries_held_out_do_not_count_to_those_it_takes() -> None:
    examples = clustered(2).at(np.arange(LEAST_QUERIES + 5))
    held_out = np.arange(len(examples)) < 6
    learned = learn(examples, held_out, SHIPPED)
    assert learned.parameters == SHIPPED
    assert learned.memory.keys == tuple(examples.keys)
    assert learn(examples, held_out & (np.arange(len(examples)) > 0), SHIPPED).parameters != SHIPPED


@pytest.mark.parametrize("seed", [1, 2])
def test_votes_by_coin_toss_switch_the_memory_off_and_move_no_weight(seed: int) -> None:
    examples = tossed(seed)
    learned = learn(examples, tenth(len(examples)), SHIPPED)
    assert learned.parameters == OFF
    assert "look wrong" in learned.why
    assert memory_bytes(learned.memory) == memory_bytes(remember(examples, learned.parameters))


def test_a_planted_memory_is_found(planted: tuple[Examples, Learned]) -> None:
    _, learned = planted
    found = learned.parameters
    assert found.source == "fitted"
    assert found.kernel.neighbours == 32
    assert found.noise == pytest.approx(0.2, abs=0.06)
    assert learned.why == "fitted to 270 past queries"
    assert learned.scores["n_fitted"] == 270
    assert learned.scores["n_held_out"] == 30
    assert learned.scores["memory_gain"] > 0.1
    assert learned.scores["held_out_gain"] > learned.scores["held_out_error"] > 0


def test_chances_of_a_planted_memory_favour_the_answer(planted: tuple[Examples, Learned]) -> None:
    examples, learned = planted
    alone = remember(examples, OFF)
    right, right_alone = [], []
    for i in range(len(examples)):
        before = learned.memory.before(i)
        right.append(before.get(int(examples.lineages[i, 0]), 0.0) == max(before.values()))
        plain = alone.before(i)
        right_alone.append(plain[int(examples.lineages[i, 0])] == max(plain.values()))
    assert sum(right_alone) == 0
    assert sum(right) > 0.9 * len(right)


def test_where_neighbours_say_nothing_the_memory_is_off() -> None:
    found = []
    for seed in range(5):
        examples = unrelated(seed)
        found.append(learn(examples, none(len(examples)), SHIPPED).parameters.kernel.neighbours)
    assert found.count(0) >= 3, found


@pytest.mark.parametrize(("held_out_have_it", "taken"), [(0.0, False), (1.0, True)])
def test_votes_held_out_may_veto_new_parameters(held_out_have_it: float, taken: bool) -> None:
    held_out = tenth(200)
    examples = windowed(1, 200, np.where(held_out, held_out_have_it, 1.0))
    learned = learn(examples, held_out, SHIPPED)
    assert (learned.scores["held_out_gain"] > 0) == taken
    if taken:
        assert learned.parameters.weights["window"] > 1.0
        assert learned.parameters.source == "fitted"
    else:
        assert learned.parameters == SHIPPED
        assert "held out are clearly less likely" in learned.why
    assert memory_bytes(learned.memory) == memory_bytes(remember(examples, learned.parameters))


def test_what_is_kept_after_a_veto_are_the_parameters_in_use_not_the_shipped_ones() -> None:
    held_out = tenth(200)
    kept = replace(
        SHIPPED, weights={**SHIPPED.weights, "title": 0.5}, noise=0.25, kernel=Kernel(0.6)
    )
    examples = windowed(1, 200, np.where(held_out, 0.0, 1.0))
    assert learn(examples, held_out, kept).parameters == kept


def test_votes_held_out_are_not_fitted_to() -> None:
    """Whatever they say, as long as they do not veto, the parameters are the same."""
    examples = clustered(3)
    held_out = tenth(len(examples))
    silent = replace(
        examples,
        net=np.where(held_out[:, None], 0.0, examples.net),
        n_helpful=np.where(held_out, 0.0, examples.n_helpful),
        n_harmful=np.where(held_out, 0.0, examples.n_harmful),
    )
    first, second = learn(examples, held_out, SHIPPED), learn(silent, held_out, SHIPPED)
    assert first.parameters.source == second.parameters.source == "fitted"
    assert first.parameters == second.parameters


def test_the_same_votes_always_teach_the_same(planted: tuple[Examples, Learned]) -> None:
    examples, first = planted
    again = learn(examples.at(np.arange(len(examples))), tenth(len(examples)), OFF)
    assert parameters_text(again.parameters) == parameters_text(first.parameters)
    assert memory_bytes(again.memory) == memory_bytes(first.memory)
    assert (again.why, again.scores) == (first.why, first.scores)


def plain_memory(examples: Examples, parameters: Parameters) -> list[dict[int, float]]:
    """`remember` in plain Python, by passage, for at most 33 queries: all others are neighbours."""
    kernel, odds = parameters.kernel, (1 - parameters.noise) / parameters.noise
    prior: list[dict[int, float]] = []
    net: list[dict[int, float]] = []
    for i in range(len(examples)):
        row: dict[int, float] = {}
        votes: dict[int, float] = {}
        for c, lineage in enumerate(examples.lineages[i].tolist()):
            if lineage < 0:
                continue
            z = 0.0
            for name, value in zip(FEATURES, examples.features[i, c].tolist(), strict=True):
                z += parameters.weights[name] * value
            row[lineage] = float(np.exp(z))
            votes[lineage] = float(examples.net[i, c])
        prior.append({p: e / sum(row.values()) for p, e in row.items()})
        net.append(votes)
    before = prior
    for _ in range(3 if kernel.neighbours else 0):
        after = []
        for i, chances in enumerate(before):
            joint = {p: chance * odds ** net[i][p] for p, chance in chances.items()}
            share = {p: j / sum(joint.values()) for p, j in joint.items()}
            after.append({p: s for p, s in share.items() if s >= 0.01 or net[i][p] > 0})
        heard: list[dict[int, float]] = []
        for i in range(len(examples)):
            total = dict.fromkeys(prior[i], 0.0)
            for j in range(len(examples)):
                if i == j or examples.tenants[i] != examples.tenants[j]:
                    continue
                cosine = min(float(examples.vectors[i] @ examples.vectors[j]), 1.0)
                weight = max(0.0, (cosine - kernel.theta) / (1 - kernel.theta)) ** kernel.gamma
                for p in total:
                    total[p] += weight * after[j].get(p, 0.0)
            heard.append(total)
        before = [
            {p: (kernel.n0 * prior[i][p] + s) / (kernel.n0 + sum(h.values())) for p, s in h.items()}
            for i, h in enumerate(heard)
        ]
    return [
        {p: chance for p, chance in row.items() if chance >= 0.002 or net[i][p]}
        for i, row in enumerate(before)
    ]


def few(seed: int) -> Examples:
    """Ten queries in three clusters, of two tenants, with some candidates missing."""
    rng = np.random.default_rng(seed)
    examples = clustered(seed, clusters=3, each=4).at(np.arange(10))
    missing = rng.random(examples.lineages.shape) < 0.2
    missing[:, 0] = False
    features = examples.features * rng.choice([1, 8], size=(10, WIDTH, 1))
    return replace(
        examples,
        lineages=np.where(missing, -1, examples.lineages),
        net=np.where(missing, 0.0, examples.net),
        features=features.astype(np.float32),
        tenants=(np.arange(10) % 7 == 0).astype(np.int64),
    )


@pytest.mark.parametrize(
    "kernel", [Kernel(0.3, 0.9, 2.0, 0.5), Kernel(0.0, 0.9, 1.0, 0.05), Kernel()]
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_memory_is_that_of_a_loop_in_plain_python(seed: int, kernel: Kernel) -> None:
    examples = few(seed)
    parameters = replace(SHIPPED, kernel=kernel)
    memory = remember(examples, parameters)
    expected = plain_memory(examples, parameters)
    assert any(len(row) < int((examples.lineages[i] >= 0).sum()) for i, row in enumerate(expected))
    for i, row in enumerate(expected):
        assert memory.before(i) == pytest.approx(row, abs=1e-5)


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
    second = replace(first, net=changed)
    parameters = replace(SHIPPED, kernel=Kernel(0.3, 0.9, 2.0, 0.5))
    prior = remember(first, replace(parameters, kernel=replace(parameters.kernel, neighbours=0)))
    one, other = remember(first, parameters), remember(second, parameters)
    both = set(one.before(lonely)) & set(other.before(lonely))
    assert int(first.lineages[lonely, 0]) in both
    for lineage in both:
        assert one.before(lonely)[lineage] == other.before(lonely)[lineage]
        assert one.before(lonely)[lineage] == pytest.approx(prior.before(lonely)[lineage])


def test_without_neighbours_the_memory_is_the_prior() -> None:
    examples = few(2)
    for i, row in enumerate(plain_memory(examples, OFF)):
        assert remember(examples, OFF).before(i) == pytest.approx(row, abs=1e-6)
