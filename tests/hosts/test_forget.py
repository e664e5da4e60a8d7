"""Forgetting a user reaches the object store, and the folder of every host."""

import signal
from pathlib import Path

import pytest

from forgetting import traces
from hosts import Shared, come_to
from rag_flywheel import Flywheel, LockedError, StorageError
from rag_flywheel.refresh import next_version
from rag_flywheel.store.questions import query_hash, question_key

WORDS = "word3 zebrafish4711"


def voted(shared: Shared, *hosts: str) -> tuple[list[Flywheel], list[str | bytes]]:
    """Hosts of an index that learned from ann, and what must be in no file once she is forgotten."""
    opened = shared.begun(*hosts)
    one = opened[0]
    before = one.retrieve("word9 of others", k=8, user_id="bob")
    one.feedback(before.id, before.hits[1].passage_id, "helpful", user_id="bob")
    one.refresh()
    for user in ("ann", "eve"):
        found = one.retrieve(WORDS if user == "ann" else "word11 again", k=8, user_id=user)
        one.feedback(found.id, found.hits[1].passage_id, "helpful", user_id=user)
    report = one.refresh()
    for fw in opened:
        come_to(fw, report.version)
    with one._database.reading() as conn:
        name = query_hash(question_key(conn), WORDS)
    return opened, [name, str(one.hashed_user("ann")), WORDS]


def held(folder: Path, secrets: list[str | bytes]) -> list[str]:
    """Which files of an object store or of a host hold them; parts are named by their content."""
    return traces(folder, secrets)


def test_after_forget_no_object_and_no_file_of_a_host_that_follows_holds_the_user(
    shared: Shared,
) -> None:
    (one, two, three), secrets = voted(shared, "one", "two", "three")
    store = shared.folder / "store"
    assert held(store, secrets)
    assert held(shared.root("two"), secrets)
    for name in ("staging/20261121T093000Z-1-abcdef/left", "quarantine/old/left", "tuning/left"):
        place = shared.root("two") / name  # of refreshes of this host that died
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(WORDS)
    report = one.forget("ann")
    assert held(store, secrets) == []
    assert held(shared.root("one"), secrets) == []
    assert held(shared.root("two"), secrets)  # which has not asked yet
    for fw, host in ((two, "two"), (three, "three")):
        assert fw.retrieve("word3", record=False).version == report.version
        assert held(shared.root(host), secrets) == []
        assert fw.verify() == []
    first = one.versions()[-1].id  # from before the first of the votes
    assert [v.id for v in two.versions()] == [report.version, *[v.id for v in two.versions()[1:]]]
    assert first in [v.id for v in three.versions()]
    assert two.rollback(first) == first


@pytest.mark.parametrize("point", ["building", "sent", "row", "pruning", "sweeping"])
def test_a_forget_that_is_killed_is_finished_by_the_next_refresh_of_any_host(
    shared: Shared, point: str
) -> None:
    (one, two), secrets = voted(shared, "one", "two")
    with shared.worker("three", "forget", point) as worker:
        assert worker.said() == ["there"]
        assert worker.ended() == -signal.SIGKILL
    report = two.refresh()
    assert report.outcome == "promoted"
    assert held(shared.folder / "store", secrets) == []
    assert held(shared.root("two"), secrets) == []
    again = shared.open("three")
    for fw, host in ((one, "one"), (again, "three")):
        assert fw.retrieve("word3", record=False).version == report.version
        assert held(shared.root(host), secrets) == []


def test_a_refresher_that_slept_through_it_brings_nothing_back(shared: Shared) -> None:
    (one, two), secrets = voted(shared, "one", "two")
    with shared.worker("three", "refresh", "sending", "SIGSTOP") as worker:
        assert worker.said() == ["there"]
        shared.end_connections()
        one.forget("ann")
        worker.go_on()
        assert worker.said()[0] == LockedError.__name__
        assert worker.ended() == 0
    report = two.refresh()  # which sweeps what was sent meanwhile
    assert report.outcome == "unchanged"
    again = shared.open("three")
    assert again.retrieve("word3", record=False).version == two.status().live_version
    assert held(shared.root("three"), secrets) == []
    assert held(shared.folder / "store", secrets) == []
    assert set(shared.store().versions()) == {v.id for v in two.versions()}


def test_a_host_that_cannot_fetch_the_next_version_still_deletes_what_was_forgotten(
    shared: Shared,
) -> None:
    (one, two), secrets = voted(shared, "one", "two")
    one.forget("ann")
    (shared.folder / "store").rename(shared.folder / "gone")
    assert two.retrieve("word3", record=False).hits  # by what is in memory
    assert held(shared.root("two"), secrets) == []
    (shared.folder / "gone").rename(shared.folder / "store")
    come_to(two, one.status().live_version)


def test_where_no_version_can_be_built_without_the_user_none_is_live_on_any_host(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, two), secrets = voted(shared, "one", "two")
    for each in one.versions():  # so that none is from before her first vote
        if not each.live:
            with shared.sql() as conn:
                conn.execute("DELETE FROM builds WHERE version = %s", (each.id,))
    with monkeypatch.context() as patch:
        patch.setattr(next_version, "version_problems", lambda *_: ["it is not sound"])
        with pytest.raises(StorageError, match="failed its check"):
            one.forget("ann")
    for fw, host in ((one, "one"), (two, "two")):
        found = fw.retrieve("word3", record=False)
        assert (found.version, len(found.hits)) == (None, 8)
        assert fw.status().live_version is None
        assert held(shared.root(host), secrets) == []
        assert any("no version is live" in entry.text for entry in fw.history(5))
    assert held(shared.folder / "store", secrets) == []
    report = two.refresh()
    assert report.outcome == "promoted"
    come_to(one, report.version)
    assert one.verify() == []
