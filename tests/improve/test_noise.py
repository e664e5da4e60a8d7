"""The share of wrong votes, where the shipped weights order passages badly: users do not err because
a prior does."""

import numpy as np
import pytest

from rag_flywheel.improve.examples import Examples
from rag_flywheel.improve.fit import calibrated_parameters, propose
from rag_flywheel.rank.features import FEATURES
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.records import QueryKey

SHIPPED = Parameters()
WIDTH, DENSE, WINDOW = 10, FEATURES.index("dense"), FEATURES.index("window")


def contrary(seed: int, n: int, noise: float) -> Examples:
    """Votes on two passages a query: the answer, and one that the shipped weights put above it.

    `window`, which weighs nothing as shipped, has most answers and no other passage. Queries lie in
    all directions, so that only weights explain the votes.
    """
    rng = np.random.default_rng(seed)
    features = np.zeros((n, WIDTH, len(FEATURES)), dtype=np.float32)
    features[:, :, DENSE] = rng.uniform(0.0, 0.2, (n, WIDTH))
    features[:, 0, DENSE] = 0.5
    features[:, 1, DENSE] = 0.5 + 0.4 * rng.random(n)
    features[:, 0, WINDOW] = rng.random(n) < 0.8
    is_answer, seen = np.arange(WIDTH) == 0, np.arange(WIDTH) < 2
    says_yes = (rng.random((n, WIDTH)) >= noise) == is_answer
    helpful = (seen & says_yes).astype(np.float64)
    harmful = (seen & ~says_yes).astype(np.float64)
    vectors = rng.normal(size=(n, 24)).astype(np.float32)
    return Examples(
        [QueryKey(i.to_bytes(16, "big"), None) for i in range(n)],
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        np.arange(n * WIDTH).reshape(n, WIDTH),
        features,
        helpful,
        harmful,
        np.zeros(n, dtype=np.int64),
    )


@pytest.mark.parametrize("noise", [0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("n", [300, 600])
def test_good_votes_are_not_called_wrong_because_the_prior_is(n: int, noise: float) -> None:
    """They were: the noise was 0.499 at all of these under the shipped weights, since votes tossed by
    coin are likelier than votes that go against a prior which must not change its order."""
    examples = contrary(1, n, noise)
    proposal = propose(examples, SHIPPED)
    assert proposal.parameters is not None, proposal.why
    assert proposal.parameters.weights["window"] > 1.0
    for live in (SHIPPED, proposal.parameters):
        heard = calibrated_parameters(examples, live)
        assert heard.rates.noise == pytest.approx(noise, abs=0.05)
        assert heard.memory.neighbours > 0
    assert (
        calibrated_parameters(examples, SHIPPED).sharpness < 0.7
    )  # the prior is what is not relied on


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_votes_in_five_that_are_wrong_are_seen_as_that(seed: int) -> None:
    """Weights far from the shipped ones are no sign that votes were tossed by coin, so what holds the
    weights near them has no say in which of the two it was."""
    examples = contrary(seed, 1_500, 0.4)
    assert propose(examples, SHIPPED).parameters is not None
    assert calibrated_parameters(examples, SHIPPED).rates.noise == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("n", [600, 1_500])
def test_coins_are_seen_as_coins_whatever_the_prior(n: int, seed: int) -> None:
    examples = contrary(seed, n, 0.5)
    proposal = propose(examples, SHIPPED)
    assert proposal.parameters is None
    assert "of votes look wrong: nothing is learned from them" in proposal.why
    assert calibrated_parameters(examples, SHIPPED).memory.neighbours == 0
