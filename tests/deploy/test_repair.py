"""Repair: damage is moved away, never deleted, and what can be rebuilt is."""

import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from folders import ids, opened, use
from rag_flywheel import Flywheel, Passage
from rag_flywheel.cli.app import main
from rag_flywheel.store import wall_clock


def live(root: Path) -> Path:
    return root / "versions" / (root / "CURRENT").read_text().split()[0]


def cut(root: Path) -> None:
    path = live(root) / "passages.faiss"
    path.write_bytes(path.read_bytes()[:100])


def no_current(root: Path) -> None:
    (root / "CURRENT").unlink()


def folder_current(root: Path) -> None:
    no_current(root)
    (root / "CURRENT").mkdir()


def pipe_current(root: Path) -> None:
    no_current(root)
    os.mkfifo(root / "CURRENT")


def stray(root: Path) -> None:
    (root / "versions" / "thesis.odt").write_text("words")
    (root / "versions" / "20269999T000000Z-00000").mkdir()


def file_for_versions(root: Path) -> None:
    shutil.rmtree(root / "versions")
    (root / "versions").write_text("?")


@pytest.mark.parametrize(
    "damage", [cut, no_current, folder_current, pipe_current, stray, file_for_versions]
)
def test_a_damaged_folder_is_sound_after_a_repair_and_nothing_is_deleted(
    folder: Path, damage: Callable[[Path], None]
) -> None:
    expected = use(folder)
    damage(folder)
    with opened(folder) as fw:
        assert fw.verify()
        before = sorted(p.name for p in folder.rglob("*") if "versions" in str(p))
        done = fw.repair()
        assert done
        assert fw.verify() == []
        assert fw.repair() == []
        names = {p.name.split("-", 1)[-1] for p in folder.rglob("*")}
        assert [n for n in before if n not in names and n.split("-", 1)[-1] not in names] == []
    assert use(folder) == expected


def test_a_sound_folder_is_left_as_it_is(folder: Path) -> None:
    with opened(folder) as fw:
        assert fw.repair() == []
    assert not (folder / "quarantine").exists()


def test_a_rollback_stays_in_force_after_a_repair(folder: Path) -> None:
    with opened(folder) as fw:
        fw.rollback()
        frozen = fw.status().frozen_at
        assert frozen is not None
        cut(folder)
        fw.repair()
        assert (fw.verify(), fw.status().frozen_at) == ([], frozen)


@pytest.mark.parametrize("more", [" 1", " held", " 1 held"])
def test_current_that_the_journal_does_not_know_is_named_until_the_next_open(
    folder: Path, more: str
) -> None:
    with opened(folder) as fw:
        (folder / "CURRENT").write_text(f"{live(folder).name}{more}\n")
        assert ["journal" in said for said in fw.verify()] == [True]
    with opened(folder) as fw:
        assert fw.verify() == []


def test_current_that_was_written_by_hand_is_on_record_after_a_repair(folder: Path) -> None:
    with opened(folder) as fw:
        (folder / "CURRENT").write_text(f"{live(folder).name} 1\n")
        assert any("journal" in said for said in fw.verify())
        fw.repair()
        assert fw.verify() == []


def test_what_is_moved_away_twice_in_one_second_is_there_twice(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wall_clock, "now", lambda: 2e9)
    with opened(folder) as fw:
        for text in ("one", "two", "three"):
            (folder / "versions" / "thesis.odt").write_text(text)
            (done, _) = fw.repair()
            assert "versions/thesis.odt" in done
            assert fw.verify() == []
    kept = [path.read_text() for path in (folder / "quarantine").iterdir()]
    assert sorted(kept) == ["one", "three", "two"]


def test_a_text_without_a_vector_is_named_and_gets_one(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "flywheel.db")) as conn, conn:
        conn.execute(
            "DELETE FROM vectors WHERE text_hash IN (SELECT text_hash FROM passages WHERE id = 'p7')"
        )
    with opened(folder) as fw:
        (said,) = fw.verify()
        assert "1 passage has no vector" in said and "rag-flywheel refresh" in said
        fw.add([Passage("more", "so that there is something to do")])
        assert fw.refresh().outcome == "promoted"
        assert fw.verify() == []


def test_the_command_says_what_was_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "kb"
    with Flywheel.open(root, encoder="fakes:word_encoder") as fw:
        fw.add([])
        fw.refresh()
        ids(fw)
    for expected in (["nothing to repair"], ["moved", "refreshed"]):
        with pytest.raises(SystemExit) as ended:
            main(["repair", "--index", str(root)])
        assert ended.value.code == 0
        said = capsys.readouterr().out
        assert all(word in said for word in expected), said
        stray(root)
    with pytest.raises(SystemExit):
        main(["repair", "--index", str(root), "--json"])
    assert len(json.loads(capsys.readouterr().out)) == 3
