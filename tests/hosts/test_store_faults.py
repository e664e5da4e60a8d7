"""While the object store fails, hosts answer from what they have, and take votes."""

import logging
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cut_line import Line
from folders import QUERY
from hosts import Shared, come_to
from on_postgres import url_of
from rag_flywheel import Config, Flywheel, Passage, StorageError
from rag_flywheel.deploy import follow
from rag_flywheel.deploy.objects import Objects
from rag_flywheel.errors import InputError, ObjectStoreError


@contextmanager
def gone(index: Shared) -> Iterator[None]:
    """The object store is not there in the block: a file has the name of its folder."""
    store = index.folder / "store"
    store.rename(index.folder / "away")
    store.touch()
    try:
        yield
    finally:
        store.unlink()
        (index.folder / "away").rename(store)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be fetched is asked for again at once."""
    monkeypatch.setattr(follow, "_PAUSE_S", 0.05)
    monkeypatch.setattr(follow, "_LONGEST_PAUSE_S", 0.1)


def ids(fw: Flywheel) -> list[str]:
    return [hit.passage_id for hit in fw.retrieve(QUERY, k=30, record=False).hits]


def vote(fw: Flywheel, n: int = 1) -> str:
    found = fw.retrieve(QUERY, k=8, user_id="u")
    for user in range(n):
        fw.feedback(found.id, found.hits[-1].passage_id, "helpful", user_id=f"u{user}")
    return found.hits[-1].passage_id


def newest(index: Shared, one: Flywheel, name: str = "more") -> str:
    """A version that one host makes live."""
    one.add([Passage(name, "common word3 of another kind")])
    return str(one.refresh().version)


def noted(index: Shared) -> bool:
    """Whether a host noted that a version is damaged in the store."""
    with index.sql() as conn:
        return bool(conn.execute("SELECT 1 FROM meta WHERE key = 'damaged'").fetchone())


def test_while_it_is_gone_the_last_version_serves_with_newest_votes_and_passages(
    on_s3: Shared, line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = on_s3.begun("one", "two")
    first = two.retrieve(QUERY, record=False).version
    version = newest(on_s3, one)
    with line.cut(), caplog.at_level(logging.ERROR):
        for _ in range(20):
            assert two.retrieve(QUERY, record=False).version == first
        voted = vote(one, 3)
        assert voted in ids(two)[:7]
        assert "more" in ids(two)
        vote(two)
        found = two.status()
        assert (found.version, found.live_version) == (first, version)
        assert found.behind_since is not None
        check = {check.name: check for check in two.health().checks}
        assert check["object store"].state == "degraded"
        assert first in check["version here"].found and version in check["version here"].found
    said = [r for r in caplog.records if getattr(r, "event", "") == "version_not_fetched"]
    assert len(said) == 1  # however often it was tried
    come_to(two, version)
    assert two.health().state == "ok"
    assert two.status().behind_since is None


def test_a_rollback_is_followed_once_it_is_back_and_a_release_without_it(shared: Shared) -> None:
    one, two = shared.begun("one", "two")
    first = one.status().version
    second = newest(shared, one)
    late = shared.open("late")  # which has the second version alone
    come_to(late, second)
    come_to(two, second)
    with gone(shared):
        one.rollback(hold=True)
        assert two.retrieve(QUERY, record=False).version == first  # which it has
        assert late.retrieve(QUERY, record=False).version == second
        assert two.release()
        assert not two.status().held
    come_to(late, first)


def test_a_refresh_without_it_fails_clearly_and_the_next_one_goes_on(shared: Shared) -> None:
    one, two = shared.begun("one", "two")
    live = one.status().version
    one.add([Passage("more", "common word3 of another kind")])
    with gone(shared):
        with pytest.raises(StorageError):
            one.refresh()
        assert one.retrieve(QUERY, record=False).version == live
        assert one.status().live_version == live
    report = two.refresh()
    assert report.outcome == "promoted"
    come_to(one, report.version)
    assert one.verify() == []


def test_a_host_without_any_version_says_why_it_cannot_answer(shared: Shared) -> None:
    (one,) = shared.begun("one")
    with gone(shared):
        late = shared.open("late")
        with pytest.raises(ObjectStoreError):
            late.retrieve(QUERY, record=False)
        late.add([Passage("more", "common word3 of another kind")])  # which needs no version
    come_to(late, one.status().version)
    assert "more" in ids(late)


def test_a_restarted_host_serves_the_version_it_has(shared: Shared) -> None:
    one, two = shared.begun("one", "two")
    first = two.retrieve(QUERY, record=False).version
    two.close()
    version = newest(shared, one)
    with gone(shared):
        again = shared.open("two")
        assert again.retrieve(QUERY, record=False).version == first
    come_to(again, version)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "deleted"])
def test_a_damaged_part_is_never_served_and_the_last_version_goes_on(
    shared: Shared, damage: str
) -> None:
    one, two = shared.begun("one", "two")
    first = two.retrieve(QUERY, record=False).version
    version = newest(shared, one)
    manifest = shared.store().manifest(version)
    before = shared.store().manifest(str(first)).files.values()
    digest = next(of[0] for of in manifest.files.values() if of not in before and of[1] > 100)
    part = shared.folder / "store" / "parts" / digest[:2] / digest
    whole = part.read_bytes()
    part.chmod(0o600)
    if damage == "deleted":
        part.unlink()
    else:
        part.write_bytes(whole[:-10] if damage == "truncated" else whole[:-1] + b"\xff")
    for _ in range(10):
        assert two.retrieve(QUERY, record=False).version == first
    assert "more" in ids(two)
    if damage != "flipped":
        assert any("sends it again" in problem for problem in two.verify())
    else:
        until = time.monotonic() + 20
        while two.retrieve(QUERY, record=False).version == first and not noted(shared):
            assert time.monotonic() < until
    assert one.refresh().outcome == "unchanged"  # which sends it again
    come_to(two, version)
    assert two.verify() == []


MANIFESTS = {
    "empty": b"",
    "too large": b"x" * 5_000_000,
    "no object": b"[]",
    "too deep": b"[" * 100_000,
    "not text": b"\xff" * 100,
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_damaged_manifest_is_sent_again_by_the_next_refresh(shared: Shared, kind: str) -> None:
    (one,) = shared.begun("one")
    version = one.status().version
    path = shared.folder / "store" / "versions" / str(version) / "manifest.json"
    path.write_bytes(MANIFESTS[kind])
    with pytest.raises(StorageError):
        shared.open("two").retrieve(QUERY, record=False)
    one.refresh()
    assert shared.open("three").retrieve(QUERY, record=False).version == one.status().version


def test_an_address_of_the_store_in_the_database_that_holds_a_secret_is_not_shown(
    shared: Shared,
) -> None:
    shared.begun("one")
    with shared.sql() as conn:
        conn.execute("UPDATE meta SET value = 's3://ann:hunter2@bucket/kb' WHERE key = 'objects'")
    for objects in (shared.objects, None):
        with pytest.raises(InputError) as caught:
            shared.open("two", objects=objects).status()
        assert "hunter2" not in str(caught.value)


def test_an_old_current_there_misleads_nobody_and_is_put_right(shared: Shared) -> None:
    one, two = shared.begun("one", "two")
    store = shared.store()
    old, _ = store.current()
    version = newest(shared, one)
    assert store.current()[0] != old
    store.set_current(old, store.current()[1])
    come_to(two, version)
    late = shared.open("late")
    assert late.retrieve(QUERY, record=False).version == version
    assert two.refresh().outcome == "unchanged"
    assert store.current()[0].split()[0] == version


def test_a_store_that_was_emptied_is_filled_again_by_the_next_refresh(shared: Shared) -> None:
    one, two = shared.begun("one", "two")
    shutil.rmtree(shared.folder / "store")
    assert one.refresh().outcome == "unchanged"
    late = shared.open("late")
    assert late.retrieve(QUERY, record=False).version == one.status().version
    shutil.rmtree(shared.folder / "store")
    shutil.rmtree(shared.root("one") / "versions")
    shutil.rmtree(shared.root("two") / "versions")
    shutil.rmtree(shared.root("late") / "versions")
    other = shared.open("other")  # no host has the live version any more
    assert other.refresh().outcome == "promoted"
    for fw in (one, two, late):
        come_to(fw, other.status().version)
        assert fw.verify() == []


def test_a_version_that_is_deleted_while_a_host_fetches_it_is_passed_over(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = shared.begun("one", "two")
    newest(shared, one)
    fetch, done = Objects.fetch, list[str]()

    def overtaken(self: Objects, root: Path, version: str, **more: object) -> object:
        if root == shared.root("two") and not done:
            done.append(newest(shared, one, "other"))
            self.delete([version])
        return fetch(self, root, version)

    monkeypatch.setattr(Objects, "fetch", overtaken)
    two.retrieve(QUERY, record=False)
    until = time.monotonic() + 20
    while not done:
        assert time.monotonic() < until
        time.sleep(0.01)
    come_to(two, done[0])
    assert done == [one.status().live_version]


def test_retention_leaves_what_a_host_is_fetching_and_notes_age_by_the_servers_clock(
    shared: Shared,
) -> None:
    one = shared.open("one", config=Config(encoder="", keep_versions=2))
    one.add([Passage(f"p{n}", f"common word{n}") for n in range(30)])
    first = str(one.refresh().version)
    with shared.sql() as conn:
        now = "extract(epoch FROM clock_timestamp())"
        conn.execute(f"INSERT INTO fetches VALUES ('two', %s, {now} - 3500)", (first,))
        for n in range(4):
            newest(shared, one, f"more{n}")
            assert first in shared.store().versions()
        conn.execute("UPDATE fetches SET at = at - 200")
        newest(shared, one, "last")
        assert first not in shared.store().versions()
        assert first not in [v.id for v in one.versions()]
    assert len(shared.store().versions()) == 2


def test_two_indexes_do_not_share_a_place(shared: Shared, tmp_path: Path) -> None:
    shared.begun("one")
    with pytest.raises(InputError, match="versions of another index"):
        Flywheel.open(
            url_of("elsewhere"), cache=tmp_path / "x", objects=shared.objects, encoder=None
        )


def test_a_store_that_hangs_delays_no_answer(on_s3: Shared, line: Line) -> None:
    one, two = on_s3.begun("one", "two")
    first = two.retrieve(QUERY, record=False).version
    version = newest(on_s3, one)
    with line.hanging():
        began = time.monotonic()
        for _ in range(10):
            assert two.retrieve(QUERY, record=False).version == first
            vote(two)
        assert time.monotonic() - began < 5
    come_to(two, version)
    assert two.status().n_votes == 10


def test_many_hosts_and_a_bucket(on_s3: Shared) -> None:
    one, two, three = on_s3.begun("one", "two", "three")
    version = newest(on_s3, two)
    for fw in (one, three):
        come_to(fw, version)
        assert ids(fw) == ids(two)
        assert fw.verify() == []
        assert fw.health().state == "ok"
    one.forget("u0")
    assert on_s3.store().current()[0].split()[0] == one.status().live_version


def test_a_slow_store_delays_no_answer(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = shared.begun("one", "two")
    two.retrieve(QUERY, record=False)
    begun, go_on, fetch = threading.Event(), threading.Event(), Objects.fetch

    def slow(self: Objects, root: Path, version: str, **more: object) -> object:
        if root == shared.root("two"):
            begun.set()
            assert go_on.wait(30)
        return fetch(self, root, version)

    monkeypatch.setattr(Objects, "fetch", slow)
    version = newest(shared, one)
    began = time.monotonic()
    for _ in range(10):
        assert two.retrieve(QUERY, record=False).version != version
    assert begun.wait(10)
    assert time.monotonic() - began < 5
    go_on.set()
    come_to(two, version)
