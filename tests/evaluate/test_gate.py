"""The gate: each outcome by a table, how often chance alone gets past it, and what it says."""

import math
import re
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rag_flywheel.evaluate.gate import (
    ALPHA,
    GROWTH,
    LARGE_CHANGE,
    LEAST_JUDGED,
    MARGIN,
    Decision,
    Looks,
    Pair,
    TrialResults,
    alpha_of,
    decide,
    decide_encoder,
    too_soon,
)

Floats = npt.NDArray[np.float64]
FIRST = Looks()


def pair(gains: Floats, incumbent: float = 0.5) -> Pair:
    return Pair(gains + incumbent, np.full(len(gains), incumbent))


def gaining(n: int, by: float = 0.1) -> Pair:
    """Three of four queries gain twice `by`, one loses twice of it: clear for n of 50 and more."""
    return pair(np.where(np.arange(n) % 4 < 3, 2 * by, -2 * by))


def level(n: int) -> Pair:
    """As many queries gain as lose, by the same."""
    return pair(np.where(np.arange(n) % 2 == 0, 0.25, -0.25))


def ones(n: int, k: int) -> Pair:
    """k of n queries gain 1, the others nothing: p is 2^-k."""
    return pair((np.arange(n) < k).astype(np.float64), 0.0)


def mask(n: int, members: int) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = np.arange(n) < members
    return found


def test_what_looks_may_spend_by_hand() -> None:
    assert [alpha_of(k) for k in (1, 2, 3, 10)] == pytest.approx([0.025, 0.0125, 0.025 / 3, 0.0025])
    assert alpha_of(1) == ALPHA


def test_twenty_looks_at_growing_votes_seldom_err() -> None:
    """Sums of normal differences that grow by half from look to look, of candidates no better."""
    rng = np.random.default_rng(0)
    sizes = LEAST_JUDGED * GROWTH ** np.arange(20)
    steps = rng.normal(size=(100_000, 20)) * np.sqrt(np.diff(sizes, prepend=0.0))
    z = np.cumsum(steps, axis=1) / np.sqrt(sizes)
    erred = z >= stats.norm.isf([alpha_of(k) for k in range(1, 21)])
    ever = np.maximum.accumulate(erred, axis=1).mean(axis=0)
    assert ever[0] == pytest.approx(0.025, abs=0.002)
    assert ever[9] < 0.05
    assert ever[19] < 0.06


@pytest.mark.parametrize(
    ("looks", "k", "outcome"),
    [
        (0, 4, "no better"),  # 1 / 16 > 0.025
        (0, 6, "better"),  # 1 / 64 <= 0.025
        (1, 5, "no better"),  # 1 / 32 > 0.0125
        (1, 8, "better"),  # 1 / 256 <= 0.0125
        (2, 6, "no better"),  # 1 / 64 > 0.0083
        (2, 8, "better"),  # 1 / 256 <= 0.0083
        (40, 9, "no better"),  # 1 / 512 > 0.0006
        (40, 20, "better"),
    ],
)
def test_better_takes_a_p_that_this_look_may_spend(looks: int, k: int, outcome: str) -> None:
    decision = decide(TrialResults(votes=ones(50, k)), 90, Looks(looks, 60))
    assert decision.outcome == outcome
    assert decision.replaces == (outcome == "better")
    assert decision.look == looks + 1
    assert decision.alpha == pytest.approx(0.025 / (looks + 1))
    assert decision.p == pytest.approx(2.0**-k, abs=0.01 * 2.0 ** (-k / 2) * 4 + 1e-4)
    assert decision.mean == pytest.approx(k / 50)
    spread = math.sqrt((k / 50) * (1 - k / 50) * 50 / 49)
    assert decision.error == pytest.approx(spread / math.sqrt(50))
    assert (decision.measure, decision.n_judged, decision.n_votes) == ("held-out votes", 50, 90)


NOT_LOOKED = [
    ("too few", TrialResults(), FIRST, 0, ["0 held-out", "50"]),
    ("too few", TrialResults(votes=gaining(49)), FIRST, 49, ["49 held-out", "50"]),
    (
        "too few",
        TrialResults(votes=gaining(49), golden=gaining(49)),
        FIRST,
        49,
        ["49 held-out", "50"],
    ),
    ("too soon", TrialResults(votes=gaining(60)), Looks(1, 67), 60, ["100 votes so far", "101"]),
    ("too soon", TrialResults(votes=gaining(50)), Looks(0, 68), 50, ["100 votes so far", "102"]),
    ("no better", TrialResults(votes=pair(np.zeros(80))), FIRST, 80, ["as before"]),
    ("no better", TrialResults(votes=pair(np.zeros(80))), Looks(1, 70), 80, ["as before"]),
    (
        "no better",
        TrialResults(votes=pair(np.append(np.ones(59), np.nan))),
        FIRST,
        60,
        ["no number"],
    ),
    (
        "no better",
        TrialResults(votes=pair(np.append(np.ones(59), np.inf))),
        FIRST,
        60,
        ["no number"],
    ),
]


