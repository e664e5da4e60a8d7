"""What an index writes can be read by its owner alone, or by the group that its folder is shared with."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakes import WordEncoder
from rag_flywheel import Flywheel, Passage, restore


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def use(root: Path, backup: Path) -> None:
    """Everything that writes files."""
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        fw.add([Passage(f"p{i}", f"word{i} text of it") for i in range(9)])
        for user in ("ann", "bob"):
            asked = fw.retrieve("word1 text", user_id=user)
            fw.feedback(asked.id, asked.hits[0].passage_id, "helpful", user_id=user)
        fw.refresh()
        fw.add([Passage("new", "other words")])
        fw.refresh()
        fw.rollback()
        fw.release()
        fw.forget("ann")
        next(root.glob("versions/*/parameters.json")).write_text("{")
        fw.repair()
        fw.backup(backup)


def modes(root: Path) -> dict[str, int]:
    paths = [root, *root.rglob("*")]
    return {p.relative_to(root).as_posix(): stat.S_IMODE(p.stat().st_mode) for p in paths}


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o077])
@pytest.mark.parametrize("made_before", [False, True])
def test_only_the_owner_reads_an_index(tmp_path: Path, mask: int, made_before: bool) -> None:
    root, backup, again = tmp_path / "kb", tmp_path / "backup", tmp_path / "again"
    with umask(mask):
        if made_before:
            root.mkdir(mode=0o755)
        use(root, backup)
        restore(backup, again)
        with Flywheel.open(again, encoder=WordEncoder()) as fw:
            assert fw.retrieve("word1").hits
    for folder in (root, backup, again):
        found = modes(folder)
        if made_before and folder == root:
            del found["."]
        places = {m for p, m in found.items() if (folder / p).is_dir()}
        assert places == {0o700}
        assert {
            name: m for name, m in found.items() if (folder / name).is_file() and m != 0o600
        } == {}
        assert len(found) > 4


def test_the_files_that_sqlite_has_beside_the_database(tmp_path: Path) -> None:
    with umask(0), Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as fw:
        fw.add([Passage("p", "some words")])
        found = modes(tmp_path / "kb")
        assert {"flywheel.db", "flywheel.db-wal", "flywheel.db-shm"} <= set(found)
        assert {m for name, m in found.items() if name != "."} == {0o600}


def test_a_folder_that_is_shared_with_a_group_stays_shared(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    with umask(0o007):
        root.mkdir(mode=0o770)
        use(root, tmp_path / "backup")
    found = modes(root)
    assert {m for p, m in found.items() if (root / p).is_dir()} == {0o770}
    assert {m for p, m in found.items() if (root / p).is_file()} == {0o660}


def test_an_export_can_be_entered_by_its_owner_alone(tmp_path: Path) -> None:
    with umask(0), Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as fw:
        fw.add([Passage("p", "some words")])
        fw.export.beir(tmp_path / "out")
    assert modes(tmp_path / "out")["."] == 0o700
