"""What is computed from the other files of a version is kept for the live one alone, and may be missing."""

import json
import os
import shutil
from pathlib import Path

import pytest

from folders import PASSAGES, ids, opened
from rag_flywheel import Passage
from rag_flywheel.deploy import versions
from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.errors import CorruptFileError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An index with two versions, the first of other passages than the second."""
    with opened(tmp_path / "kb") as fw:
        fw.add(PASSAGES)
        fw.refresh()
        fw.add([Passage("more", "quite other things")])
        fw.refresh()
    return tmp_path / "kb"


def folders(root: Path) -> list[Path]:
    return sorted((root / "versions").iterdir())


def manifest(folder: Path) -> Manifest:
    return versions.read_manifest(folder.parents[1], folder.name)


def test_the_live_version_alone_has_them(root: Path) -> None:
    older, live = folders(root)
    assert not (older / "derived").exists()
    there = {f"derived/{path.name}" for path in (live / "derived").iterdir()}
    assert there == set(manifest(live).derived) and len(there) == 8
    assert set(manifest(older).derived) == there
    assert not any(name.startswith("derived/") for name in manifest(live).files)
    with opened(root) as fw:
        assert fw.verify() == []
        checks = {check.name: check for check in fw.health().checks}
        assert checks["older versions"].state == checks["files of the live version"].state == "ok"


def test_a_version_without_them_can_be_rolled_back_to_and_gets_them_again(root: Path) -> None:
    older, live = folders(root)
    with opened(root) as fw:
        fw.rollback(older.name)
    with opened(root) as fw:
        before = ids(fw)
        assert fw.verify() == []
        fw.release()
        shown = fw.retrieve("alpha")
        fw.feedback(shown.id, shown.hits[0].passage_id, "helpful")
        fw.remove(["more"])
        assert fw.refresh().outcome == "promoted"
        newest = folders(root)[-1]
        assert (newest / "derived").exists() and not (live / "derived").exists()
        assert ids(fw) == before


@pytest.mark.parametrize("whole", [True, False])
def test_a_refresh_that_links_the_indexes_of_a_version_without_them_writes_them(
    root: Path, whole: bool
) -> None:
    _, live = folders(root)
    if whole:
        shutil.rmtree(live / "derived")
    else:  # as after a crash while they were deleted
        (live / "derived" / "pieces.npy").unlink()
    with opened(root) as fw:
        before = ids(fw)
        shown = fw.retrieve("alpha")
        fw.feedback(shown.id, shown.hits[0].passage_id, "helpful")
        assert "none changed" in fw.refresh().reason
        assert manifest(folders(root)[-1]).derived == manifest(live).derived
        assert ids(fw) == before and fw.verify() == []


def test_they_are_the_same_however_they_came_to_be(root: Path) -> None:
    _, live = folders(root)
    with opened(root) as fw:
        before = ids(fw)
    shutil.rmtree(live / "derived")
    with opened(root) as fw:
        assert ids(fw) == before
        assert fw.verify() == []


def test_one_that_was_changed_is_refused(root: Path) -> None:
    _, live = folders(root)
    path = live / "derived" / "pieces.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with opened(root) as fw:
        with pytest.raises(CorruptFileError, match=r"derived/pieces.npy is not what"):
            ids(fw)
        checks = {check.name: check for check in fw.health().checks}
        assert checks["files of the live version"].state == "broken"
        assert [live.name in problem for problem in fw.verify()] == [True]


def test_one_that_no_manifest_knows_is_refused(root: Path) -> None:
    older, _ = folders(root)
    (older / "derived").mkdir()
    (older / "derived" / "extra.npy").write_bytes(b"?")
    assert versions.check(root, older.name) == [
        f"{older.name}/derived/extra.npy is not in its manifest"
    ]


def test_they_may_be_deleted_while_they_are_checked(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, live = folders(root)
    hashed = []

    def slowly(path: Path) -> str:
        hashed.append(path)
        if path.parent.name == "derived":
            shutil.rmtree(live / "derived", ignore_errors=True)
        return digest(path)

    digest = versions.sha256
    monkeypatch.setattr(versions, "sha256", slowly)
    assert versions.check(root, live.name) == []
    assert [path.parent.name for path in hashed].count("derived") == 1


def test_what_other_files_are_named_so_must_be_there(root: Path) -> None:
    """A manifest that calls others derived does not make an index of less."""
    _, live = folders(root)
    values = json.loads((live / "manifest.json").read_text())
    values["derived"]["tokens/rows.npy"] = values["files"].pop("tokens/rows.npy")
    (live / "manifest.json").write_text(json.dumps(values))
    (live / "tokens" / "rows.npy").unlink()
    with opened(root) as fw, pytest.raises(CorruptFileError, match="rag-flywheel refresh"):
        ids(fw)


def test_a_backup_does_without_them(root: Path, tmp_path: Path) -> None:
    with opened(root) as fw:
        before = ids(fw)
        fw.backup(tmp_path / "saved")
    from rag_flywheel import restore

    restore(tmp_path / "saved", tmp_path / "again")
    (live,) = folders(tmp_path / "again")
    assert not (live / "derived").exists()
    with opened(tmp_path / "again") as fw:
        assert ids(fw) == before and fw.verify() == []


def test_a_link_in_their_place_is_not_followed(root: Path, tmp_path: Path) -> None:
    older, live = folders(root)
    (tmp_path / "yours").mkdir()
    (tmp_path / "yours" / "pieces.npy").write_bytes(b"yours")
    (older / "derived").symlink_to(tmp_path / "yours")
    assert versions.check(root, older.name) == [f"{older.name}/derived is not in its manifest"]
    with opened(root) as fw:
        fw.add([Passage("still more", "and others again")])
        assert fw.refresh().outcome == "promoted"
    assert (tmp_path / "yours" / "pieces.npy").read_bytes() == b"yours"
    assert not (older / "derived").exists() and not (live / "derived").exists()


@pytest.mark.parametrize("instead", ["a folder", "a link", "a pipe", "a link to nothing"])
def test_what_is_no_file_is_named(root: Path, tmp_path: Path, instead: str) -> None:
    _, live = folders(root)
    path = min((live / "derived").iterdir())
    path.unlink()
    if instead == "a folder":
        path.mkdir()
    elif instead == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path if instead == "a link" else tmp_path / "nothing")
    named = f"{live.name}/derived/{path.name} is a link, a folder or a device; expected a file"
    assert named in versions.check(root, live.name)
