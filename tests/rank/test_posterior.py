"""Credit: chances after votes, against Bayes' rule worked by hand and in exact fractions."""

import math
from dataclasses import replace
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.rank.posterior import Rates, credited, log_odds_of
from rag_flywheel.records import Judgment, Support
from thorough import thorough

NOISE = 0.2  # a vote multiplies the odds by 4
RATES = Rates(NOISE, NOISE)


def voted(lineage: int, helpful: float = 0.0, harmful: float = 0.0) -> Judgment:
    return Judgment(b"q" * 16, None, lineage, helpful, harmful, (1,))


def chances(
    before: dict[int, float], *judgments: Judgment, noise: float = NOISE
) -> dict[int, float]:
    found = credited(before, judgments, Rates(noise, noise))
    return {s.lineage: s.chance for s in found if s.chance}


def test_a_vote_with_a_fifth_of_noise_multiplies_the_odds_by_four() -> None:
    assert math.exp(Rates(0.2, 0.2).of_votes(1, 0)) == pytest.approx(4.0)
    assert math.exp(Rates(0.1, 0.1).of_votes(0, 1)) == pytest.approx(1 / 9)
    assert Rates(0.5, 0.5).of_votes(3, 1) == 0.0


def test_the_two_kinds_of_errors_weigh_each_kind_of_vote() -> None:
    rates = Rates(false_helpful=0.3, false_harmful=0.1)
    assert math.exp(rates.of_votes(1, 0)) == pytest.approx(0.9 / 0.3)
    assert math.exp(rates.of_votes(0, 1)) == pytest.approx(0.1 / 0.7)
    assert math.exp(rates.of_votes(2, 1)) == pytest.approx(9.0 / 7.0)
    assert rates.of_votes(1e9, 0) == 50.0
    assert rates.of_votes(0, 1e9) == -50.0
    assert Rates(0.75, 0.2).of_votes(5, 0) == 0.0  # a "helpful" is next to as likely on either
    assert Rates(0.2, 0.75).of_votes(0, 5) == 0.0


def test_with_several_answers_passages_do_not_compete() -> None:
    before = {1: 0.5, 2: 0.25, 3: 0.004, 4: 0.004, 5: 0.6}
    said = [voted(1, helpful=1), voted(2, harmful=1), voted(3, harmful=1)]
    found = credited(before, said, RATES, several=True)
    assert {s.lineage: s.chance for s in found} == pytest.approx(
        {1: 4 / 5, 2: 1 / 13, 3: 0.001 / 0.997, 5: 0.6}
    )
    assert [s.lineage for s in found] == [1, 5, 2, 3]  # 4: small, and nobody spoke of it
    sure = credited(
        {1: 1.0, 2: 0.0}, [voted(1, harmful=9), voted(2, helpful=9)], RATES, several=True
    )
    assert {s.lineage: s.chance for s in sure} == {1: 1.0, 2: 0.0}


@pytest.mark.parametrize(
    ("judgments", "expected"),
    [
        ([], {1: 1 / 2, 2: 1 / 4}),  # and 1 / 4 for any other passage
        ([voted(1, helpful=1)], {1: 8 / 10, 2: 1 / 10}),  # 4 · 2 : 1 : 1
        ([voted(1, harmful=1)], {1: 1 / 5, 2: 2 / 5}),  # 2 / 4 : 1 : 1
        ([voted(2, helpful=2)], {1: 2 / 19, 2: 16 / 19}),  # 2 : 16 · 1 : 1
        ([voted(1, harmful=1), voted(2, helpful=1)], {1: 1 / 11, 2: 8 / 11}),  # 1/2 : 4 : 1
        ([voted(1, helpful=0.5)], {1: 4 / 6, 2: 1 / 6}),  # an old vote: its odds ratio is 2
        ([voted(1, helpful=2, harmful=1)], {1: 8 / 10, 2: 1 / 10}),
    ],
)
def test_hand_worked_table(judgments: list[Judgment], expected: dict[int, float]) -> None:
    assert chances({1: 0.5, 2: 0.25}, *judgments) == pytest.approx(expected)


