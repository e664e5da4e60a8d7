"""Simulated users do what they say, in the shares they say."""

from collections import Counter

import numpy as np
import pytest

from rag_flywheel.bench.users import OnAnswer, Users
from rag_flywheel.records import Explanation, Hit, Retrieval

WHY = Explanation(0.0, {}, 0.0)
SEEN = Retrieval("r", "q", None, tuple(Hit(f"p{i}", i + 1, 0, "t", "", {}, WHY) for i in range(8)))
ANSWERS = {"p2": 1, "p5": 1}
N = 4000


def shares(users: Users) -> tuple[dict[str, float], dict[str, float]]:
    """How often each passage is voted on, and how often such a vote says helpful."""
    rng = np.random.default_rng(7)
    voted, helpful = dict.fromkeys(map("p{}".format, range(8)), 0), {f"p{i}": 0 for i in range(8)}
    for n in range(N):
        for vote in users.votes(SEEN, ANSWERS, f"u{n}", rng):
            assert (vote.retrieval_id, vote.user_id) == ("r", f"u{n}")
            voted[vote.passage_id] += 1
            helpful[vote.passage_id] += vote.verdict == "helpful"
    rates = {p: helpful[p] / voted[p] for p in voted if voted[p]}
    return {p: n / N for p, n in voted.items()}, rates


def test_perfect_users_judge_everything_rightly() -> None:
    voted, rates = shares(Users(eta=0.0, eps=0.0))
    assert set(voted.values()) == {1.0}
    assert rates == {f"p{i}": float(f"p{i}" in ANSWERS) for i in range(8)}


def test_attention_falls_with_rank_and_a_fifth_errs() -> None:
    voted, rates = shares(Users())
    for i in range(8):
        assert voted[f"p{i}"] == pytest.approx(1 / (i + 1), abs=0.03)
        right = 0.8 if f"p{i}" in ANSWERS else 0.2
        assert rates[f"p{i}"] == pytest.approx(right, abs=0.06)


def test_trust_in_top_ranks() -> None:
    _, rates = shares(Users(eta=0.0, eps=0.0, trust=0.6))
    assert rates["p0"] == pytest.approx(0.6, abs=0.03)
    assert rates["p1"] == pytest.approx(0.3, abs=0.03)
    assert rates["p2"] == 1.0


def test_attackers() -> None:
    _, inverted = shares(Users(eps=0.0, malicious=1.0, attack="inverted"))
    assert inverted == {f"p{i}": float(f"p{i}" not in ANSWERS) for i in range(8)}
    _, colluding = shares(Users(malicious=1.0, attack="collude"))
    assert colluding == {f"p{i}": float(i == 0) for i in range(8)}
    voted, random = shares(Users(malicious=1.0, attack="random"))
    assert set(voted.values()) == {1.0}
    assert all(rate == pytest.approx(0.5, abs=0.03) for rate in random.values())


def test_a_share_of_attackers() -> None:
    _, rates = shares(Users(eta=0.0, eps=0.0, malicious=0.25, attack="inverted"))
    assert rates["p0"] == pytest.approx(0.25, abs=0.03)
    assert rates["p2"] == pytest.approx(0.75, abs=0.03)


def on_answers(users: Users) -> list[OnAnswer]:
    rng = np.random.default_rng(7)
    said = [users.feedback(SEEN, ANSWERS, f"u{n}", rng) for n in range(N)]
    found = [vote for one in said for vote in one if isinstance(vote, OnAnswer)]
    assert [vote.user_id for vote in found] == [f"u{n}" for n in range(N)]
    return found


def test_a_careful_reader_writes_from_the_first_right_hit_and_a_careless_one_by_rank() -> None:
    by_rank = np.array([1 / (i + 1) for i in range(8)]) / sum(1 / (i + 1) for i in range(8))
    for careful in (0.8, 0.0):
        said = on_answers(Users(eps=0.0, answer_level=True, told="cited", careful=careful))
        for i in range(8):
            share = np.mean([vote.passage_id == f"p{i}" for vote in said])
            expected = (1 - careful) * by_rank[i] + careful * (i == 2)
            assert share == pytest.approx(expected, abs=0.03)
        assert all((v.verdict == "helpful") == (v.passage_id in ANSWERS) for v in said)
        assert all((v.cited, v.answer) == ((v.passage_id,), None) for v in said)


def test_a_fifth_of_verdicts_on_answers_errs() -> None:
    said = on_answers(Users(answer_level=True, told="nothing"))
    wrong = [(vote.verdict == "helpful") != (vote.passage_id in ANSWERS) for vote in said]
    assert np.mean(wrong) == pytest.approx(0.2, abs=0.03)
    assert all((vote.cited, vote.answer) == (None, None) for vote in said)


def test_an_answer_is_a_sentence_or_two_that_share_words_with_the_question() -> None:
    text = "Cats sleep. A dog barks at night. Birds sing. Dogs bark when they are bored."
    seen = Retrieval("r", "why do dogs bark", None, (Hit("p", 1, 0, text, "", {}, WHY),))
    rng = np.random.default_rng(1)
    users = Users(answer_level=True)
    said = [users.feedback(seen, {}, "u", rng)[0] for _ in range(N)]
    found = Counter(vote.answer for vote in said if isinstance(vote, OnAnswer))
    two = "A dog barks at night. Dogs bark when they are bored."
    assert set(found) == {"A dog barks at night.", two}
    assert found[two] / N == pytest.approx(0.5, abs=0.03)


def test_users_who_judge_answers_attack_them_too() -> None:
    said = on_answers(Users(malicious=1.0, attack="inverted", answer_level=True))
    assert all((v.verdict == "harmful") == (v.passage_id in ANSWERS) for v in said)


def test_nothing_is_said_where_nothing_is_shown() -> None:
    empty = Retrieval("r", "q", None, ())
    assert Users(answer_level=True).feedback(empty, {}, "u", np.random.default_rng(0)) == []