@pytest.mark.parametrize(("outcome", "results", "before", "n", "named"), NOT_LOOKED)
def test_without_a_look_nothing_is_spent(
    outcome: str, results: TrialResults, before: Looks, n: int, named: list[str]
) -> None:
    decision = decide(results, 100, before)
    assert (decision.outcome, decision.measure, decision.n_judged) == (outcome, "held-out votes", n)
    assert (decision.look, decision.alpha, decision.p) == (0, 0.0, None)
    assert not decision.replaces
    for words in named:
        assert words in decision.why


def test_the_next_look_takes_one_and_a_half_times_the_votes_of_the_last() -> None:
    for last, n in [(66, 99), (34, 51), (50, 75), (33, 50), (1001, 1502)]:
        results = TrialResults(votes=gaining(60))
        assert decide(results, n, Looks(1, last)).look == 2, (last, n)
        assert decide(results, n - 1, Looks(1, last)).outcome == "too soon"
        assert too_soon(n, Looks(1, last)) == ""
        said = f"{n - 1} votes so far, the next look is at {n}"
        # also where the last look replaced parameters, so that none has been since
        assert too_soon(n - 1, Looks(1, last)) == too_soon(n - 1, Looks(0, last)) == said
    assert too_soon(0, FIRST) == ""


def test_votes_are_counted_whichever_measure_decides() -> None:
    golden = TrialResults(votes=gaining(20), golden=gaining(60))
    assert decide(golden, 1000, Looks(0, 667)).outcome == "too soon"
    decision = decide(golden, 1000, Looks(0, 666))
    assert (decision.outcome, decision.measure) == ("better", "golden queries")
    assert (decision.n_judged, decision.n_votes) == (60, 1000)
    unknown = decide(replace(golden, golden=pair(np.full(60, np.nan))), 1000, FIRST)
    assert (unknown.outcome, unknown.look) == ("no better", 0)


def against(decision: Decision, *words: str) -> None:
    """A look was taken, candidates gain, and it names its numbers and these."""
    assert decision.p is not None and decision.mean is not None
    assert decision.p <= decision.alpha
    for number in (f"{decision.mean:+.4f} a query", f"p {decision.p:.4f}", f"{decision.alpha:.4f}"):
        assert number in decision.why
    for word in words:
        assert word in decision.why, decision.why


def test_a_clear_gain_with_nothing_against_it_is_better() -> None:
    results = TrialResults(
        votes=gaining(120),
        slices={"near": mask(120, 60), "far": ~mask(120, 60)},
        condensed=pair(np.full(90, 0.01)),
        golden=level(60),
        shared_hits=0.5,
    )
    decision = decide(results, 400, FIRST)
    assert (decision.outcome, decision.look) == ("better", 1)
    assert decision.mean == pytest.approx(0.1)
    against(decision, "held-out votes gain (+0.1000 a query", "look 1 may spend 0.0250")


def test_no_clear_gain_is_no_better_and_says_by_how_much() -> None:
    decision = decide(TrialResults(votes=level(60)), 400, FIRST)
    assert (decision.outcome, decision.look) == ("no better", 1)
    assert decision.p is not None and decision.p > 0.4
    assert f"do not clearly gain (+0.0000 a query, p {decision.p:.4f}, look 1" in decision.why


@pytest.mark.parametrize(
    ("n", "loss", "outcome"),
    [(50, 0.02, "vetoed"), (200, 0.006, "vetoed"), (49, 0.02, "better"), (200, 0.004, "better")],
)
def test_judged_hits_that_are_ordered_worse_are_a_veto(n: int, loss: float, outcome: str) -> None:
    """Clearly worse, that is, and by more than is borne."""
    decision = decide(
        TrialResults(votes=gaining(100), condensed=pair(np.full(n, -loss))), 400, FIRST
    )
    assert (decision.outcome, decision.look) == (outcome, 1)
    if outcome == "vetoed":
        against(decision, f"but the order of judged hits lose {loss:.4f} (n {n})")


