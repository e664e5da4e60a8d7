"""Counts that leave the house: bounded, noisy, without rare keys, and with their privacy loss."""

import math
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import opendp.prelude as dp
import pytest

from fakes import WordEncoder
from rag_flywheel import DpCounts, Flywheel, InputError, Passage, Vote
from rag_flywheel.privacy.dp_counts import bounded_counts
from rag_flywheel.store.by_user import votes_by_user
from rag_flywheel.store.tenants import ALL_TENANTS

USERS = [f"user {n}" for n in range(60)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("counts") / "kb"
    votes = []
    with opened(root) as fw:
        fw.add([Passage("reset", "press reset for a password"), Passage("cats", "cats sleep")])
        for user in USERS:
            asked = fw.retrieve("How do I reset it?", user_id=user)
            votes.append(Vote(asked.id, "reset", "helpful", user))
            fw.missing(fw.retrieve("where are the dogs", user_id=user).id, user_id=user)
        rare = fw.retrieve("my own secret question", user_id="eve")
        votes.append(Vote(rare.id, "cats", "harmful", "eve"))
        for _ in range(200):  # whoever comes often counts once
            asked = fw.retrieve("how do I reset it ", user_id="eve")
            votes.append(Vote(asked.id, "reset", "helpful", "eve"))
        fw.retrieve_many(["asked by nobody"] * 100)  # whose part nothing bounds
        fw.feedback_many(votes)
    return root


@pytest.fixture
def fw(made: Path, tmp_path: Path) -> Iterator[Flywheel]:
    with opened(Path(shutil.copytree(made, tmp_path / "kb"))) as found:
        yield found


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder())


def released(fw: Flywheel, what: str) -> DpCounts:
    return fw.dp_counts(what, epsilon=2.0, delta=1e-6, most_keys=2)


def test_many_users_are_counted_and_rare_keys_are_left_out(fw: Flywheel) -> None:
    votes = released(fw, "votes")
    assert [c.key for c in votes.counts] == [("reset", "helpful")]
    questions = released(fw, "questions")
    assert [c.key for c in questions.counts] == [("how do i reset it",), ("where are the dogs",)]
    assert [c.key for c in released(fw, "missing").counts] == [("where are the dogs",)]
    for each in (*votes.counts, *questions.counts):
        assert abs(each.n - 61) < 25  # 200 more of eve would show
    assert votes.threshold > 2 * votes.scale


def test_there_is_noise_of_the_scale_that_is_stated(fw: Flywheel) -> None:
    found = [fw.dp_counts("votes", epsilon=1.0, most_keys=1) for _ in range(60)]
    counts = [c.counts[0].n for c in found if c.counts]
    assert len(counts) == 60 and len(set(counts)) > 3
    away = sum(abs(n - 61) for n in counts) / len(counts)
    assert found[0].scale == pytest.approx(1.0)
    assert 0.4 < away < 1.8  # the mean of |Laplace| is its scale


def test_the_loss_is_what_opendp_says_and_is_added_up(fw: Flywheel) -> None:
    one = fw.dp_counts("votes", epsilon=0.5, delta=1e-7, most_keys=5)
    domain = dp.map_domain(dp.atom_domain(T=str), dp.atom_domain(T=int))
    metric = dp.l01inf_distance(dp.absolute_distance(T=int))
    for threshold, within in ((one.threshold, True), (one.threshold - 1, False)):
        mechanism = dp.m.make_laplace_threshold(domain, metric, one.scale, threshold)
        epsilon, delta = mechanism.map((5, 5, 1))
        assert epsilon <= 0.5 and (delta <= 1e-7) == within
    assert (one.epsilon, one.delta, one.most_keys) == (0.5, 1e-7, 5)
    assert (one.epsilon_spent, one.delta_spent) == (0.5, 1e-7)
    two = fw.dp_counts("missing", epsilon=1.0, delta=1e-6)
    assert (two.epsilon_spent, two.delta_spent) == pytest.approx((1.5, 1.1e-6))


def test_one_user_changes_few_counts_by_one_each() -> None:
    many = [(user, (f"key {n}",)) for user in "abc" for n in range(50)] * 3
    counts = bounded_counts(many, 4)
    assert sum(counts.values()) == 12 and max(counts.values()) <= 3
    without = bounded_counts([given for given in many if given[0] != "c"], 4)
    assert sum(without.values()) == 8
    one = Counter(key for _ in range(2_000) for key in bounded_counts(many[:50], 1))
    assert len(one) == 50 and max(one.values()) < 90  # chosen at random
    assert bounded_counts([("a", ("x",))] * 9, 4) == {("x",): 1}


def test_the_last_verdict_of_a_user_on_a_passage_counts(fw: Flywheel) -> None:
    asked = fw.retrieve("cats", user_id="bob")
    for verdict in ("helpful", "harmful", "retract", "harmful"):
        fw.feedback(asked.id, "cats", verdict, user_id="bob")  # type: ignore[arg-type]
    fw.feedback(asked.id, "reset", "helpful", user_id="bob")
    fw.feedback(asked.id, "reset", "retract", user_id="bob")
    fw.mute("eve")
    with fw._database.reading() as conn:
        found = Counter(key for _, key in votes_by_user(conn, ALL_TENANTS))
    assert found == {("reset", "helpful"): 60, ("cats", "harmful"): 1}


BAD: list[tuple[dict[str, object], str]] = [
    ({"what": "users"}, "what is 'users'"),
    ({"epsilon": 0.0}, "epsilon is 0.0"),
    ({"epsilon": 11}, "at most 10"),
    ({"epsilon": math.nan}, "epsilon is nan"),
    ({"epsilon": True}, "epsilon is True"),
    ({"epsilon": "1"}, "epsilon is '1'"),
    ({"delta": 0.5}, "delta is 0.5"),
    ({"most_keys": 0}, "most_keys is 0"),
    ({"most_keys": 10**6}, "most_keys is 1000000"),
]


def test_what_no_release_can_have_costs_nothing(fw: Flywheel) -> None:
    for given, message in BAD:
        with pytest.raises(InputError, match=message):
            fw.dp_counts(**given)  # type: ignore[arg-type]
    assert fw.dp_counts("votes", epsilon=1.0).epsilon_spent == 1.0


@pytest.mark.parametrize("epsilon", [5e-324, 1e-300, 1e-9, 1e-3, 1.0, 20.0])
@pytest.mark.parametrize("delta", [5e-324, 7.9e-144, 1e-30, 1e-15, 1e-6])
def test_any_loss_is_released_or_refused_and_what_is_refused_costs_nothing(
    fw: Flywheel, epsilon: float, delta: float
) -> None:
    before = fw.dp_counts().epsilon_spent
    try:
        found = fw.dp_counts(epsilon=epsilon, delta=delta)
    except InputError as error:
        assert "is " in str(error)
        assert fw.dp_counts().epsilon_spent == pytest.approx(before + 1.0)
    else:
        assert found.epsilon_spent == pytest.approx(before + epsilon)