def test_the_likeliest_comes_first_and_equal_ones_in_the_order_of_their_numbers() -> None:
    found = credited({9: 0.25, 3: 0.25, 7: 0.5}, [], RATES)
    assert found == (Support(7, 0.5), Support(3, 0.25), Support(9, 0.25))


def test_chances_below_one_in_a_hundred_are_left_out() -> None:
    assert set(chances({1: 0.98, 2: 0.0099, 3: 0.0101})) == {1, 3}
    assert chances({1: 0.004}, voted(1, helpful=1)) == pytest.approx({1: 0.016 / 1.012})
    assert chances({1: 0.004}, voted(1, helpful=1, harmful=1)) == {}
    assert chances({1: 0.02}, voted(1, harmful=1)) == {}


def test_passages_that_votes_call_helpful_stay_however_small_their_chance() -> None:
    assert chances({1: 0.001}, voted(1, helpful=1)) == pytest.approx({1: 0.004 / 1.003})
    assert chances({1: 1e-9, 2: 0.5}, voted(1, helpful=3, harmful=2)) == pytest.approx(
        {1: 4e-9, 2: 0.5}
    )
    assert chances({1: 0.0, 2: 0.5}, voted(1, helpful=1)) == {2: 0.5}


def test_nothing_is_known_of_a_query_without_chances() -> None:
    assert credited({}, [], RATES) == ()
    assert chances({}, voted(1, helpful=3)) == {}
    assert chances({1: 0.0}, voted(1, helpful=3)) == {}


def test_what_votes_add_to_the_log_odds_is_kept_whatever_the_chance() -> None:
    said = [voted(1, helpful=3), voted(2, harmful=2), voted(3, helpful=1, harmful=1)]
    found = {s.lineage: s.log_odds for s in credited({1: 0.0, 2: 0.001, 4: 0.5}, said, RATES)}
    each = RATES.of_votes(1, 0)
    assert found == pytest.approx({1: 3 * each, 2: -2 * each, 4: 0.0})
    named = replace(voted(9, helpful=2), named=2.0)
    assert [(s.lineage, s.named) for s in credited({}, [named], RATES)] == [(9, True)]


@pytest.mark.parametrize(
    ("helpful", "harmful", "chosen", "expected"),
    [
        (1.0, 0.0, 1.0, 4 * 9),  # a good answer from this passage
        (0.5, 0.0, 0.5, 2 * 3),  # half of a good answer
        (3.0, 0.0, 1.0, 64 * 9),  # chosen once, whoever agrees
        (0.1, 0.0, 1.0, 4**0.1 * 9**0.1),  # a faint sign says little
        (0.0, 1.0, 1.0, 1 / 4),  # a bad answer is not raised by being chosen
        (1.0, 1.0, 1.0, 1.0),
        (3.0, 2.5, 1.0, 2 * 3),
        (1.0, 0.0, 0.0, 4),  # a vote on the passage itself
    ],
)
def test_being_chosen_for_a_good_answer_is_evidence(
    helpful: float, harmful: float, chosen: float, expected: float
) -> None:
    one = replace(voted(1, helpful=helpful, harmful=harmful), chosen=chosen)
    assert math.exp(log_odds_of(one, RATES, math.log(9))) == pytest.approx(expected)
    (support,) = credited({1: 0.2}, [one], RATES, choice=math.log(9))
    assert support.chance == pytest.approx(0.2 * expected / (0.2 * expected + 0.8))
    assert log_odds_of(one, Rates(0.5, 0.5), 50.0) == 0.0  # coins say nothing of the choice either
    assert log_odds_of(one, RATES, 1e6) <= 50.0


numbers = st.integers(0, 1000)
priors = st.dictionaries(st.integers(0, 8), numbers, min_size=1, max_size=6).flatmap(
    lambda parts: st.builds(
        lambda rest: {p: n / (sum(parts.values()) + rest + 1) for p, n in parts.items()}, numbers
    )
)
votes = st.dictionaries(
    st.integers(0, 8), st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=6
)
noises = st.sampled_from([0.01, 0.1, 0.2, 0.35, 0.5])


