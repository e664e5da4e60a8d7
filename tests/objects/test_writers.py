"""Several processes at one store, and writers that do not know that they lost the lock."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rag_flywheel import disk
from rag_flywheel.deploy import prune, versions
from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.deploy.object_store import ObjectStore
from rag_flywheel.deploy.objects import PARTS, Objects
from rag_flywheel.errors import ObjectConflictError
from rag_flywheel.store.place import open_database
from s3 import BUCKET

Host = Callable[[str], Path]


class Between(ObjectStore):
    """A store in which something happens just before a manifest is written, or parts are deleted."""

    before_manifest: Callable[[], object] | None = None
    before_delete: Callable[[], object] | None = None

    def create(self, name: str, data: bytes) -> bool:
        if name.endswith("manifest.json") and self.before_manifest is not None:
            happens, self.before_manifest = self.before_manifest, None
            happens()
        return super().create(name, data)

    def state(self, name: str) -> Any:
        found = super().state(name)
        if name.startswith(f"{PARTS}/") and self.before_delete is not None:
            happens, self.before_delete = self.before_delete, None
            happens()
        return found


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    pytest.importorskip("obstore", reason="needs the extra objects: make test-objects")
    if request.param == "s3":
        request.getfixturevalue("s3")
        return f"s3://{BUCKET}/{tmp_path.name}"
    return f"file://{tmp_path}/store"


def done_once(objects: Objects, act: Callable[[], object]) -> list[object]:
    """Let something happen before the first part is read; what it returned is put into the list."""
    read, done, one = objects.read_part, list[object](), threading.Lock()

    def acts_once(digest: str, start: int, end: int) -> bytes:
        with one:
            if not done:
                done.append(act())
        return read(digest, start, end)

    objects.read_part = acts_once  # type: ignore[method-assign]
    return done


def known(root: Path) -> list[tuple[Path, Manifest]]:
    every = versions.list_versions(root)
    return [(versions.version_folder(root, v), versions.read_manifest(root, v)) for v in every]


def is_whole(objects: Objects, manifest: Manifest) -> bool:
    there = {state.name[-64:]: state.n_bytes for state in objects.store.listed(PARTS)}
    return all(there.get(digest) == size for digest, size in manifest.files.values())


def test_one_that_sweeps_while_another_publishes(url: str, built: Path) -> None:
    """The first lost its lock: it deletes what the second took as there, with no grace."""
    (old, first), (new, second), _ = known(built)
    zombie, store = Objects.at(url), Between(url)
    zombie.publish(old, first)

    def happens() -> None:
        zombie.delete([first.id])
        assert zombie.sweep(grace_s=0.0) > 0

    store.before_manifest = happens
    writer = Objects(store)
    sent = writer.publish(new, second)
    assert is_whole(writer, second)
    assert sent.n_parts == len(set(second.files.values()))


def test_one_that_publishes_while_another_sweeps(url: str, built: Path) -> None:
    """Parts that a manifest names since the sweep began are not deleted."""
    (old, first), (new, second), _ = known(built)
    writer, store = Objects.at(url), Between(url)
    writer.publish(old, first)
    writer.delete([first.id])
    zombie = Objects(store)
    named = zombie._named
    calls = 0

    def published_after_the_first_look(keep: Any) -> set[str]:
        nonlocal calls
        calls += 1
        if calls == 2:
            writer.publish(new, second)
        return named(keep)

    zombie._named = published_after_the_first_look  # type: ignore[method-assign]
    n = zombie.sweep(grace_s=0.0)
    assert n == len(set(first.files.values()) - set(second.files.values()))
    assert is_whole(writer, second)


def test_parts_of_no_version_are_sent_again_once_they_are_old(built: Path, tmp_path: Path) -> None:
    """So that one who decided to delete them before finds them young."""
    pytest.importorskip("obstore", reason="needs the extra objects: make test-objects")
    (old, first), (new, second), _ = known(built)
    writer, store = Objects.at(f"file://{tmp_path}/store"), Between(f"file://{tmp_path}/store")
    writer.publish(old, first)
    writer.delete([first.id])
    assert set(first.files.values()) & set(second.files.values())
    for path in (tmp_path / "store" / PARTS).rglob("*"):
        os.utime(path, (0, 0))  # the clock of this store
    store.before_delete = lambda: sent.append(writer.publish(new, second))
    sent: list[Any] = []
    assert Objects(store).sweep() > 0
    assert sent[0].n_skipped == 0
    assert is_whole(writer, second)
    for path in (tmp_path / "store" / PARTS).rglob("*"):
        os.utime(path, (0, 0))
    assert writer.publish(new, second).n_parts == 0, "its manifest names them"


def test_a_zombie_publishes_what_nobody_asked_for(url: str, built: Path, host: Host) -> None:
    """Its version never goes live, and harms no other; it is deleted with the next sweep."""
    (old, first), (new, second), (newest, third) = known(built)
    writer, zombie = Objects.at(url), Objects.at(url)
    writer.publish(old, first)
    _, tag = zombie.current()
    writer.publish(new, second)
    writer.set_current(second.id, tag)
    writer.delete([first.id])
    writer.sweep(keep=[second.id], grace_s=0.0)
    zombie.publish(newest, third)
    with pytest.raises(ObjectConflictError):
        zombie.set_current(third.id, tag)
    assert writer.current()[0] == second.id
    writer.delete(set(writer.versions()) - {second.id})
    writer.sweep(keep=[second.id], grace_s=0.0)
    assert {state.name[-64:] for state in writer.store.listed(PARTS)} == {
        digest for digest, _ in second.files.values()
    }
    writer.fetch(host("other"), second.id)


def test_two_publish_at_once(url: str, built: Path, host: Host) -> None:
    every = known(built)
    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(Objects.at(url).publish, *each) for each in [*every, *every]]
        for job in jobs:
            job.result()
    root, objects = host("other"), Objects.at(url)
    for _, manifest in every:
        objects.fetch(root, manifest.id)
    assert objects.versions() == versions.list_versions(root) == [m.id for _, m in every]


def test_current_is_taken_by_one_of_many(url: str) -> None:
    """Each adds one to the number in CURRENT, until it was not too late."""

    def number(text: str) -> int:
        return int(text.split()[0])

    def add(n: int) -> int:
        objects = Objects.at(url)
        tries = 0
        while True:
            tries += 1
            text, tag = objects.current()
            before = number(text) if text else 0
            try:
                objects.set_current(f"{before + 1} by {n} in try {tries}", tag)
                return tries
            except ObjectConflictError:
                continue

    with ThreadPoolExecutor(6) as pool:
        tries = list(pool.map(add, range(24)))
    assert number(Objects.at(url).current()[0]) == 24
    assert sum(tries) >= 24


def fetch_in_process(url: str, root: Path, version: str, out: Any) -> None:
    try:
        found = Objects.at(url).fetch(root, version)
        out.put((os.getpid(), found.n_parts))
    except BaseException as error:
        out.put((os.getpid(), repr(error)))


def test_two_processes_of_one_host_fetch_at_once(url: str, built: Path, host: Host) -> None:
    root, (folder, manifest) = host("other"), known(built)[0]
    Objects.at(url).publish(folder, manifest)
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    every = [
        context.Process(target=fetch_in_process, args=(url, root, manifest.id, out)) for _ in "abc"
    ]
    for each in every:
        each.start()
    found = sorted(out.get(timeout=120)[1] for _ in every)
    for each in every:
        each.join()
    assert found == [0, 0, len(set(manifest.files.values()))]
    assert versions.check(root, manifest.id) == []
    assert disk.names_in(root, "staging") == []


def test_a_refresh_cleans_staging_while_a_version_is_fetched(
    url: str, built: Path, host: Host
) -> None:
    root, (folder, manifest) = host("other"), known(built)[0]
    objects = Objects.at(url)
    objects.publish(folder, manifest)
    cleaned = done_once(objects, lambda: prune.clean_staging(root))
    objects.fetch(root, manifest.id)
    assert cleaned == [0] and versions.check(root, manifest.id) == []
    assert disk.names_in(root, "staging") == []


def test_what_killed_fetches_left_is_deleted_by_the_next(url: str, built: Path, host: Host) -> None:
    root, (folder, manifest) = host("other"), known(built)[0]
    Objects.at(url).publish(folder, manifest)
    left, other = versions.stage(root, "fetch-"), versions.stage(root)
    (left / "vectors").mkdir()
    Objects.at(url).fetch(root, manifest.id)
    assert disk.names_in(root, "staging") == [other.name]


def test_staging_is_deleted_while_a_version_is_put_there(url: str, built: Path, host: Host) -> None:
    """By another process that did not wait any longer."""
    root, (folder, manifest) = host("other"), known(built)[0]
    objects = Objects.at(url)
    objects.publish(folder, manifest)
    cleaned = done_once(objects, lambda: prune.clean_staging(root, foreign=True))
    objects.fetch(root, manifest.id)
    assert cleaned == [1] and versions.check(root, manifest.id) == []
    assert disk.names_in(root, "staging") == []


def test_another_process_was_first(url: str, built: Path, host: Host) -> None:
    """It did not wait for the lock, as after ten minutes."""
    root, (folder, manifest) = host("other"), known(built)[0]
    objects, other = Objects.at(url), Objects.at(url)
    other.publish(folder, manifest)

    def put_there() -> Path:
        staged = versions.stage(root)
        for name in manifest.files:
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            (staged / name).write_bytes((folder / name).read_bytes())
        (staged / "manifest.json").write_bytes((folder / "manifest.json").read_bytes())
        return versions.publish(root, staged, manifest.id)

    done_once(objects, put_there)
    assert objects.fetch(root, manifest.id).n_parts == 0
    assert versions.check(root, manifest.id) == []
    assert disk.names_in(root, "staging") == []


def test_a_version_that_is_pruned_while_its_files_are_linked(
    url: str, built: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, objects = host("other"), Objects.at(url)
    database = open_database(root)
    (old, first), (new, second), _ = known(built)
    objects.publish(old, first), objects.publish(new, second)
    objects.fetch(root, first.id)
    link, pruned, one = disk.link, [], threading.Lock()

    def prunes_once(source: Path, target: Path) -> None:
        with one:
            if not pruned:
                pruned.append(prune.prune(root, database, keep=0, never=()))
        link(source, target)

    monkeypatch.setattr(disk, "link", prunes_once)
    objects.fetch(root, second.id)
    assert pruned == [[first.id]] and versions.check(root, second.id) == []


def test_what_killed_writers_left_is_deleted_once_it_is_old(built: Path, tmp_path: Path) -> None:
    pytest.importorskip("obstore", reason="needs the extra objects: make test-objects")
    objects = Objects.at(f"file://{tmp_path}/store")
    objects.publish(*known(built)[0])
    old, young = (tmp_path / "store" / PARTS / "00" / f"{'0' * 64}#{n}" for n in (1, 2))
    for path in (old, young):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half of a pa")
    os.utime(old, (0, 0))
    assert objects.sweep() == 0
    assert young.exists() and not old.exists()
    assert is_whole(objects, known(built)[0][1])
