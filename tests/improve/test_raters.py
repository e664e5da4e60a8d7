"""The accuracy of voters, from simulated ones whose accuracy is known."""

import numpy as np
import pytest

from rag_flywheel.improve.raters import (
    KNOWN_FLOOR,
    MOST_WEIGHT,
    Ballots,
    accuracy_of,
)


def cast(
    accuracies: list[tuple[float, float]],
    n_votes: int,
    rng: np.random.Generator,
    *,
    n_passages: int = 600,
    share_right: float = 0.2,
    tells: float = 0.9,
) -> tuple[Ballots, np.ndarray]:
    """Votes of voters with these (sensitivity, specificity), each on passages drawn at random.

    tells: how well the chances tell right from wrong, from 0.5 (not at all) to 1.
    """
    right = rng.random(n_passages) < share_right
    guess = np.where(rng.random(n_passages) < tells, right, ~right)
    odds = share_right / (1 - share_right) * np.where(guess, 1, -1)
    chances = np.clip(np.where(guess, 0.7, 0.08) + 0.0 * odds, 0.01, 0.99)
    voter = np.repeat(np.arange(len(accuracies)), n_votes)
    passage = np.concatenate([rng.permutation(n_passages)[:n_votes] for _ in accuracies])
    sens, spec = np.array(accuracies).T
    says = rng.random(len(voter))
    helpful = np.where(right[passage], says < sens[voter], says >= spec[voter])
    none = np.full(n_passages, np.nan)
    return Ballots(voter, passage, helpful, np.ones(len(voter)), chances, none), right


def test_ordinary_voters_weigh_one() -> None:
    rng = np.random.default_rng(1)
    ballots, _ = cast([(0.8, 0.8)] * 40, 50, rng)
    weights = accuracy_of(ballots).weight
    assert np.mean(weights == 1.0) > 0.85
    assert 0.7 < weights.min() <= weights.max() < 1.4


@pytest.mark.parametrize("rates", [(0.2, 0.2), (1.0, 0.0), (0.5, 0.5), (0.0, 1.0)], ids=str)
def test_votes_that_tell_nothing_or_the_opposite_weigh_nothing(rates: tuple[float, float]) -> None:
    """Who inverts, calls everything helpful or everything harmful, or tosses a coin."""
    rng = np.random.default_rng(2)
    ballots, _ = cast([(0.8, 0.8)] * 30 + [rates] * 6, 120, rng)
    weights = accuracy_of(ballots).weight
    assert weights[30:].max() < 0.45 and weights[30:].mean() < 0.4
    assert weights[:30].mean() == pytest.approx(1.0, abs=0.1)


def test_the_careful_weigh_more_up_to_a_cap() -> None:
    rng = np.random.default_rng(3)
    ballots, _ = cast([(0.75, 0.75)] * 30 + [(0.99, 0.99)] * 4, 200, rng)
    weights = accuracy_of(ballots).weight
    assert weights[30:].min() > 1.2
    assert weights.max() <= MOST_WEIGHT


def test_few_votes_say_little() -> None:
    rng = np.random.default_rng(4)
    ballots, _ = cast([(0.8, 0.8)] * 60 + [(0.0, 0.0)], 2, rng)
    weights = accuracy_of(ballots).weight
    assert weights[:60].min() > 0.5


def test_no_voter_differs_where_all_toss_coins() -> None:
    rng = np.random.default_rng(5)
    ballots, _ = cast([(0.5, 0.5)] * 30, 80, rng, tells=0.5)
    assert accuracy_of(ballots).weight.tolist() == [1.0] * 30


def test_known_answers_decide_who_is_right() -> None:
    """A majority inverts; where answers are known, the others are believed."""
    rng = np.random.default_rng(6)
    ballots, right = cast([(0.9, 0.9)] * 10 + [(0.1, 0.1)] * 14, 80, rng, tells=0.6)
    known = np.where(np.arange(len(right)) < 400, right.astype(float), np.nan)
    anchored = Ballots(*[getattr(ballots, f) for f in list(Ballots.__annotations__)[:5]], known)
    found = accuracy_of(anchored)
    assert found.weight[:10].min() > 0.5
    assert found.weight[10:].max() == 0.0


def test_who_is_right_about_known_answers_is_always_heard() -> None:
    """A voter who disagrees with all others elsewhere, but not about what is known."""
    rng = np.random.default_rng(7)
    ballots, right = cast([(0.85, 0.85)] * 30 + [(0.1, 0.1)], 120, rng)
    odd = ballots.voter == 30
    own = ballots.passage[odd][:8]
    known = np.full(len(right), np.nan)
    known[own] = right[own]
    helpful = ballots.helpful.copy()
    mine = odd & np.isin(ballots.passage, own)
    helpful[mine] = right[ballots.passage[mine]]
    changed = Ballots(
        ballots.voter, ballots.passage, helpful, ballots.counts, ballots.chances, known
    )
    assert accuracy_of(changed).weight[30] >= KNOWN_FLOOR
    assert accuracy_of(ballots).weight[30] == 0.0


def test_no_votes() -> None:
    none = np.empty(0, np.int64)
    ballots = Ballots(none, none, none > 0, np.empty(0), np.empty(0), np.empty(0))
    assert len(accuracy_of(ballots).weight) == 0
