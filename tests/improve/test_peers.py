"""Peers: voters who ask where a voter asks, apart from what others ask."""

import numpy as np
import pytest

from rag_flywheel.improve.examples import Floats, Ints
from rag_flywheel.improve.peers import AROUND, Asking

FEW, MANY = range(8), range(8, 40)


def unit(rows: Floats) -> Floats:
    found: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return found


def nearest(vectors: Floats) -> Ints:
    return np.argsort(-(vectors @ vectors.T), axis=1, kind="stable")[:, :64]


def asked(rng: np.random.Generator, words: float, *, n: int = 400) -> tuple[Ints, Ints, Ints]:
    """Voters, questions, and those nearest to each: needs of which each is asked by some of the many, and
    every second one by two of the few; words: how far their words move a question."""
    needs, moved = unit(rng.normal(size=(n, 24))), unit(rng.normal(size=(1, 24)))
    voter, question, vectors = [], [], []
    for i in range(n):
        for own in (False, True)[: 1 + i % 2]:
            vectors.append(needs[i] + words * own * moved[0] + 0.1 * rng.normal(size=24))
            for who in rng.choice(FEW if own else MANY, 2, replace=False):
                voter.append(int(who))
                question.append(len(vectors) - 1)
    return np.array(voter), np.array(question), nearest(unit(np.stack(vectors)))


@pytest.mark.parametrize("seed", range(3))
def test_every_member_of_a_group_that_asks_apart_finds_all_of_it(seed: int) -> None:
    asking = Asking.of(*asked(np.random.default_rng(seed), words=1.0))
    for voter in FEW:
        group = asking.peers(voter)
        assert group.tolist() == list(FEW)
        assert asking.apart(group) > 0.6


@pytest.mark.parametrize("seed", range(3))
def test_those_who_ask_what_others_ask_have_no_group_apart(seed: int) -> None:
    asking = Asking.of(*asked(np.random.default_rng(seed), words=0.0))
    assert asking.apart(np.array(FEW)) < 0.5  # a third of all questions is theirs
    for voter in (*FEW, *MANY):
        group = asking.peers(voter)
        assert len(group) < 5 or asking.apart(group) < 0.4


def test_the_rest_is_no_group_beside_one_that_asks_apart() -> None:
    asking = Asking.of(*asked(np.random.default_rng(0), words=1.0))
    for voter in MANY:
        assert not set(asking.peers(voter).tolist()) & set(FEW)


def test_questions_without_votes_and_a_question_itself_do_not_count() -> None:
    # 0 and 1 have votes, 2 has none; each is nearest to itself
    near = np.array([[0, 2, 1], [1, 2, 0], [2, 0, 1]])
    asking = Asking.of(np.array([0, 1, 1]), np.array([0, 1, 1]), near)
    assert asking.around.toarray().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert asking.by.toarray().tolist() == [[1, 0, 0], [0, 1, 0]]
    assert asking.apart(np.array([0])) == 0.0
    assert asking.apart(np.array([0, 1])) == 1.0


def test_a_tenth_of_few_questions_is_around_one_and_thirty_of_many() -> None:
    for n, k in ((20, 5), (150, 15), (1000, AROUND)):
        near = (np.arange(n)[:, None] + np.arange(min(n, 64))[None, :]) % n
        asking = Asking.of(np.zeros(n, dtype=np.int64), np.arange(n), near)
        assert asking.around.sum(axis=1).tolist() == [k] * n


def test_without_neighbours_there_is_nobody_around() -> None:
    asking = Asking.of(np.array([0]), np.array([0]), np.array([[0]]))
    assert asking.peers(0).tolist() == [] and asking.apart(np.array([0])) == 0.0
