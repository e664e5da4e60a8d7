"""What a store of versions does, on a folder, in memory and on a server of S3."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes import WordEncoder
from folders import ids, opened, state
from rag_flywheel import Flywheel
from rag_flywheel.deploy import versions
from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.deploy.objects import PARTS, Objects, part_name
from rag_flywheel.errors import (
    CorruptFileError,
    DamagedObjectError,
    MissingObjectError,
    ObjectConflictError,
    UnknownIdError,
)

Host = Callable[[str], Path]
UNKNOWN = "20261121T093000Z-3f9c1"


def known(root: Path) -> list[Manifest]:
    return [versions.read_manifest(root, version) for version in versions.list_versions(root)]


def publish(objects: Objects, root: Path, n: int) -> Manifest:
    manifest = known(root)[n]
    objects.publish(versions.version_folder(root, manifest.id), manifest)
    return manifest


def parts(objects: Objects) -> set[str]:
    return {each.name[-64:] for each in objects.store.listed(PARTS)}


def needed(*manifests: Manifest) -> set[str]:
    return {digest for manifest in manifests for digest, _ in manifest.files.values()}


def test_what_is_published_is_fetched_as_it_was(objects: Objects, built: Path, host: Host) -> None:
    root = host("other")
    for n, manifest in enumerate(known(built)):
        assert publish(objects, built, n) == manifest
        fetched = objects.fetch(root, manifest.id)
        assert fetched.folder == versions.version_folder(root, manifest.id)
        assert versions.check(root, manifest.id) == []
        assert versions.read_manifest(root, manifest.id) == manifest
        there = state(versions.version_folder(built, manifest.id))
        for name, (_, data) in state(fetched.folder).items():
            assert data == there[name][1], name
    assert objects.versions() == versions.list_versions(built)
    assert [objects.manifest(m.id) for m in known(built)] == known(built)
    assert list((root / "staging").iterdir()) == []


def test_only_what_is_lacking_moves(objects: Objects, built: Path, host: Host) -> None:
    root = host("other")
    before: set[str] = set()
    for n, manifest in enumerate(known(built)):
        sizes = dict(manifest.files.values())
        new = needed(manifest) - before
        sent = objects.publish(versions.version_folder(built, manifest.id), manifest)
        assert (sent.n_parts, sent.n_bytes) == (len(new), sum(sizes[d] for d in new))
        assert sent.n_skipped == len(sizes) - len(new)
        fetched = objects.fetch(root, manifest.id)
        assert (fetched.n_parts, fetched.n_bytes) == (len(new), sum(sizes[d] for d in new))
        assert fetched.n_linked == len(sizes) - len(new) and (n == 0 or fetched.n_linked)
        before |= new
    assert parts(objects) == before


def test_files_of_other_versions_are_linked(objects: Objects, built: Path, host: Host) -> None:
    root = host("other")
    first, second, _ = known(built)
    publish(objects, built, 0), publish(objects, built, 1)
    objects.fetch(root, first.id), objects.fetch(root, second.id)
    shared = set(first.files.items()) & set(second.files.items())
    assert shared
    for name, _ in shared:
        one, other = (versions.version_folder(root, each.id) / name for each in (first, second))
        assert one.samefile(other), name


def test_what_is_done_already_is_left_as_it_is(objects: Objects, built: Path, host: Host) -> None:
    root = host("other")
    manifest = publish(objects, built, 0)
    again = objects.publish(versions.version_folder(built, manifest.id), manifest)
    assert (again.n_parts, again.n_bytes, again.n_skipped) == (0, 0, len(needed(manifest)))
    objects.fetch(root, manifest.id)
    before = versions.fingerprint(root, manifest.id)
    objects.delete([manifest.id])  # which it does not need any more
    assert objects.fetch(root, manifest.id).n_parts == 0
    assert versions.fingerprint(root, manifest.id) == before


def test_progress_counts_bytes_to_their_end(objects: Objects, built: Path, host: Host) -> None:
    said: list[tuple[str, int, int]] = []
    manifest = known(built)[0]
    total = sum(dict(manifest.files.values()).values())
    folder = versions.version_folder(built, manifest.id)
    objects.publish(folder, manifest, lambda *each: said.append(each))
    assert said[-1] == ("publish", total, total)
    objects.fetch(host("other"), manifest.id, progress=lambda *each: said.append(each))
    assert said[-1] == ("fetch", total, total)
    assert sorted(said[: len(said) // 2]) == said[: len(said) // 2]


def test_current_is_written_by_whoever_read_it_last(objects: Objects) -> None:
    assert objects.current() == ("", None)
    first = objects.set_current("one\n", None)
    assert objects.current() == ("one\n", first)
    second = objects.set_current("two\n", first)
    for late in (first, None):
        with pytest.raises(ObjectConflictError, match=r"CURRENT of .* was changed by another"):
            objects.set_current("late\n", late)
    assert objects.current() == ("two\n", second)
    assert objects.set_current("two\n", first) == second  # the answer to it was lost


def test_no_version_of_that_name(objects: Objects, built: Path, host: Host) -> None:
    assert objects.versions() == []
    root = host("other")
    with pytest.raises(UnknownIdError, match=f"no version {UNKNOWN} in .*the newest are: none"):
        objects.fetch(root, UNKNOWN)
    manifest = publish(objects, built, 0)
    with pytest.raises(UnknownIdError, match=f"the newest are: {manifest.id}"):
        objects.manifest(UNKNOWN)
    for bad in ("../../x", "", "CURRENT"):
        with pytest.raises(UnknownIdError, match="no version id"):
            objects.manifest(bad)
        with pytest.raises(UnknownIdError, match="no version id"):
            objects.delete([bad])
        with pytest.raises(UnknownIdError, match="no version id"):
            objects.fetch(root, bad)
    assert versions.list_versions(root) == [] and list((root / "staging").iterdir()) == []


def test_parts_of_no_version_are_deleted_and_no_others(objects: Objects, built: Path) -> None:
    first, second, third = (publish(objects, built, n) for n in range(3))
    assert objects.sweep(grace_s=0.0) == 0
    objects.delete([first.id, third.id])
    assert objects.versions() == [second.id]
    assert objects.sweep(keep=[second.id]) == 0, "young parts stay"
    gone = needed(first, third) - needed(second)
    assert objects.sweep(keep=[second.id], grace_s=0.0) == len(gone) > 0
    assert parts(objects) == needed(second)
    objects.delete([first.id])  # again
    assert objects.sweep(grace_s=0.0) == 0


def test_nothing_is_deleted_when_a_wanted_version_or_a_manifest_cannot_be_read(
    objects: Objects, built: Path
) -> None:
    first = publish(objects, built, 0)
    second = known(built)[1]
    objects.delete([first.id])
    before = parts(objects)
    with pytest.raises(UnknownIdError, match="though that version is wanted; nothing was deleted"):
        objects.sweep(keep=[second.id], grace_s=0.0)
    name = f"versions/{second.id}/manifest.json"
    for damaged in (b'{"files": {"a": ["', b"{}", b""):
        objects.store.put(name, damaged)
        with pytest.raises(DamagedObjectError, match=f"{name} of .* is no usable manifest"):
            objects.sweep(grace_s=0.0)
    assert parts(objects) == before

    def lost() -> None:
        raise RuntimeError("the lock is lost")

    objects.delete([second.id])
    with pytest.raises(RuntimeError, match="the lock is lost"):
        objects.sweep(grace_s=0.0, still=lost)
    assert parts(objects) == before


def test_manifests_of_other_releases_keep_their_parts(objects: Objects, built: Path) -> None:
    first = publish(objects, built, 0)
    name = f"versions/{first.id}/manifest.json"
    data, _ = objects.store.read(name, most=10**6)
    objects.store.put(name, data.replace(b'"format_version": 6', b'"format_version": 5'))
    assert objects.sweep(grace_s=0.0) == 0
    assert parts(objects) == needed(first)


def test_two_indexes_at_one_place_are_refused(objects: Objects, built: Path) -> None:
    manifest = publish(objects, built, 0)
    other = dataclasses.replace(manifest, token="0" * 32)
    with pytest.raises(ObjectConflictError, match="expected each index to have a place of its own"):
        objects.publish(versions.version_folder(built, manifest.id), other)
    assert objects.manifest(manifest.id) == manifest


def test_a_part_that_is_gone_is_an_error_of_its_own_and_sent_again(
    objects: Objects, built: Path, host: Host
) -> None:
    root = host("other")
    manifest = publish(objects, built, 0)
    name = "vectors/pids.npy"
    digest = manifest.files[name][0]
    objects.store.delete([part_name(digest)])
    with pytest.raises(MissingObjectError, match=f"{digest} .* needs for {name}"):
        objects.fetch(root, manifest.id)
    assert versions.list_versions(root) == [] and list((root / "staging").iterdir()) == []
    assert objects.publish(versions.version_folder(built, manifest.id), manifest).n_parts == 1
    objects.fetch(root, manifest.id)
    assert versions.check(root, manifest.id) == []


@pytest.mark.parametrize("how", ["cut", "longer", "changed", "empty"])
def test_a_part_that_was_changed_is_refused_before_it_is_used(
    objects: Objects, built: Path, host: Host, how: str
) -> None:
    root = host("other")
    manifest = publish(objects, built, 0)
    name = "vectors/pids.npy"
    digest, size = manifest.files[name]
    data, _ = objects.store.read(part_name(digest), most=size)
    bad = {
        "cut": data[:-1],
        "longer": data + b"x" * 10**6,
        "changed": data[:-1] + bytes([data[-1] ^ 1]),
        "empty": b"",
    }[how]
    objects.store.put(part_name(digest), bad)
    with pytest.raises(DamagedObjectError, match=f"part {digest} of .*{name} of version"):
        objects.fetch(root, manifest.id)
    assert versions.list_versions(root) == [] and list((root / "staging").iterdir()) == []
    folder = versions.version_folder(built, manifest.id)
    # by its size alone it is seen when a version is published; its bytes only when that is asked for
    assert objects.publish(folder, manifest).n_parts == (0 if how == "changed" else 1)
    objects.publish(folder, manifest, anew=True)
    objects.fetch(root, manifest.id)
    assert versions.check(root, manifest.id) == []


def test_what_differs_from_its_manifest_is_not_sent(
    objects: Objects, built: Path, host: Host
) -> None:
    root = host("other")
    manifest = publish(objects, built, 0)
    objects.fetch(root, manifest.id)
    objects.delete([manifest.id])
    objects.sweep(grace_s=0.0)
    path = versions.version_folder(root, manifest.id) / "vectors/pids.npy"
    good = path.read_bytes()
    for bad in (good[:-1], good[:-1] + bytes([good[-1] ^ 1]), None):
        path.unlink(missing_ok=True)
        if bad is not None:
            path.write_bytes(bad)
        with pytest.raises(CorruptFileError, match=r"vectors/pids.npy cannot be sent to"):
            objects.publish(path.parents[1], manifest)
        assert objects.versions() == []
        assert manifest.files["vectors/pids.npy"][0] not in parts(objects)


def test_a_damaged_file_here_is_never_linked(objects: Objects, built: Path, host: Host) -> None:
    root = host("other")
    first, second = (publish(objects, built, n) for n in (0, 1))
    objects.fetch(root, first.id)
    shared = dict(set(first.files.items()) & set(second.files.items()))
    victim = max(shared, key=lambda name: shared[name][1])
    path = versions.version_folder(root, first.id) / victim
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    fetched = objects.fetch(root, second.id)
    assert versions.check(root, second.id) == []
    assert fetched.n_linked == len(needed(first) & needed(second)) - 1
    assert not path.samefile(fetched.folder / victim)
    again = objects.fetch(root, first.id)  # which is damaged
    assert versions.check(root, first.id) == [] and again.n_parts == 0
    assert [first.id in each.name for each in (root / "quarantine").iterdir()] == [True]


def test_what_can_be_computed_is_computed_where_it_lacks(
    objects: Objects, built: Path, tmp_path: Path
) -> None:
    live = publish(objects, built, 2)
    assert live.derived and not needed(live) & {d for d, _ in live.derived.values()}
    with opened(built) as fw:
        expected = ids(fw)
    with Flywheel.open(tmp_path / "copy", encoder=WordEncoder()):
        pass
    for name in ("flywheel.db", "CURRENT"):
        (tmp_path / "copy" / name).write_bytes((built / name).read_bytes())
    objects.fetch(tmp_path / "copy", live.id)
    with opened(tmp_path / "copy") as fw:
        assert ids(fw) == expected
        assert fw.verify() == []


def test_a_damaged_manifest_stops_no_other_version_and_is_written_anew(
    objects: Objects, built: Path, host: Host
) -> None:
    first = publish(objects, built, 0)
    name = f"versions/{first.id}/manifest.json"
    objects.store.put(name, b"{}")
    second = publish(objects, built, 1)
    root = host("other")
    objects.fetch(root, second.id)
    with pytest.raises(DamagedObjectError, match=name):
        objects.fetch(root, first.id)
    folder = versions.version_folder(built, first.id)
    with pytest.raises(DamagedObjectError, match=name):
        objects.publish(folder, first)
    objects.publish(folder, first, anew=True)
    objects.fetch(root, first.id)
    assert objects.manifest(first.id) == first
