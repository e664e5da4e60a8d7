"""Those of a group that is believed, who look less accurate than others by luck alone."""

from rag_flywheel.rank.raters import RaterWeight
from rag_flywheel.refresh.raters import _like_their_peers, _most_believed

GROUP = {
    **{f"u{i}": RaterWeight(1.0, 0.60 + i / 100) for i in range(9)},
    "unlucky": RaterWeight(0.0, 0.50),
    "inverting": RaterWeight(0.0, 0.24),
    "pushing": RaterWeight(0.0, 0.55, crowd=1),
}
PEERS = {*GROUP, "a session without a user"}


def test_the_unlucky_one_of_a_believed_group_weighs_as_the_group_does() -> None:
    others = {"elsewhere": RaterWeight(0.0, 0.60)}
    weighed, errors = GROUP | others, dict.fromkeys([*GROUP, *others], 0.06)
    assert _most_believed(weighed, PEERS)
    assert _like_their_peers(weighed, errors, PEERS) == {"unlucky": RaterWeight(1.0, 0.50)}


def test_with_many_votes_the_same_accuracy_is_no_luck() -> None:
    assert _like_their_peers(GROUP, dict.fromkeys(GROUP, 0.02), PEERS) == {}


def test_a_group_lends_no_more_than_an_ordinary_weight_and_no_more_than_it_has() -> None:
    for median, lent in ((2.0, 1.0), (0.7, 0.7)):
        group = {f"u{i}": RaterWeight(median, 0.6) for i in range(5)}
        group["low"] = RaterWeight(0.2, 0.58)
        found = _like_their_peers(group, dict.fromkeys(group, 0.05), set(group))
        assert found == {"low": RaterWeight(lent, 0.58)}


def test_a_group_of_which_half_is_doubted_is_not_one_that_is_believed() -> None:
    half = {f"u{i}": RaterWeight(float(i % 2), 0.6) for i in range(6)}
    assert not _most_believed(half, set(half))
    assert not _most_believed(half, {"nobody who votes"})
