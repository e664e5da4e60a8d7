"""Relevance by hand, and what it does not depend on."""

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from rag_flywheel.rank.calibration import Calibration
from rag_flywheel.rank.features import TextWords, measures
from rag_flywheel.rank.relevance import (
    Relevance,
    before_votes,
    before_votes_of_given,
    distinct_hits,
    log_odds_of_any,
    log_shares,
    relevance_of_given,
)
from rag_flywheel.rank.relevance import relevance as after_votes
from rag_flywheel.rank.score import Votes
from rag_flywheel.records import Features

OF = Calibration(
    index={
        "one": -2.0,
        "dense": 3.0,
        "cover": 2.0,
        "missing": -1.0,
        "length": -0.5,
        "share": 0.5,
    },
    given={"one": -1.0, "cover": 2.0, "length": -0.5},
    answer={
        "one": 2.0,
        "reach": 0.5,
        "farther": 0.3,
        "any": 0.8,
        "known": 1.5,
        "said": 0.7,
        "asked": 0.0,
    },
    unrelated=0.1,
    spread=0.1,
)
MEASURED = np.array([[0.5, 0.4, 2.0, 0.6, 1.2], [0.0, 1.0, 3.0, 0.6, 1.2]], dtype=np.float32)
DENSE = np.array([0.4, 0.1], dtype=np.float32)
SHARES = np.log([0.5, 0.2])


def votes(
    support: float = 0.0, weight: float = 0.0, log_odds: float = 0.0, least: float = 0.0
) -> Votes:
    """Votes on the first of two passages."""
    return Votes(*(np.array([value, 0.0]) for value in (support, weight, log_odds, least)))


def relevance(
    of: Calibration,
    dense: Features,
    shares: npt.NDArray[np.float64],
    measured: Features,
    given: Votes,
    n0: float,
) -> Relevance:
    return after_votes(of, before_votes(of, dense, shares, measured), given, n0)


def chance(log_odds: float) -> float:
    return 1.0 / (1.0 + math.exp(-log_odds))


def texts(places: list[int], lengths: list[int]) -> TextWords:
    return TextWords(
        np.array(places), np.array(lengths), np.zeros(len(lengths), np.int64), 1.0, 1.0
    )


def test_measures_by_hand() -> None:
    # two texts, "b a x" and "x"; the question has a, b and c, c is in neither
    seen = np.array([True, True, False])
    found = measures(texts([1, 0, -1, -1], [3, 1]), np.array([1.0, 2.0, 5.0]), seen, unknown=5.0)
    said = math.log(1 + 8 / 5)
    assert found == pytest.approx(
        np.array([[3 / 8, 1.0, math.log(4), 3 / 8, said], [0.0, 1.0, math.log(2), 3 / 8, said]]),
        abs=1e-6,
    )
    known = measures(texts([1, 0], [2]), np.array([1.0, 2.0]), seen[:2], unknown=5.0)
    assert known == pytest.approx(
        np.array([[1.0, 0.0, math.log(3), 1.0, math.log(1 + 3 / 5)]]), abs=1e-6
    )


def test_words_of_fresh_texts_and_of_texts_elsewhere_are_known() -> None:
    # "a" is in this text, which is new to the statistics; "b" is in another text; "c" is in none
    found = measures(
        texts([0], [1]), np.array([1.0, 2.0, 5.0]), np.array([False, True, False]), unknown=5.0
    )
    assert found[0, 3] == pytest.approx(3 / 8)


def test_a_question_without_words_covers_nothing() -> None:
    found = measures(texts([-1], [1]), np.empty(0), np.empty(0, bool), unknown=5.0)
    assert found.tolist() == [[0.0, 1.0, pytest.approx(math.log(2)), 0.0, 0.0]]


def test_shares_by_hand() -> None:
    prior = np.log([4.0, 2.0, 1.0])
    # 47 others with a prior of 0.5 each
    expected = np.log(np.array([4.0, 2.0, 1.0]) / (7 + 23.5))
    assert log_shares(prior, math.log(0.5)) == pytest.approx(expected)
    many = np.linspace(3.0, -3.0, 80)  # the 50 best count
    assert log_shares(many, 9.0) == pytest.approx(many - np.log(np.exp(many[:50]).sum()))
    assert log_shares(np.empty(0), 0.0).tolist() == []


