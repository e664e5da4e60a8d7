"""A refresher that is killed at any point, or that slept while another went on, harms no host."""

import signal

import pytest

from folders import QUERY
from hosts import Shared, come_to
from rag_flywheel import Flywheel, Passage

BEFORE_ROW = ("building", "sending", "sent")
POINTS = (*BEFORE_ROW, "row", "current", "telling", "pruning", "sweeping")


def built(shared: Shared) -> set[str]:
    """The versions that the database knows."""
    with shared.sql() as conn:
        return {row[0] for row in conn.execute("SELECT version FROM builds")}


def ids(fw: Flywheel) -> list[str]:
    return [hit.passage_id for hit in fw.retrieve(QUERY, k=30, record=False).hits]


@pytest.mark.parametrize("point", POINTS)
def test_a_refresher_killed_at_any_point_leaves_all_others_at_work(
    shared: Shared, point: str
) -> None:
    one, three = shared.begun("one", "three")
    first = one.status().live_version
    found = one.retrieve(QUERY, k=8, user_id="u")
    one.feedback(found.id, found.hits[2].passage_id, "helpful", user_id="u")
    with shared.worker("two", "refresh", point) as worker:
        assert worker.said() == ["there"]
        assert worker.ended() == -signal.SIGKILL
    assert "more" in ids(three)  # which is fresh, or in the version
    assert len(ids(three)) == len(set(ids(three)))
    live = str(three.status().live_version)
    assert (live == first) == (point in BEFORE_ROW)
    for fw in (one, three):
        come_to(fw, live)
    found = three.retrieve(QUERY, k=8, user_id="v")
    three.feedback(found.id, found.hits[2].passage_id, "helpful", user_id="v")
    one.add([Passage("later", "common word3 once more")])
    report = one.refresh()
    assert report.outcome == "promoted"
    again = shared.open("two")
    for fw in (one, three, again):
        come_to(fw, report.version)
        assert {"more", "later"} <= set(ids(fw))
        assert fw.status().n_votes == 2
        assert fw.verify() == []
        assert fw.health().state == "ok", fw.health()
    assert set(shared.store().versions()) == built(shared)
    assert shared.store().current()[0].split()[0] == report.version


def test_a_refresher_that_slept_while_another_promoted_does_not_promote_over_it(
    shared: Shared,
) -> None:
    one, three = shared.begun("one", "three")
    with shared.worker("two", "refresh", "sending", "SIGSTOP") as worker:
        assert worker.said() == ["there"]
        shared.end_connections()  # with them goes its lock
        one.add([Passage("later", "common word3 once more")])
        promoted = one.refresh()
        assert promoted.outcome == "promoted"
        worker.go_on()
        name, said = worker.said()
        assert (name, "was lost" in said) == ("LockedError", True)
        assert worker.ended() == 0
    for fw in (one, three, shared.open("two")):
        come_to(fw, promoted.version)
        assert {"more", "later"} <= set(ids(fw))
        assert fw.verify() == []
    versions = shared.root("two") / "versions"
    assert {path.name for path in versions.iterdir()} <= set(shared.store().versions())
    one.add([Passage("last", "common word3 to the end")])
    newest = one.refresh().version
    assert set(shared.store().versions()) == built(shared)
    come_to(three, newest)


@pytest.mark.parametrize("point", ["row", "sending", "pruning", "sweeping"])
def test_one_whose_connections_end_meanwhile_does_no_harm(shared: Shared, point: str) -> None:
    """It promotes, or is told that it may not; whoever comes next goes on."""
    one, three = shared.begun("one", "three")
    for n in range(3):
        one.add([Passage(f"more{n}", f"common word{n} of another kind")])
        one.refresh()
    with shared.worker("two", "refresh", point, "SIGSTOP") as worker:
        assert worker.said() == ["there"]
        shared.end_connections()
        worker.go_on()
        assert worker.said()[0] in ("promoted", "LockedError")
        assert worker.ended() == 0
    one.add([Passage("later", "common word3 once more")])
    report = one.refresh()
    assert report.outcome == "promoted"
    for fw in (one, three, shared.open("two")):
        come_to(fw, report.version)
        assert fw.verify() == []
