"""Simulated users do what they say, in the shares they say."""

import numpy as np
import pytest

from rag_flywheel.bench.users import Users
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


def test_verdicts_on_answers_fall_on_the_first_three_hits() -> None:
    voted, rates = shares(Users(eps=0.2, answer_level=True))
    assert [voted[f"p{i}"] for i in range(8)] == [1.0] * 3 + [0.0] * 5
    assert rates["p0"] == pytest.approx(0.8, abs=0.03)  # p2 answers, so the answer helped
