"""A process that was forked from one that used an object store, as a server forks its workers."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from folders import state
from forked import in_fork
from rag_flywheel.deploy import versions
from rag_flywheel.deploy.object_aside import Aside
from rag_flywheel.deploy.object_store import CHUNK_BYTES, ObjectStore
from rag_flywheel.deploy.objects import Objects
from rag_flywheel.errors import MissingObjectError, ObjectConflictError, ObjectStoreError
from s3 import BUCKET

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(params=["file", "s3"])
def used(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """A store of each kind that this process has used."""
    pytest.importorskip("obstore", reason="needs the extra objects: make test-objects")
    if request.param == "s3":
        request.getfixturevalue("s3")
    places = {"file": f"file://{tmp_path}/store", "s3": f"s3://{BUCKET}/{tmp_path.name}"}
    store = ObjectStore(places[request.param])
    store.put("a/known", b"known")
    return store


def test_a_forked_process_asks_all_that_can_be_asked(used: ObjectStore) -> None:
    large = [os.urandom(CHUNK_BYTES), os.urandom(CHUNK_BYTES), b"end"]

    def check() -> None:
        assert isinstance(used.requests(), Aside)
        data, tag = used.read("a/known", most=10)
        assert data == b"known"
        assert used.read_range("a/known", 1, 3) == b"no"
        assert not used.create("a/known", b"other")
        assert used.create("a/new", b"new")
        again = used.swap("a/known", b"swapped", tag)
        with pytest.raises(ObjectConflictError):
            used.swap("a/known", b"late", tag)
        assert used.read("a/known", most=10) == (b"swapped", again)
        used.put_stream("a/large", iter(large))
        assert {each.name: each.n_bytes for each in used.listed("a")} == {
            "a/known": 7,
            "a/new": 3,
            "a/large": sum(map(len, large)),
        }
        used.delete(["a/new"])
        assert used.state("a/new") is None
        with pytest.raises(MissingObjectError):
            used.read("a/new", most=10)
        with pytest.raises(ObjectStoreError, match="expected 2 at most"):
            used.read("a/known", most=2)

    assert in_fork(check) == ""
    assert used.read("a/large", most=2**30)[0] == b"".join(large)
    assert used.read("a/known", most=10)[0] == b"swapped"


def test_a_file_that_fails_while_it_is_sent_is_not_written(used: ObjectStore) -> None:
    def parts() -> object:
        yield os.urandom(CHUNK_BYTES)
        raise KeyError("lost")

    def check() -> None:
        for _ in range(2):
            with pytest.raises(KeyError, match="lost"):
                used.put_stream("a/part", parts())  # type: ignore[arg-type]
            assert used.state("a/part") is None
            assert used.read("a/known", most=10)[0] == b"known"

    assert in_fork(check) == ""


def test_when_the_process_that_asks_is_killed_another_one_does(used: ObjectStore) -> None:
    def check() -> None:
        for _ in range(2):
            assert used.read("a/known", most=10)[0] == b"known"
            aside = used.requests()
            assert isinstance(aside, Aside) and aside._begun is not None
            process = aside._begun[1]
            process.kill()
            process.wait(10)
            with pytest.raises(ObjectStoreError, match="the process that asks the object store"):
                used.read("a/known", most=10)
        assert used.read("a/known", most=10)[0] == b"known"

    assert in_fork(check) == ""


def test_one_that_was_forked_from_a_forked_one_asks_as_well(used: ObjectStore) -> None:
    def check() -> None:
        assert used.read("a/known", most=10)[0] == b"known"
        assert in_fork(lambda: used.put("a/known", b"deeper")) == ""
        assert used.read("a/known", most=10)[0] == b"deeper"

    assert in_fork(check) == ""


def test_versions_are_published_and_fetched_after_a_fork(
    used: ObjectStore, built: Path, host: Callable[[str], Path]
) -> None:
    root, objects = host("other"), Objects(used)
    manifests = [versions.read_manifest(built, name) for name in versions.list_versions(built)]

    def check() -> None:
        for manifest in manifests:
            folder = versions.version_folder(built, manifest.id)
            objects.publish(folder, manifest)
            found = objects.fetch(root, manifest.id).folder
            there = state(folder)
            for name, (_, data) in state(found).items():
                assert data == there[name][1], name
        objects.delete([manifests[0].id])
        assert objects.sweep(grace_s=0.0) > 0
        assert objects.versions() == [manifest.id for manifest in manifests[1:]]

    assert in_fork(check) == ""


def test_what_is_in_memory_cannot_be_asked_after_a_fork() -> None:
    pytest.importorskip("obstore", reason="needs the extra objects: make test-objects")
    store = ObjectStore("memory:///")
    store.put("known", b"known")

    def check() -> None:
        with pytest.raises(ObjectStoreError, match="was forked from the one that has it in"):
            store.state("known")

    assert in_fork(check) == ""
