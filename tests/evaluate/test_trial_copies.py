"""Near-duplicates judge as one: copies of a question make no replacement likelier."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest

from rag_flywheel.evaluate.gate import Looks
from rag_flywheel.evaluate.held_out import Judges
from rag_flywheel.evaluate.trial import Gate, Side, gated
from rag_flywheel.improve.examples import Examples, no_golden
from rag_flywheel.rank.features import FEATURES
from rag_flywheel.rank.parameters import Kernel, Parameters
from rag_flywheel.records import QueryKey
from voted import of_net

ALONE = Kernel(0.2, 0.9, 2.0, 0.5, neighbours=0)
NOTHING = dict.fromkeys(FEATURES, 0.0)
KEPT = replace(Parameters(), weights={**NOTHING, FEATURES[1]: 1.0}, kernel=ALONE)
NEW = replace(KEPT, weights={**NOTHING, FEATURES[0]: 1.0})


@dataclass(frozen=True)
class Grouped:
    """Judges, and the group of each held-out query."""

    judges: Judges
    groups: npt.NDArray[np.int64]


def judges(groups: Sequence[int], right: Sequence[bool], size: Sequence[float]) -> Grouped:
    """A query of each of these groups; of its two hits the new parameters prefer the first, the
    kept ones the second, both by so much; users prefer the first where that is right."""
    n = len(groups)
    features = np.zeros((n, 2, len(FEATURES)), dtype=np.float32)
    features[:, 0, 0] = features[:, 1, 1] = np.asarray(size)[list(groups)]
    said = np.where(np.asarray(right)[list(groups)], 1.0, -1.0)
    held_out = Examples(
        [QueryKey(i.to_bytes(16, "big"), None) for i in range(n)],
        np.tile(np.eye(1, 4, dtype=np.float32), (n, 1)),
        np.tile(np.arange(2), (n, 1)),
        features,
        *of_net(np.stack([said, -said], axis=1)).values(),
        np.zeros(n, dtype=np.int64),
    )
    nothing = held_out.at(np.empty(0, dtype=np.int64))
    numbers = np.array(groups, dtype=np.int64)
    return Grouped(Judges(held_out, no_golden(nothing), nothing), numbers)


def copied(n: int, copies: int, times: int) -> list[int]:
    """n groups, the first so many of them with this number of queries each."""
    return [g for g in range(n) for _ in range(times if g < copies else 1)]


def brought(some: Grouped) -> Gate:
    sides = Side(NEW, some.judges), Side(KEPT, some.judges)
    return gated(*sides, some.groups, 500, Looks())


def drawn(seed: int, n: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """New parameters that are right as often as wrong."""
    rng = np.random.default_rng(seed)
    return rng.random(n) < 0.5, rng.uniform(0.5, 2.0, n)


def assert_same(one: Gate, other: Gate) -> None:
    """The same decision, by the same numbers."""
    ours, theirs = one.decision, other.decision
    assert (ours.outcome, ours.n_judged) == (theirs.outcome, theirs.n_judged)
    assert [ours.p, ours.mean, ours.error] == pytest.approx([theirs.p, theirs.mean, theirs.error])


@pytest.mark.parametrize("times", [2, 10, 50])
@pytest.mark.parametrize("right", [True, False])
def test_copies_of_one_question_change_nothing(times: int, right: bool) -> None:
    for n_right in (30, 40, 45):
        rights = [right, *(i < n_right for i in range(59))]
        once = brought(judges(copied(60, 0, 1), rights, [1.5] * 60))
        often = brought(judges(copied(60, 1, times), rights, [1.5] * 60))
        assert_same(often, once)
        assert often.by_query["log_likelihood"] == once.by_query["log_likelihood"]
        assert often.by_query["condensed_ndcg"] == once.by_query["condensed_ndcg"]
        assert often.by_query["groups"] == copied(60, 1, times)
        assert len(often.by_query["queries"]) == often.scores["n_held_out"] == 59 + times


@pytest.mark.parametrize(("n", "times"), [(30, 2), (49, 3), (6, 10), (1, 500)])
def test_copies_do_not_make_enough_judges(n: int, times: int) -> None:
    gate = brought(judges(copied(n, n, times), [True] * n, [2.0] * n))
    assert (gate.decision.outcome, gate.decision.n_judged) == ("too few", n)


@pytest.mark.parametrize(
    ("n", "copies", "times"),
    [
        (60, 60, 2),
        pytest.param(56, 6, 10, marks=pytest.mark.slow),
        pytest.param(50, 1, 200, marks=pytest.mark.slow),
    ],
)
def test_with_copies_too_few_that_are_no_better_are_let_in(n: int, copies: int, times: int) -> None:
    """At most 2.5 % and three binomial standard errors; one by one, as without copies.

    Of those that are hardly right more often than wrong only some are asked.
    """
    taken, runs = 0, 500
    for seed in range(runs):
        right, size = drawn(seed, n)
        likely = np.where(right, size, -size).sum() > np.sqrt((size**2).sum())
        if not likely and seed % 50:
            continue
        gate = brought(judges(copied(n, copies, times), right.tolist(), size.tolist()))
        taken += gate.decision.replaces
        assert likely or not gate.decision.replaces
        if seed % 10 == 0:
            assert_same(gate, brought(judges(copied(n, 0, 1), right.tolist(), size.tolist())))
    assert 0 < taken <= runs * (0.025 + 3 * math.sqrt(0.025 * 0.975 / runs))


def test_a_group_says_the_mean_of_its_queries_and_what_says_nothing_is_left_out() -> None:
    some = judges([*range(60), 59], [True] * 60, [1.0] * 60)
    for row in (59, 3):  # all helpful: no order is worse
        some.judges.held_out.helpful[row], some.judges.held_out.harmful[row] = 1.0, 0.0
    gate = brought(some)
    alone = brought(replace(some, groups=np.arange(61)))
    by_query, by_group = alone.by_query, gate.by_query
    for side in ("candidate", "incumbent"):
        every, ours = by_query["log_likelihood"][side], by_group["log_likelihood"][side]
        assert ours == pytest.approx([*every[:59], (every[59] + every[60]) / 2], abs=2e-6)
        every, ours = by_query["condensed_ndcg"][side], by_group["condensed_ndcg"][side]
        assert ours == [*every[:59], every[60]]
        assert every[59] is None and ours[3] is None
    assert gate.decision.n_judged == 60
    assert alone.decision.n_judged == 61


def test_numbers_and_order_of_groups_do_not_matter() -> None:
    right, size = drawn(4, 60)
    some = judges(copied(60, 20, 3), right.tolist(), size.tolist())
    renamed = replace(some, groups=1000 - 7 * some.groups)
    turned = np.random.default_rng(1).permutation(len(some.groups))
    held_out = some.judges.held_out.at(turned)
    shuffled = Grouped(replace(some.judges, held_out=held_out), some.groups[turned])
    means = {brought(each).decision.mean for each in (some, renamed, shuffled)}
    assert max(m or 0.0 for m in means) == pytest.approx(min(m or 0.0 for m in means))
    for each in (renamed, shuffled):
        found = brought(each)
        assert (found.decision.outcome, found.decision.n_judged) == (
            brought(some).decision.outcome,
            60,
        )
        assert sorted(set(found.by_query["groups"])) == list(range(60))