def exact(
    before: dict[int, float], said: dict[int, tuple[int, int]], noise: float
) -> dict[int, Fraction]:
    """P(answer | votes), by Bayes' rule, from what each vote is likely to be under each answer.

    A vote on the answer is helpful with probability 1 - noise, one on another with probability noise.
    """
    wrong = Fraction(noise)
    joint: dict[int | None, Fraction] = {p: Fraction(b) for p, b in before.items()}
    joint[None] = max(Fraction(0), 1 - sum(joint.values(), Fraction(0)))  # any other passage
    for answer in joint:
        for lineage, (helpful, harmful) in said.items():
            yes = 1 - wrong if lineage == answer else wrong
            joint[answer] *= Fraction(yes**helpful * (1 - yes) ** harmful)
    total = sum(joint.values(), Fraction(0))
    return {p: joint[p] / total for p in before} if total else {}


def called_helpful(said: dict[int, tuple[int, int]], lineage: int) -> bool:
    helpful, harmful = said.get(lineage, (0, 0))
    return helpful > harmful


def judged(said: dict[int, tuple[int, int]]) -> list[Judgment]:
    return [voted(p, helpful, harmful) for p, (helpful, harmful) in said.items()]


@thorough(40, few=10)
@given(priors, votes, noises)
def test_chances_are_bayes_rule(
    before: dict[int, float], said: dict[int, tuple[int, int]], noise: float
) -> None:
    # a vote on a passage that the memory lacks says nothing: it was never shown
    said = {p: vote for p, vote in said.items() if p in before}
    found = credited(before, judged(said), Rates(noise, noise))
    expected = exact(before, said, noise)
    for lineage, chance in expected.items():
        if abs(chance - Fraction(1, 100)) > 1e-9:
            kept = chance >= Fraction(1, 100) or (chance > 0 and called_helpful(said, lineage))
            assert (lineage in {s.lineage for s in found if s.chance}) == kept
    for s in found:
        assert s.chance == 0.0 or s.chance == pytest.approx(float(expected[s.lineage]), rel=1e-9)
    assert list(found) == sorted(found, key=lambda s: (-s.chance, s.lineage))


@thorough(40, few=10)
@given(priors, votes, noises)
def test_chances_add_up_to_at_most_one(
    before: dict[int, float], said: dict[int, tuple[int, int]], noise: float
) -> None:
    found = credited(before, judged(said), Rates(noise, noise))
    assert math.fsum(s.chance for s in found) <= 1.0 + 1e-12
    assert all(0 <= s.chance <= 1.0 for s in found)
    assert all(s.chance >= 0.01 for s in found if s.chance and not called_helpful(said, s.lineage))


@thorough(40, few=10)
@given(priors, votes, noises, st.data())
def test_helpful_raises_and_harmful_lowers_and_the_others_give_way(
    before: dict[int, float], said: dict[int, tuple[int, int]], noise: float, data: st.DataObject
) -> None:
    at = data.draw(st.sampled_from(sorted(before)))
    helpful, harmful = said.get(at, (0, 0))
    now = chances(before, *judged(said), noise=noise)
    up = chances(before, *judged(said | {at: (helpful + 1, harmful)}), noise=noise)
    down = chances(before, *judged(said | {at: (helpful, harmful + 1)}), noise=noise)
    assert down.get(at, 0.0) <= now.get(at, 0.0) * (1 + 1e-12)
    assert now.get(at, 0.0) <= up.get(at, 0.0) * (1 + 1e-12)
    if noise < 0.5 and 0.01 < now.get(at, 0.0) < 0.99:
        assert down.get(at, 0.0) < now[at] < up[at]
    for other in set(now) - {at}:
        assert up.get(other, 0.0) <= now[other] * (1 + 1e-12)
        assert down.get(other, 0.0) >= now[other] * (1 - 1e-12)


