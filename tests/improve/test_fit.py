"""What made votes speak for: when parameters are proposed, which ones, and what votes are worth."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from rag_flywheel.evaluate.held_out import chances_of, judge_held_out
from rag_flywheel.improve import fit, kernel
from rag_flywheel.improve.examples import Examples, Floats, Ints, nearest
from rag_flywheel.improve.fit import LEAST_QUERIES, Proposal, calibrated_parameters, propose
from rag_flywheel.improve.propagate import build_memory
from rag_flywheel.rank.features import FEATURES
from rag_flywheel.rank.parameters import Kernel, Parameters, parameters_text
from rag_flywheel.rank.posterior import NOISE_LIMIT, Rates
from rag_flywheel.records import QueryKey

SHIPPED = Parameters()
OFF = replace(SHIPPED, kernel=replace(SHIPPED.kernel, neighbours=0))
FITTED = replace(
    SHIPPED,
    weights={**SHIPPED.weights, "title": 0.5},
    kernel=Kernel(0.6, 0.9, 2.0, 0.5),
    candidate_spread=5.0,
    source="fitted",
)
WIDTH = 6
WINDOW = FEATURES.index("window")


def key(i: int) -> QueryKey:
    return QueryKey(i.to_bytes(16, "big"), None)


def likelihoods(test: Examples, others: Examples, parameters: Parameters) -> Floats:
    chances = chances_of(test, others, parameters)
    return judge_held_out(test, chances, parameters).log_likelihood


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
        yes,
        no,
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
        helpful=helpful,
        harmful=harmful,
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


def taken(proposal: Proposal) -> Parameters:
    assert proposal.parameters is not None, proposal.why
    return proposal.parameters


@pytest.fixture(scope="module")
def planted() -> tuple[Examples, Proposal]:
    examples = clustered(1, each=10)
    return examples, propose(examples, OFF)


@pytest.mark.parametrize("n", [0, 1, LEAST_QUERIES - 1])
@pytest.mark.parametrize("kept", [SHIPPED, FITTED], ids=["shipped", "fitted"])
def test_with_few_queries_nothing_is_proposed_and_votes_are_heard_as_before(
    n: int, kept: Parameters
) -> None:
    examples = clustered(2).at(np.arange(n))
    proposal = propose(examples, kept)
    assert proposal.parameters is None
    assert proposal.scores == {"n_fitted": n}
    assert proposal.why == f"not fitted: {n} of the 64 past queries it takes"
    assert calibrated_parameters(examples, kept) == kept


def test_as_many_queries_as_it_takes_are_enough() -> None:
    examples = clustered(2).at(np.arange(LEAST_QUERIES))
    assert taken(propose(examples, SHIPPED)).source == "fitted"
    assert calibrated_parameters(examples, SHIPPED) != SHIPPED


@pytest.mark.parametrize("seed", [1, 2])
def test_votes_by_coin_toss_propose_nothing_and_are_not_heard(seed: int) -> None:
    examples = tossed(seed)
    proposal = propose(examples, SHIPPED)
    assert proposal.parameters is None
    assert "of votes look wrong: nothing is learned from them" in proposal.why
    heard = calibrated_parameters(examples, SHIPPED)
    assert heard.rates.noise > NOISE_LIMIT
    assert replace(heard, rates=SHIPPED.rates, sharpness=1.0) == SHIPPED
    assert heard.memory.neighbours == 0 < heard.kernel.neighbours
    memory = build_memory(examples, heard)
    plain = build_memory(examples, replace(heard, rates=SHIPPED.rates, kernel=OFF.kernel))
    assert memory.chances.tobytes() == plain.chances.tobytes()


def test_a_planted_memory_is_found(planted: tuple[Examples, Proposal]) -> None:
    """Though the one in use is off."""
    examples, proposal = planted
    proposed = taken(proposal)
    assert (proposed.source, proposed.sharpness) == ("fitted", 1.0)
    assert proposal.why == "fitted to 300 past queries"
    assert proposal.scores == {"n_fitted": 300, "noise": pytest.approx(0.2, abs=0.06)}
    for parameters in (OFF, proposed):
        found = calibrated_parameters(examples, parameters)
        assert found.kernel.neighbours == 32
        assert found.kernel.n0 < 1.0
        assert found.rates.noise == pytest.approx(0.2, abs=0.06)


def test_a_planted_memory_makes_held_out_votes_likelier() -> None:
    examples = clustered(1, each=10)
    test, others = (examples.at(np.flatnonzero(part)) for part in (tenth(300), ~tenth(300)))
    found = calibrated_parameters(others, SHIPPED)
    gain = likelihoods(test, others, found) - likelihoods(
        test, others, replace(found, kernel=OFF.kernel)
    )
    assert gain.mean() > 2 * gain.std(ddof=1) / len(gain) ** 0.5 > 0


def test_chances_of_a_planted_memory_favour_the_answer(
    planted: tuple[Examples, Proposal],
) -> None:
    examples, _ = planted
    memory, alone = (
        build_memory(examples, calibrated_parameters(examples, SHIPPED)),
        build_memory(examples, OFF),
    )
    right, right_alone = [], []
    for i in range(len(examples)):
        before = memory.before(i)
        right.append(before.get(int(examples.lineages[i, 0]), 0.0) == max(before.values()))
        plain = alone.before(i)
        right_alone.append(plain[int(examples.lineages[i, 0])] == max(plain.values()))
    assert sum(right_alone) == 0
    assert sum(right) > 0.9 * len(right)


def test_where_neighbours_say_nothing_they_are_hardly_heard() -> None:
    """The memory is for the very same query, or as mild as it is shipped; other votes are no less
    likely with it."""
    harm, same = [], []
    for seed in range(5):
        test, others = unrelated(seed), unrelated(seed + 100)
        found = calibrated_parameters(others, SHIPPED)
        same.append(found.kernel.theta > 0.9)
        assert same[-1] or found.kernel.n0 > 3.0
        off = replace(found, kernel=OFF.kernel)
        with_it, without = (likelihoods(test, others, p) for p in (found, off))
        harm.append(float((without - with_it).mean()))
    assert any(same)
    assert max(harm) < 0.001


def test_a_weight_that_votes_speak_for_is_proposed() -> None:
    found = taken(propose(windowed(1, 200, np.ones(200)), SHIPPED))
    assert found.weights["window"] > 1.0
    other = taken(propose(windowed(5, 200, np.zeros(200)), SHIPPED))
    assert other.weights["window"] < 0.2


def test_the_weights_do_not_hang_on_the_parameters_in_use() -> None:
    """Of those only what is no matter of order is taken over."""
    examples = clustered(3)
    for kept in (SHIPPED, FITTED, replace(FITTED, rates=Rates(0.3, 0.5), sharpness=3.0)):
        found = taken(propose(examples, kept))
        assert found.weights == taken(propose(examples, SHIPPED)).weights
        assert replace(found, weights=kept.weights, source=kept.source) == replace(
            kept, sharpness=1.0
        )


def test_only_the_newest_queries_are_fitted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest here are by coin toss, and too many for anything else to be heard."""
    most = 400
    monkeypatch.setattr(fit, "MOST_QUERIES", most)
    new, old = clustered(4), tossed(5)
    rows = np.arange(most) % len(new)
    many = Examples(
        [key(i) for i in range(most + len(old))],
        *(
            np.concatenate([getattr(old, name), getattr(new, name)[rows]])
            for name in ("vectors", "lineages", "features", "helpful", "harmful")
        ),
        np.zeros(most + len(old), np.int64),
    )
    newest = many.at(np.arange(len(old), len(many)))
    assert calibrated_parameters(many, FITTED) == calibrated_parameters(newest, FITTED)
    assert calibrated_parameters(many, FITTED) != calibrated_parameters(old, FITTED)