def test_golden_gains_that_cancel_are_no_gain() -> None:
    golden = pair(np.tile([0.2, -0.2], 25), 0.4)
    assert abs(golden.differences.sum()) < 1e-14
    found = decide(TrialResults(votes=gaining(100), golden=golden, shared_hits=0.1), 400, FIRST)
    assert found.outcome == "vetoed"


def slice_that_loses(n: int, members: int, by: float) -> TrialResults:
    """Votes on the first `members` of n queries lose, those on the others gain clearly."""
    gains = np.where(mask(n, members), -by, 1.0)
    return TrialResults(
        votes=pair(gains), slices={"far": ~mask(n, members), "near": mask(n, members)}
    )


def test_a_slice_that_loses_is_a_veto() -> None:
    decision = decide(slice_that_loses(160, 60, 0.05), 400, FIRST)
    assert (decision.outcome, decision.look, decision.replaces) == ("vetoed", 1, False)
    against(decision, "but votes on near queries lose 0.0500 (n 60)")


@pytest.mark.parametrize(
    "results",
    [
        slice_that_loses(160, 49, 0.05),  # too few to veto
        slice_that_loses(160, 60, MARGIN - 0.0005),  # a harm that is borne
        replace(slice_that_loses(160, 60, 0.05), slices={}),
    ],
    ids=["few", "little", "in no slice"],
)
def test_less_than_that_is_no_veto(results: TrialResults) -> None:
    assert decide(results, 400, FIRST).outcome == "better"


def test_a_loss_that_may_be_chance_is_no_veto() -> None:
    worse = np.where(np.arange(60) % 2 == 0, 0.19, -0.21)  # -0.01 a query, a standard error 0.026
    gains = np.append(worse, np.ones(100))
    results = TrialResults(votes=pair(gains), slices={"near": mask(160, 60)})
    assert decide(results, 400, FIRST).outcome == "better"


@pytest.mark.parametrize(
    ("votes", "golden", "outcome", "measure"),
    [
        (gaining(80), level(80), "better", "held-out votes"),
        (level(80), gaining(80), "better", "golden queries"),
        (level(80), level(80), "no better", "held-out votes"),
        (gaining(80, -0.1), gaining(80), "vetoed", "golden queries"),
        (gaining(80), gaining(80, -0.1), "vetoed", "held-out votes"),
        (gaining(49), level(80), "no better", "golden queries"),
        (gaining(80), level(49), "better", "held-out votes"),
    ],
)
def test_votes_or_golden_queries_tell_of_another_encoder(
    votes: Pair, golden: Pair, outcome: str, measure: str
) -> None:
    found = decide_encoder(TrialResults(votes, golden=golden), 100, FIRST)
    assert (found.outcome, found.measure) == (outcome, measure)
    both = min(len(votes), len(golden)) >= LEAST_JUDGED
    assert found.alpha == (ALPHA / 2 if both else ALPHA)


def test_golden_queries_that_lose_are_a_veto() -> None:
    losing = pair(np.full(50, -0.02), 0.9)
    decision = decide(TrialResults(votes=gaining(100), golden=losing), 400, FIRST)
    assert decision.outcome == "vetoed"
    against(decision, "golden queries lose 0.0200 (n 50)")
    few = pair(np.full(49, -0.02), 0.9)
    assert decide(TrialResults(votes=gaining(100), golden=few), 400, FIRST).outcome == "better"


@pytest.mark.parametrize(
    ("shared_hits", "golden", "outcome"),
    [
        (0.49, level(50), "vetoed"),  # golden queries do not lose, but nor do they gain
        (0.0, pair(np.zeros(60)), "vetoed"),
        (0.49, gaining(50), "better"),
        (LARGE_CHANGE, level(50), "better"),
        (0.0, level(48), "better"),  # too few to say
    ],
)
def test_where_most_hits_change_golden_queries_must_gain(
    shared_hits: float, golden: Pair, outcome: str
) -> None:
    decision = decide(
        TrialResults(votes=gaining(100), golden=golden, shared_hits=shared_hits), 400, FIRST
    )
    assert decision.outcome == outcome
    if outcome == "vetoed":
        against(decision, f"only {shared_hits:.0%} of the best hits stay")


