"""Version ids sort by age, however fast versions come and wherever the clock is set."""

import pytest

from rag_flywheel.deploy.versions import is_version_id, new_version_id
from rag_flywheel.store import wall_clock


@pytest.mark.parametrize("back_s", [0.0, 0.4, 3_600.0])
def test_each_id_sorts_after_the_one_before(monkeypatch: pytest.MonkeyPatch, back_s: float) -> None:
    """back_s: how far the clock is set back after each."""
    now = 2e9
    monkeypatch.setattr(wall_clock, "now", lambda: now)
    made = [new_version_id(None)]
    for _ in range(200):
        now -= back_s
        made.append(new_version_id(made[-1]))
    assert made == sorted(set(made))
    assert all(is_version_id(each) for each in made)


def test_the_last_id_of_a_second_is_followed_by_one_of_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wall_clock, "now", lambda: 2e9)
    second = new_version_id(None)[:17]
    assert new_version_id(f"{second}ffffe") == f"{second}fffff"
    after = new_version_id(f"{second}fffff")
    assert (after > f"{second}fffff", after.startswith(second)) == (True, False)