def test_copies_count_once_in_shares() -> None:
    rng = np.random.default_rng(0)
    prior = rng.normal(size=60) * 2
    copies = np.append(prior, prior[3] + rng.uniform(-1e-6, 1e-6, 30))
    assert log_shares(copies, -1.0)[:60] == pytest.approx(log_shares(prior, -1.0), abs=1e-5)
    assert log_shares(copies, -1.0)[60:] == pytest.approx(
        np.full(30, log_shares(prior, -1.0)[3]), abs=1e-5
    )


def test_a_passage_without_rivals_shares_with_others_that_are_far() -> None:
    far, near = log_shares(np.array([0.0]), 0.0)[0], log_shares(np.array([8.0]), 0.0)[0]
    assert far == pytest.approx(math.log(1 / 50))
    assert near == pytest.approx(math.log(math.exp(8) / (math.exp(8) + 49)))


def by_hand() -> list[float]:
    """The log-odds of both passages."""
    near, far = 0.5 * math.log(0.5), 0.5 * math.log(0.2)
    return [-2 + 1.2 + 1.0 - 0.4 - 1.0 + near, -2 + 0.3 - 1.0 - 1.5 + far]


def any_of(log_odds: list[float]) -> float:
    """The log-odds that any is right."""
    none = math.prod(1.0 - chance(z) for z in log_odds)
    return math.log((1.0 - none) / none)


def test_relevance_without_votes_by_hand() -> None:
    found = relevance(OF, DENSE, SHARES, MEASURED, votes(), 4.0)
    before = by_hand()
    assert found.hits == pytest.approx([chance(z) for z in before], abs=1e-6)
    # the nearest stands out by (0.4 - 0.1) / 0.1 spreads, one beyond the two that `reach` counts
    of_answer = 2.0 + 0.5 * 2 + 0.3 * 1 + 0.8 * any_of(before) + 1.5 * 0.6 + 0.7 * (1.2 - 1.5)
    assert found.answerable == pytest.approx(chance(of_answer), abs=1e-6)


def test_no_hit_is_likelier_than_that_one_is_right() -> None:
    of = replace(OF, answer={**OF.answer, "one": -8.0, "known": 0.0})
    found = relevance(of, DENSE, SHARES, MEASURED, votes(), 4.0)
    before = by_hand()
    of_answer = -8.0 + 0.5 * 2 + 0.3 * 1 + 0.8 * any_of(before) + 0.7 * (1.2 - 1.5)
    assert before[1] < before[0]
    assert of_answer < before[1]
    assert found.hits == pytest.approx([chance(of_answer)] * 2, abs=1e-6)
    assert found.answerable == pytest.approx(chance(of_answer), abs=1e-6)
    similar = relevance(of, DENSE, SHARES, MEASURED, votes(support=3.0, weight=4.0), 4.0)
    assert similar.hits[0] == pytest.approx((4 * chance(of_answer) + 3.0) / 8, abs=1e-6)
    assert similar.answerable >= similar.hits[0]


def test_questions_like_those_asked_before_are_likelier_to_have_an_answer() -> None:
    of, silent = replace(OF, answer={**OF.answer, "asked": 1.2}), votes(weight=0.15)
    # 0.15 neighbours say something of the first hit: nothing in its favour
    asked, before = (
        relevance(each, DENSE, SHARES, MEASURED, silent, 4.0).answerable for each in (of, OF)
    )
    moved = math.log(asked / (1 - asked)) - math.log(before / (1 - before))
    assert moved == pytest.approx(1.2 * 0.15 / (0.15 + 0.05), abs=1e-6)


def test_reach_is_bounded() -> None:
    near = relevance(OF, np.array([0.75], np.float32), SHARES[:1], MEASURED[:1], alone(), 4.0)
    nearer = relevance(OF, np.array([0.95], np.float32), SHARES[:1], MEASURED[:1], alone(), 4.0)
    # both stand out by at least 6 spreads, so that only the relevance differs
    moved = math.log(nearer.answerable / (1 - nearer.answerable)) - math.log(
        near.answerable / (1 - near.answerable)
    )
    assert moved == pytest.approx(0.8 * 3.0 * 0.2, abs=1e-5)


def test_any_of_the_first_eight_distinct_hits() -> None:
    assert distinct_hits([1.0, 1.0, 0.5, 1.00001, *range(2, 12)]) == [0, 2, 4, 5, 6, 7, 8, 9]
    for log_odds in ([-3.0, 0.5, 2.0], [-30.0], [-9.0, -9.5]):
        assert log_odds_of_any(log_odds) == pytest.approx(any_of(log_odds), rel=1e-3)
    assert log_odds_of_any([40.0, 1.0]) == pytest.approx(40.0 + math.log1p(math.e))
    assert log_odds_of_any([]) == -math.log(1e12)