@pytest.mark.parametrize(("golden", "outcome"), [(gaining(50), "better"), (level(50), "no better")])
@pytest.mark.parametrize("n_votes", [0, 49])
def test_golden_queries_decide_where_too_few_have_votes(
    n_votes: int, golden: Pair, outcome: str
) -> None:
    """Whatever the votes say."""
    decision = decide(TrialResults(votes=pair(np.full(n_votes, -1.0)), golden=golden), 400, FIRST)
    assert (decision.outcome, decision.look) == (outcome, 1)
    assert (decision.measure, decision.n_judged) == ("golden queries", 50)
    assert decision.mean == pytest.approx(golden.differences.mean())
    assert decision.why.startswith("golden queries ")


def test_votes_decide_where_enough_queries_have_some() -> None:
    decision = decide(TrialResults(votes=level(50), golden=gaining(500)), 400, FIRST)
    assert (decision.outcome, decision.measure) == ("no better", "held-out votes")


gains_lists = st.lists(st.integers(-8, 12).map(lambda i: i / 16), min_size=40, max_size=130)


@given(gains_lists, gains_lists, st.integers(0, 4), st.integers(0, 200), st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_what_is_let_in_has_gained_and_every_decision_adds_up(
    votes: list[float], golden: list[float], looks: int, last: int, shared_hits: float
) -> None:
    gains = np.array(votes), np.array(golden)
    n_votes = 2 * len(votes)
    results = TrialResults(pair(gains[0]), golden=pair(gains[1]), shared_hits=shared_hits)
    found = decide(results, n_votes, Looks(looks, last))
    assert found == decide(results, n_votes, Looks(looks, last))
    judged = gains[1] if found.measure == "golden queries" else gains[0]
    assert found.n_judged == len(judged)
    assert (found.measure == "golden queries") == (len(votes) < LEAST_JUDGED <= len(golden))
    if found.look:
        assert found.look == looks + 1
        assert found.n_judged >= LEAST_JUDGED
        assert found.n_votes == n_votes
        assert found.n_votes >= GROWTH * last
        assert found.alpha == alpha_of(found.look)
        assert found.mean == pytest.approx(judged.mean())
    else:
        assert (found.alpha, found.p, found.mean, found.error) == (0.0, None, None, None)
    if found.replaces:
        assert found.mean is not None and found.mean > 0
        assert found.p is not None and found.p <= found.alpha
        assert len(golden) < LEAST_JUDGED or shared_hits >= LARGE_CHANGE or gains[1].mean() > 0
    assert (found.outcome == "better") == found.replaces
    assert re.search(r"\d", found.why) or found.why.endswith("are as before")


def let_in(gains: Floats, seed: int) -> bool:
    return decide(TrialResults(votes=pair(gains)), 400, FIRST, seed=seed).replaces


def test_of_candidates_that_are_no_better_few_are_let_in() -> None:
    """At most what the first look may spend, 2.5 %, and three binomial standard errors.

    A mean below one standard error has a p of about 0.16 and more, so only the others are asked.
    """
    rng = np.random.default_rng(1)
    taken, unlikely = 0, []
    for seed in range(1000):
        gains = rng.normal(size=100) * rng.exponential(size=100)
        if gains.mean() < gains.std() / 10:
            unlikely.append((gains, seed))
        else:
            taken += let_in(gains, seed)
    assert taken <= 1000 * (0.025 + 3 * math.sqrt(0.025 * 0.975 / 1000))
    assert taken >= 5  # it can happen
    assert not any(let_in(gains, seed) for gains, seed in unlikely[::30])


@pytest.mark.parametrize("skewed", [False, True])
def test_a_loss_is_never_let_in(skewed: bool) -> None:
    rng = np.random.default_rng(2)
    for seed in range(40):
        size = rng.exponential(size=100)
        losses = rng.random(100) < (0.2 if skewed else 0.5)
        gains = np.where(losses, -4.0 if skewed else -1.0, 1.0) * size  # of mean 0, or 0
        assert not let_in(gains - 0.3 * gains.std() - gains.mean(), seed)


def test_a_loss_of_a_slice_or_of_golden_queries_is_never_let_in() -> None:
    rng = np.random.default_rng(3)
    for seed in range(20):
        losing = rng.normal(-0.12, 0.2, 100)
        others = rng.normal(0.5, 0.2, 100)
        votes, slices = pair(np.append(losing, others)), {"far": mask(200, 100)}
        found = decide(TrialResults(votes=votes, slices=slices), 400, FIRST, seed=seed)
        assert (found.outcome, "far" in found.why) == ("vetoed", True)
        found = decide(TrialResults(votes=pair(others), golden=pair(losing)), 400, FIRST, seed=seed)
        assert (found.outcome, "golden" in found.why) == ("vetoed", True)