def test_the_same_votes_always_propose_the_same(planted: tuple[Examples, Proposal]) -> None:
    examples, first = planted
    again = propose(examples.at(np.arange(len(examples))), OFF)
    assert parameters_text(taken(again)) == parameters_text(taken(first))
    assert (again.why, again.scores) == (first.why, first.scores)


@pytest.mark.parametrize("noise", [0.05, 0.2, 0.3])
@pytest.mark.parametrize("kept", [SHIPPED, FITTED], ids=["shipped", "fitted"])
def test_listening_finds_how_often_votes_are_wrong(noise: float, kept: Parameters) -> None:
    found = calibrated_parameters(clustered(6, clusters=60, noise=noise), kept)
    assert found.rates.noise == pytest.approx(noise, abs=0.03)
    assert found.answers is None
    rates = found.rates.false_helpful, found.rates.false_harmful
    assert rates == tuple(round(rate, 4) for rate in rates)
    assert found.sharpness == round(found.sharpness, 4)


@pytest.mark.parametrize("kept", [SHIPPED, FITTED], ids=["shipped", "fitted"])
def test_listening_changes_no_order_of_the_prior(kept: Parameters) -> None:
    examples = clustered(7)
    found = calibrated_parameters(examples, kept)
    assert found != kept
    assert replace(found, rates=kept.rates, sharpness=1.0, kernel=kept.kernel) == kept
    n = len(FEATURES)
    assert found.vector[:n] == pytest.approx(found.sharpness * kept.vector[:n])
    assert found.vector[n:].tolist() == kept.vector[n:].tolist()
    assert (
        calibrated_parameters(examples, found) == found
    )  # nor does it hang on what it said before