def alone() -> Votes:
    return Votes(*(np.zeros(1) for _ in range(4)))


def test_votes_move_one_passage_alone() -> None:
    before = relevance(OF, DENSE, SHARES, MEASURED, votes(), 4.0)
    p = float(before.hits[0])
    similar = relevance(OF, DENSE, SHARES, MEASURED, votes(support=0.9, weight=2.0), 4.0)
    assert similar.hits[0] == pytest.approx((4 * p + 0.9) / 6, abs=1e-6)
    same = relevance(OF, DENSE, SHARES, MEASURED, votes(log_odds=math.log(4)), 4.0)
    assert same.hits[0] == pytest.approx(4 * p / (4 * p + 1 - p), abs=1e-6)
    named = relevance(OF, DENSE, SHARES, MEASURED, votes(log_odds=math.log(4), least=0.5), 4.0)
    assert named.hits[0] == pytest.approx(4 * 0.5 / (4 * 0.5 + 0.5), abs=1e-6)
    for found in (similar, same, named):
        assert found.hits[1] == before.hits[1]


def test_similar_questions_that_agree_are_surer_together() -> None:
    p = float(relevance(OF, DENSE, SHARES, MEASURED, votes(), 4.0).hits[0])
    mean = (4 * p + 3.5) / 8
    found = relevance(
        replace(OF, agreement=3.0), DENSE, SHARES, MEASURED, votes(support=3.5, weight=4.0), 4.0
    )
    expected = math.sqrt(3.0) * math.log(mean / (1 - mean))
    assert found.hits[0] == pytest.approx(chance(expected), abs=1e-6)


def test_helpful_and_harmful_votes_move_the_answer_too() -> None:
    before = relevance(OF, DENSE, SHARES, MEASURED, votes(), 4.0).answerable
    helpful = relevance(OF, DENSE, SHARES, MEASURED, votes(log_odds=2.0), 4.0).answerable
    harmful = relevance(OF, DENSE, SHARES, MEASURED, votes(log_odds=-2.0), 4.0).answerable
    assert harmful < before < helpful


def test_an_answer_is_at_least_as_likely_as_its_best_hit() -> None:
    sure = relevance(OF, DENSE, SHARES, MEASURED, votes(log_odds=9.0), 4.0)
    assert sure.answerable >= max(sure.hits)


def test_copies_change_nothing() -> None:
    one = relevance(OF, DENSE[:1], SHARES[:1], MEASURED[:1], alone(), 4.0)
    many = relevance(
        OF,
        np.repeat(DENSE[:1], 30),
        np.repeat(SHARES[:1], 30),
        np.repeat(MEASURED[:1], 30, axis=0),
        Votes(*(np.zeros(30) for _ in range(4))),
        4.0,
    )
    assert many.hits == pytest.approx(np.full(30, one.hits[0]), abs=1e-12)
    assert many.answerable == pytest.approx(one.answerable, abs=1e-12)


def test_no_hit_no_answer() -> None:
    nothing = Votes(*(np.zeros(0) for _ in range(4)))
    found = relevance(
        OF, np.empty(0, np.float32), np.empty(0), np.empty((0, 4), np.float32), nothing, 4.0
    )
    assert found.answerable == 0.0
    assert len(found.hits) == 0


def test_given_candidates_are_judged_by_their_words() -> None:
    found = relevance_of_given(OF, before_votes_of_given(OF, MEASURED[:, :3]), votes(), 4.0)
    assert found.hits == pytest.approx([chance(-1 + 1.0 - 1.0), chance(-1 - 1.5)], abs=1e-6)


def test_no_vote_at_all_and_votes_of_nothing_are_the_same_to_the_bit() -> None:
    before, nothing = before_votes(OF, DENSE, SHARES, MEASURED), votes()
    silent = replace(nothing, any_vote=False)
    found = after_votes(OF, before, silent, 4.0)
    assert found.hits == after_votes(OF, before, nothing, 4.0).hits
    assert found.answerable == pytest.approx(
        after_votes(OF, before, nothing, 4.0).answerable, abs=1e-15
    )
    known = replace(silent, grades=np.array([0.0, 1.0]))
    assert after_votes(OF, before, known, 4.0).hits == [found.hits[0], pytest.approx(0.99)]