@thorough(40, few=10)
@given(priors, votes, noises, st.integers(1, 4))
def test_equally_many_of_both_kinds_cancel(
    before: dict[int, float], said: dict[int, tuple[int, int]], noise: float, more: int
) -> None:
    also = {p: (helpful + more, harmful + more) for p, (helpful, harmful) in said.items()}
    rates = Rates(noise, noise)
    more_said, same = credited(before, judged(also), rates), credited(before, judged(said), rates)
    for p in {s.lineage for s in (*more_said, *same)}:
        one, other = ([s for s in found if s.lineage == p] for found in (more_said, same))
        assert [s.chance for s in one if s.chance > 0.011] == pytest.approx(
            [s.chance for s in other if s.chance > 0.011]
        )
        assert sum(s.log_odds for s in one) == pytest.approx(
            sum(s.log_odds for s in other), abs=1e-9
        )


@thorough(40, few=10)
@given(st.floats(0.1, 0.9), st.integers(0, 20), noises)
def test_two_passages_that_are_all_there_is_are_symmetric(
    chance: float, n: int, noise: float
) -> None:
    # helpful on the one says what harmful on the other says
    before = {1: chance, 2: 1.0 - chance}
    helpful = chances(before, voted(1, helpful=n), noise=noise)
    harmful = chances(before, voted(2, harmful=n), noise=noise)
    assert helpful == pytest.approx(harmful, rel=1e-9)
    mirrored = chances({2: chance, 1: 1.0 - chance}, voted(2, helpful=n), noise=noise)
    assert mirrored == {3 - p: c for p, c in helpful.items()}


@thorough(40, few=10)
@given(priors, votes)
def test_votes_that_are_wrong_half_the_time_say_nothing(
    before: dict[int, float], said: dict[int, tuple[int, int]]
) -> None:
    small = {p: b for p, b in before.items() if 0 < b < 0.01 and called_helpful(said, p)}
    assert chances(before, *judged(said), noise=0.5) == pytest.approx(
        {**chances(before, noise=0.5), **small}
    )


@thorough(40, few=10)
@given(priors, votes, noises, st.randoms(use_true_random=False))
def test_the_order_of_judgments_does_not_matter(
    before: dict[int, float], said: dict[int, tuple[int, int]], noise: float, random: Random
) -> None:
    judgments = judged(said)
    shuffled = random.sample(judgments, len(judgments))
    rates = Rates(noise, noise)
    assert credited(before, shuffled, rates) == credited(before, judgments, rates)


@pytest.mark.parametrize("count", [1e2, 1e9, 1e300])
@pytest.mark.parametrize("noise", [0.5, 0.2, 1e-12])
def test_extreme_counts_do_not_overflow(count: float, noise: float) -> None:
    before = {1: 0.3, 2: 0.3, 3: 0.3}
    up = chances(before, voted(1, helpful=count), noise=noise)
    down = chances(before, voted(1, harmful=count), noise=noise)
    if noise == 0.5:
        assert up == down == pytest.approx(before)
    else:
        assert up == {1: pytest.approx(1.0)}
        assert down == pytest.approx({2: 3 / 7, 3: 3 / 7})
    both = chances(before, *(voted(p, helpful=count) for p in before), noise=noise)
    assert both == pytest.approx(before if noise == 0.5 else dict.fromkeys(before, 1 / 3))


def test_harmful_votes_on_all_that_is_known_leave_the_rest() -> None:
    assert chances({1: 0.5, 2: 0.4}, voted(1, harmful=50), voted(2, harmful=50)) == {}
    # without any other passage, all of them are as likely as before
    all_known = chances({1: 0.5, 2: 0.5}, voted(1, harmful=50), voted(2, harmful=50))
    assert all_known == pytest.approx({1: 0.5, 2: 0.5})


def test_chances_that_add_up_to_a_little_over_one_leave_nothing_for_others() -> None:
    found = chances({1: 0.6, 2: 0.4004})  # float32 in a file
    assert found == pytest.approx({1: 0.6 / 1.0004, 2: 0.4004 / 1.0004})


def test_who_is_hardly_believed_does_not_make_a_passage_a_named_one() -> None:
    for weight, named in ((2.0, True), (0.6, True), (0.4, False)):
        judgment = Judgment(b"q" * 16, None, 7, weight, 0.0, (1,), named=weight)
        (support,) = credited({7: 0.01}, [judgment], Rates())
        assert support.named == named
