"""A store that is slow, fails now and then or for good, cuts answers short, or shows what was."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flaky import Fault, Flaky, flaky_before
from rag_flywheel import disk
from rag_flywheel.deploy import versions
from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.deploy.object_store import CHUNK_BYTES, ObjectStore, Waits
from rag_flywheel.deploy.objects import Objects, part_name
from rag_flywheel.errors import (
    DamagedObjectError,
    DiskFullError,
    MissingObjectError,
    ObjectConflictError,
    ObjectStoreError,
    StorageError,
)
from s3 import BUCKET

Host = Callable[[str], Path]
SHORT = Waits(connect_s=1.0, request_s=1.0, retry_s=2.0, tries=4, pause_s=0.2)
SECRET = "a-very-secret-key"


@pytest.fixture
def flaky(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    """A proxy before the server of S3, which the environment names."""
    pytest.importorskip("obstore", reason="needs the extra objects: make test-objects")
    with flaky_before(s3) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        yield proxy


@pytest.fixture
def objects(flaky: Flaky, tmp_path: Path) -> Objects:
    return Objects(ObjectStore(f"s3://{BUCKET}/{tmp_path.name}", SHORT))


def first_of(root: Path) -> tuple[Path, Manifest]:
    version = versions.list_versions(root)[0]
    return versions.version_folder(root, version), versions.read_manifest(root, version)


def each(n: int, fault: Fault) -> Callable[[str, str], Fault | None]:
    """Every nth request meets this, whatever it is."""
    counted = iter(range(1, 10**9))
    return lambda method, path: fault if next(counted) % n == 0 else None


def once_each(fault: Fault) -> Callable[[str, str], Fault | None]:
    """Each request meets this the first time that it is made."""
    seen: set[tuple[str, str]] = set()

    def faults(method: str, path: str) -> Fault | None:
        if (method, path) in seen:
            return None
        seen.add((method, path))
        return fault

    return faults


def nothing_left(root: Path) -> bool:
    return versions.list_versions(root) == [] and disk.names_in(root, "staging") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=503),
        Fault(status=429),
        Fault(lost=True),
        Fault(cut=20),
    ],
    ids=["500", "503", "429", "lost", "cut"],
)
def test_faults_that_pass_are_not_noticed(
    flaky: Flaky, objects: Objects, built: Path, host: Host, fault: Fault
) -> None:
    root, (folder, manifest) = host("other"), first_of(built)
    flaky.faults = once_each(fault)
    sent = objects.publish(folder, manifest)
    assert sent.n_parts == len(set(manifest.files.values()))
    tag = objects.set_current("one\n", None)
    flaky.faults = once_each(fault)
    tag = objects.set_current("two\n", tag)
    flaky.faults = once_each(fault)
    assert objects.current() == ("two\n", tag)
    assert objects.fetch(root, manifest.id).n_bytes == sum(dict(manifest.files.values()).values())
    assert versions.check(root, manifest.id) == []
    flaky.faults = once_each(fault)
    assert objects.versions() == [manifest.id]
    objects.delete([manifest.id])
    flaky.faults = once_each(fault)
    assert objects.sweep(grace_s=0.0) == sent.n_parts


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [Fault(status=500), Fault(status=503), Fault(wait_s=5.0), Fault(lost=True)],
    ids=["500", "503", "slow", "lost"],
)
def test_one_that_fails_for_good_is_given_up_soon_and_clearly(
    flaky: Flaky, objects: Objects, built: Path, host: Host, fault: Fault
) -> None:
    root, (folder, manifest) = host("other"), first_of(built)
    objects.publish(folder, manifest)
    flaky.faults = lambda method, path: fault
    calls: list[Callable[[], object]] = [
        lambda: objects.publish(folder, manifest),
        lambda: objects.fetch(root, manifest.id),
        objects.versions,
        objects.current,
        lambda: objects.set_current("x", None),
        lambda: objects.delete([manifest.id]),
        objects.sweep,
    ]
    for call in calls:
        began = time.monotonic()
        with pytest.raises(
            ObjectStoreError, match=r"could not be .* repeat the call once"
        ) as caught:
            call()
        assert time.monotonic() - began < 2 * (SHORT.retry_s + SHORT.request_s) + 1.0
        assert SECRET not in str(caught.value)
        assert isinstance(caught.value, StorageError)
        assert nothing_left(root)
    flaky.faults = lambda method, path: None
    objects.publish(folder, manifest)  # for what was lost was the answer
    objects.fetch(root, manifest.id)
    assert versions.check(root, manifest.id) == []


def test_a_server_that_is_gone(
    objects: Objects, built: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    gone = Objects(ObjectStore(objects.store.url, SHORT))
    folder, manifest = first_of(built)
    with pytest.raises(ObjectStoreError, match="could not be"):
        gone.publish(folder, manifest)
    with pytest.raises(ObjectStoreError, match="could not be"):
        gone.fetch(host("other"), manifest.id)


def test_who_may_not_read_is_told_so(flaky: Flaky, objects: Objects, host: Host) -> None:
    flaky.faults = lambda method, path: Fault(status=403)
    with pytest.raises(
        ObjectStoreError, match=r"the store refuses .*give the credentials"
    ) as caught:
        objects.versions()
    assert SECRET not in str(caught.value)
    with pytest.raises(ObjectStoreError, match="the store refuses"):
        objects.set_current("x", None)


def test_a_publication_that_fails_in_the_middle_goes_on_where_it_was(
    flaky: Flaky, objects: Objects, built: Path
) -> None:
    folder, manifest = first_of(built)
    n_puts = 0

    def faults(method: str, path: str) -> Fault | None:
        nonlocal n_puts
        n_puts += method == "PUT" and "/parts/" in path
        return Fault(status=500) if n_puts > 10 else None

    flaky.faults = faults
    with pytest.raises(ObjectStoreError):
        objects.publish(folder, manifest)
    flaky.faults = lambda method, path: None
    assert objects.versions() == [], "a manifest is written last"
    there = {state.name for state in objects.store.listed("parts")}
    assert 10 <= len(there) < len(set(manifest.files.values()))
    flaky.requests.clear()
    objects.publish(folder, manifest)
    puts = [path.partition("/parts/")[2] for method, path in flaky.requests if method == "PUT"]
    assert not {f"parts/{path}" for path in puts if path} & there
    assert objects.versions() == [manifest.id]


def test_what_is_cut_short_for_ever_is_never_used(
    flaky: Flaky, objects: Objects, built: Path, host: Host
) -> None:
    """The proxy says another length than the store, as one that caches what it got."""
    root, (folder, manifest) = host("other"), first_of(built)
    objects.publish(folder, manifest)
    digest, size = manifest.files["vectors/pids.npy"]
    flaky.faults = lambda method, path: (
        Fault(body=b"x" * size) if method == "GET" and digest in path else None
    )
    with pytest.raises(ObjectStoreError, match=digest):
        objects.fetch(root, manifest.id)
    assert nothing_left(root)


def test_a_listing_of_before_misleads_nobody(
    flaky: Flaky, objects: Objects, built: Path, host: Host
) -> None:
    """New versions are fetched and parts of theirs are kept; parts that are gone are sent."""
    root = host("other")
    listed = versions.list_versions(built)
    first, second, _ = (versions.read_manifest(built, version) for version in listed)
    objects.publish(versions.version_folder(built, first.id), first)
    old: dict[str, bytes] = {}

    def remember(method: str, path: str) -> Fault | None:
        return Fault(body=old[path]) if path in old else None

    for prefix in ("versions/", "parts/"):
        query = f"/{BUCKET}?list-type=2&prefix={objects.store.url.rpartition('/')[2]}%2F{prefix[:-1]}%2F"
        old[query] = _answer(flaky, query)
    flaky.faults = remember
    objects.publish(versions.version_folder(built, second.id), second)
    assert objects.versions() == [first.id]
    objects.fetch(root, second.id)
    objects.delete([first.id])
    assert objects.versions() == [first.id]
    assert objects.sweep(keep=[second.id], grace_s=0.0) > 0
    objects.fetch(host("third"), second.id)
    objects.publish(versions.version_folder(built, first.id), first)  # whose own parts are gone
    objects.fetch(host("fourth"), first.id)


def _answer(flaky: Flaky, path: str) -> bytes:
    from urllib.request import urlopen

    with urlopen(flaky.url + path) as answer:
        return bytes(answer.read())


def test_answers_that_were_lost_are_no_conflict(flaky: Flaky, objects: Objects) -> None:
    flaky.faults = once_each(Fault(lost=True))
    first = objects.set_current("one\n", None)
    flaky.faults = once_each(Fault(lost=True))
    second = objects.set_current("two\n", first)
    assert objects.current() == ("two\n", second)
    with pytest.raises(ObjectConflictError):
        objects.set_current("three\n", first)


def changed(manifest: Manifest, change: Callable[[dict[str, Any]], object]) -> bytes:
    from rag_flywheel.deploy.manifest import manifest_text

    values = json.loads(manifest_text(manifest))
    change(values)
    return json.dumps(values).encode()


PIDS = "vectors/pids.npy"
HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "above": lambda m: m["files"].update({"../../../x": m["files"][PIDS]}),
    "absolute": lambda m: m["files"].update({"/tmp/x": m["files"][PIDS]}),
    "hidden": lambda m: m["files"].update({"vectors/.x": m["files"][PIDS]}),
    "itself": lambda m: m["files"].update({"manifest.json": m["files"][PIDS]}),
    "below itself": lambda m: m["files"].update({"manifest.json/x": m["files"][PIDS]}),
    "a file as a folder": lambda m: m["files"].update({f"{PIDS}/x": m["files"][PIDS]}),
    "no hash": lambda m: m["files"].update({PIDS: ["../../CURRENT", 5]}),
    "negative": lambda m: m["files"].update({PIDS: [m["files"][PIDS][0], -1]}),
    "smaller": lambda m: m["files"].update({PIDS: [m["files"][PIDS][0], 1]}),
    "larger": lambda m: m["files"].update({PIDS: [m["files"][PIDS][0], 10**6]}),
    "vast": lambda m: m["files"].update({PIDS: [m["files"][PIDS][0], 2**49]}),
    "another": lambda m: m.update(id="20261121T093000Z-3f9c1"),
    "too many": lambda m: m["files"].update({f"f{i}": m["files"][PIDS] for i in range(1_000)}),
    "no values": lambda m: m.clear(),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_manifest_that_was_forged(
    flaky: Flaky, objects: Objects, built: Path, host: Host, kind: str
) -> None:
    root, (folder, manifest) = host("other"), first_of(built)
    objects.publish(folder, manifest)
    data = changed(manifest, HOSTILE[kind])
    objects.store.put(f"versions/{manifest.id}/manifest.json", data)
    before = {path for path in root.parent.rglob("*") if "store" not in path.parts}
    flaky.n_bytes = 0
    with pytest.raises(StorageError) as caught:
        objects.fetch(root, manifest.id)
    expected = {"vast": DiskFullError}
    assert isinstance(caught.value, expected.get(kind, DamagedObjectError)), caught.value
    assert nothing_left(root)
    after = {path for path in root.parent.rglob("*") if "store" not in path.parts}
    assert {path.name for path in after - before} <= {"fetch.lock", "staging"}
    assert flaky.n_bytes <= len(data) + sum(dict(manifest.files.values()).values()) + 10_000


def test_a_manifest_without_end_is_not_read(flaky: Flaky, objects: Objects, host: Host) -> None:
    version = "20261121T093000Z-3f9c1"
    objects.store.put(f"versions/{version}/manifest.json", b" " * 5_000_000)
    with pytest.raises(DamagedObjectError, match="has 5000000 bytes; expected 4000000 at most"):
        objects.fetch(host("other"), version)


def test_large_files_go_in_parts_and_are_whole_or_not_there(
    flaky: Flaky, objects: Objects, tmp_path: Path
) -> None:
    import hashlib

    data = bytes(range(256)) * (5 * CHUNK_BYTES // 512) + b"the end"
    path = tmp_path / "large"
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    files = {digest: (path, len(data))}
    assert list(objects._send(files, {digest: None}, [digest])) == [digest]
    assert objects.size_of(digest) == len(data)
    got = b"".join(
        objects.read_part(digest, i, min(i + CHUNK_BYTES, len(data)))
        for i in range(0, len(data), CHUNK_BYTES)
    )
    assert got == data
    objects.store.delete([part_name(digest)])
    path.write_bytes(data[:-1] + b"?")
    with pytest.raises(StorageError, match=r"large cannot be sent .*sha256 differs"):
        list(objects._send(files, {digest: None}, [digest]))
    with pytest.raises(MissingObjectError):
        objects.size_of(digest)


@pytest.mark.slow
def test_memory_does_not_grow_with_files(tmp_path: Path) -> None:
    """A file of 400 MiB is sent and fetched within 100 MiB."""
    pytest.importorskip("obstore", reason="needs the extra objects: make test-objects")
    code = """
import hashlib, resource, sys
from pathlib import Path
from rag_flywheel.deploy.fetch import _download
from rag_flywheel.deploy.objects import Objects
work, size = Path(sys.argv[1]), 400 * 2**20
objects = Objects.at(f"file://{work}/store")
whole = hashlib.sha256()
with (work / "large").open("wb") as file:
    for n in range(400):
        part = bytes([n % 251]) * 2**20
        whole.update(part), file.write(part)
digest = whole.hexdigest()
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
list(objects._send({digest: (work / "large", size)}, {digest: None}, [digest]))
(work / "there").mkdir()
_download(objects, "", work / "there", ["large"], digest, size)
assert (work / "there" / "large").stat().st_size == size
print((peak() - before) // 1024)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100