def test_how_sure_the_prior_is_comes_from_the_votes() -> None:
    """Answers of `unrelated` are drawn by the shipped weights, so half of them are to be doubled."""
    examples = unrelated(1, n=600)
    assert calibrated_parameters(examples, SHIPPED).sharpness == pytest.approx(1.0, abs=0.3)
    half = replace(SHIPPED, weights={name: w / 2 for name, w in SHIPPED.weights.items()})
    whole = calibrated_parameters(examples, SHIPPED).vector
    assert calibrated_parameters(examples, half).vector == pytest.approx(whole, rel=0.01)


def test_noise_never_falls_to_0() -> None:
    """Where all votes agree, the next one may still be wrong."""
    rates = calibrated_parameters(clustered(8, noise=0.0), FITTED).rates
    assert min(rates.false_helpful, rates.false_harmful) == 0.001


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7, 0.9])
@pytest.mark.parametrize("n", [64, 200])
def test_users_who_call_a_share_of_hits_good_whatever_they_are_teach_nothing(
    n: int, share: float
) -> None:
    """With two rates of wrong votes they looked as if mostly right: a tenth or a third of "helpful"
    votes is what one answer among a few hits gives as well."""
    for seed in range(3):
        rng, plain = np.random.default_rng(seed), unrelated(seed, n=n)
        yes = rng.random(plain.lineages.shape) < share
        votes = plain.voted
        lazy = replace(plain, helpful=(votes & yes) * 1.0, harmful=(votes & ~yes) * 1.0)
        assert propose(lazy, SHIPPED).parameters is None
        found = calibrated_parameters(lazy, SHIPPED)
        assert found.memory.neighbours == 0
        assert found.rates.of_votes(3, 0) == 0.0


def test_neighbours_of_the_same_need_are_those_with_a_shared_answer() -> None:
    """Left out, they show what the memory does to a question whose need nobody asked about."""
    plain = clustered(1, clusters=4, each=3, noise=0.0)
    folds = np.arange(len(plain))
    near = nearest(plain, plain, folds, folds)
    others = kernel.of_other_needs(near, plain)
    cluster = np.arange(len(plain)) // 3
    helped = plain.net[:, 0] > 0  # no vote is wrong: the answer is in place 0
    for i, (rows, old, new) in enumerate(zip(near.rows, near.cosines, others.cosines, strict=True)):
        same = (cluster[rows] == cluster[i]) & helped[rows] & helped[i]
        assert (new[same] == -2.0).all()
        assert (new[~same] == old[~same]).all()


def test_a_memory_that_would_mislead_new_needs_stays_milder(
    planted: tuple[Examples, Proposal], monkeypatch: pytest.MonkeyPatch
) -> None:
    examples, _ = planted
    kernels = []
    for share in (0.0, 0.3):
        monkeypatch.setattr(kernel, "NEW_NEEDS", share)
        kernels.append(calibrated_parameters(examples, OFF).kernel)
    assert kernels[1].n0 > kernels[0].n0


def test_with_several_answers_what_nobody_was_shown_is_paid_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Users vote on what comes first: where that is right, a memory that lifts everything its
    neighbours speak of looked as good as one that lifts the right passages."""
    plain = clustered(9, clusters=20, each=8, noise=0.1)
    shown = np.arange(WIDTH)[None, :] < 2  # the answer, and one more
    votes = replace(plain, helpful=plain.helpful * shown, harmful=plain.harmful * shown)
    found = replace(SHIPPED, answers=2.0, rates=Rates(0.1, 0.1))
    strengths = []
    for unshown in (0.0, 0.03, 0.3):
        monkeypatch.setattr(kernel, "UNSHOWN", unshown)
        strengths.append(kernel.likeliest_kernel(votes, found)[0].n0)
    assert strengths == sorted(strengths)
    assert strengths[-1] > strengths[0]


@pytest.mark.parametrize("missing", ["helpful", "harmful"])
def test_votes_of_one_kind_alone_go_on_counting_and_nothing_is_fitted_to_them(missing: str) -> None:
    """Users who have a thumb up alone do not tell how often it is wrong."""
    examples = clustered(1, each=10)
    nothing = np.zeros_like(examples.helpful)
    only = replace(examples, **{missing: nothing})
    proposal = propose(only, SHIPPED)
    assert proposal.parameters is None and "say the same" in proposal.why
    found = calibrated_parameters(only, FITTED)
    assert (found.rates, found.kernel, found.weights) == (Rates(), SHIPPED.kernel, FITTED.weights)
    assert propose(examples, SHIPPED).parameters is not None
