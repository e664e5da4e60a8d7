"""What is promised of the disk: an index survives a cut of power at any moment.

What is renamed was synced before, and the folder that it is renamed in after; what is committed and
acknowledged is on the disk; versions and parts are deleted only once nothing names them.
"""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from rag_flywheel import Candidate, Config, Flywheel, Passage, restore
from rag_flywheel.records import Retrieval
from recorded_disk import FULL, ON, Disk, recorded

PASSAGES = [Passage(f"p{i}", f"common word{i} and word{i + 1}", f"Title {i}") for i in range(12)]
COMMIT_POINTS = {"CURRENT", "backup.json", "flywheel.toml"}


def opened(root: Path) -> Flywheel:
    config = Config(encoder="", keep_versions=2, record_wait_s=5.0, explore=0.0)
    return Flywheel.open(root, encoder=WordEncoder(), config=config)


def vote(fw: Flywheel, user: str, query: str = "word3 common") -> None:
    shown = fw.retrieve(query, user_id=user)
    fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id=user)


def made(root: Path) -> None:
    """Two versions and a vote."""
    with opened(root) as fw:
        fw.add(PASSAGES[:6])
        assert fw.refresh().outcome == "promoted"
        fw.add(PASSAGES[6:])
        vote(fw, "ann")
        assert fw.refresh().outcome == "promoted"


def refreshed(top: Path) -> None:
    with opened(top / "kb") as fw:
        for i in range(2):  # the second one prunes
            fw.add([Passage(f"more{i}", f"one more word{i}")])
            assert fw.refresh().outcome == "promoted"


def linked(top: Path) -> None:
    with opened(top / "kb") as fw:
        vote(fw, "bob")
        assert "none changed" in fw.refresh().reason


def rolled_back(top: Path) -> None:
    with opened(top / "kb") as fw:
        fw.rollback()
        assert fw.release()


def forgot(top: Path) -> None:
    with opened(top / "kb") as fw:
        assert fw.forget("ann").n_votes == 1
        assert len(fw.versions()) == 1


def repaired(top: Path) -> None:
    with opened(top / "kb") as fw:
        (top / "kb" / "versions" / "thesis.odt").write_text("words")
        (top / "kb" / "versions" / fw.versions()[0].id / "parameters.json").write_text("words")
        assert len(fw.repair()) == 4  # with CURRENT


def backed_up(top: Path) -> None:
    with opened(top / "kb") as fw:
        fw.backup(top / "far" / "away" / "saved")
        vote(fw, "bob")
        fw.add([Passage("more", "one more word")])
        fw.refresh()
        fw.backup(top / "far" / "away" / "saved")


def restored(top: Path) -> None:
    with opened(top / "kb") as fw:
        fw.backup(top / "saved")
        refreshed(top)
    restore(top / "saved", top / "another" / "place")
    restore(top / "saved", top / "kb")
    (top / "kb" / "flywheel.db").write_bytes(b"no database")
    restore(top / "saved", top / "kb")


OPERATIONS: dict[str, Callable[[Path], None]] = {
    "first use": lambda top: made(top / "new" / "place"),
    "refresh": refreshed,
    "refresh of linked indexes": linked,
    "rollback and release": rolled_back,
    "forget": forgot,
    "repair": repaired,
    "backup": backed_up,
    "restore": restored,
}


def assert_kept(disk: Disk) -> None:
    """The promises, for all that happened."""
    for event in disk.renames():
        if not {"staging", "quarantine"} & set(event.place.relative_to(disk.top).parts):
            assert event.unsynced == (), f"{event.place} was renamed before it was synced"
        if event.place.name in COMMIT_POINTS:
            assert event.pending == set(), f"{event.place} names what is not synced"
    for event in disk.events:
        if event.kind == "delete":
            place = event.place.relative_to(disk.top)
            assert "versions" not in place.parts[:2], f"{place} was deleted where readers find it"
    for commit in disk.commits():
        assert commit.pragmas[1] == ON, commit
    assert disk.pending() == set()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_is_renamed_is_synced_before_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    with recorded(tmp_path, monkeypatch) as disk:
        if operation != "first use":
            made(tmp_path / "kb")
        OPERATIONS[operation](tmp_path)
    assert_kept(disk)
    assert {"CURRENT"} <= {e.place.name for e in disk.renames()}


def test_the_database_knows_a_version_before_the_disk_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its token first, then its folder, then the intent to make it live, then CURRENT."""
    with recorded(tmp_path, monkeypatch) as disk:
        made(tmp_path / "kb")
        rolled_back(tmp_path)
    steps = []
    for event in disk.events:
        if event.kind == "rename" and event.place.parent.name == "versions":
            steps.append("folder")
        elif event.kind == "rename" and event.place.name == "CURRENT":
            steps.append("CURRENT")
        for table in ("builds", "moves"):
            if table in event.tables:
                steps.append(table)
                assert event.pragmas[0] == FULL
    built, moved = ["builds", "folder", "moves", "CURRENT"], ["moves", "CURRENT"]
    assert steps == [*built, *built, *moved, *moved]


def test_old_parts_are_deleted_after_the_new_list_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "kb")
    with recorded(tmp_path, monkeypatch) as disk:
        backed_up(tmp_path)
    places = [(e.kind, e.place.name, e.place.parent.name) for e in disk.events]
    lists = [i for i, each in enumerate(places) if each[:2] == ("rename", "backup.json")]
    deleted = [
        i for i, (kind, _, folder) in enumerate(places) if (kind, folder) == ("delete", "parts")
    ]
    assert len(lists) == 2
    assert deleted and min(deleted) > lists[1]


def test_a_pruned_version_is_renamed_before_it_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "kb")
    with opened(tmp_path / "kb") as fw:
        oldest = fw.versions()[-1].id
    with recorded(tmp_path, monkeypatch) as disk:
        refreshed(tmp_path)
    moves = [e for e in disk.renames() if e.old is not None and e.old.name == oldest]
    assert [e.place.parent.name for e in moves] == ["staging"]
    assert not (tmp_path / "kb" / "versions" / oldest).exists()
    assert not list((tmp_path / "kb" / "staging").iterdir())


def shown(fw: Flywheel) -> Retrieval:
    found = fw.retrieve("word3 common", user_id="ann")
    fw.answer(str(found.id), "word3 and word4")
    return found


GIVEN: dict[str, tuple[str, Callable[[Flywheel, Any], Any]]] = {
    "vote": ("votes", lambda fw, r: fw.feedback(r.id, "p3", "helpful", user_id="ann")),
    "answer vote": ("answer_votes", lambda fw, r: fw.answer_feedback(r.id, "helpful")),
    "signal": ("answer_votes", lambda fw, r: fw.signal(r.id, "copied")),
    "adopted": ("answer_votes", lambda fw, r: fw.adopted(r.id, used=True, why="good")),
    "correction": ("corrections", lambda fw, r: fw.correct(r.id, "p4")),
    "text": ("notes", lambda fw, r: fw.correct(r.id, text="better so")),
    "missing": ("notes", lambda fw, r: fw.missing(r.id, "nothing on it")),
    "answer": ("retrievals", lambda fw, r: fw.answer(r.id, "another")),
    "passage": ("passages", lambda fw, r: fw.add([Passage("new", "a new one")])),
    "removal": ("passages", lambda fw, r: fw.remove(["p5"])),
    "pin": ("golden", lambda fw, r: fw.pin("word3 common", "p4")),
    "opting out": ("opted_out", lambda fw, r: fw.opt_out("ann")),
    "mute": ("mutes", lambda fw, r: fw.mute("ann")),
    "forgotten user": ("forgets", lambda fw, r: fw.forget("ann")),
}


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("where", ["this thread", "another thread"])
def test_what_is_acknowledged_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, where: str
) -> None:
    table, give = GIVEN[given]
    if where == "another thread" and given not in {"vote", "answer vote", "passage"}:
        return
    with recorded(tmp_path, monkeypatch) as disk, opened(tmp_path / "kb") as fw:
        fw.add(PASSAGES)
        found = shown(fw)  # a commit that need not be on the disk, by the same connection
        disk.events.clear()
        if where == "this thread":
            give(fw, found)
        else:
            thread = threading.Thread(target=give, args=(fw, found))
            thread.start()
            thread.join()
    commits = disk.commits(table)
    assert commits
    assert {e.pragmas for e in commits} == {(FULL, ON)}


def test_a_restored_database_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "kb")
    with opened(tmp_path / "kb") as fw:
        fw.backup(tmp_path / "saved")
    with recorded(tmp_path, monkeypatch) as disk:
        restore(tmp_path / "saved", tmp_path / "kb")
    copies = [e for e in disk.events if e.kind == "copy"]
    assert [(e.place, e.pragmas[0]) for e in copies] == [(tmp_path / "kb" / "flywheel.db", FULL)]


def test_retrievals_do_not_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs say: an answer that a cut of power forgets costs a vote on it, and no more."""
    with recorded(tmp_path, monkeypatch) as disk, opened(tmp_path / "kb") as fw:
        fw.add(PASSAGES)
        disk.events.clear()
        fw.retrieve("word3 common")
        fw.rerank("word3", [Candidate("x", "word3", 1.0)])
    assert {e.pragmas for e in disk.commits("retrievals")} == {(1, ON)}


def test_settings_of_every_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        recorded(tmp_path, monkeypatch),
        opened(tmp_path / "kb") as fw,
        fw._database.reading() as conn,
    ):
        wanted = {
            "journal_mode": "wal",
            "secure_delete": 1,
            "trusted_schema": 0,
            "cell_size_check": 1,
        }
        found = {name: conn.execute(f"PRAGMA {name}").fetchone()[0] for name in wanted}
    assert found == wanted


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_file_that_cannot_be_put_in_place_leaves_the_old_one_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    from rag_flywheel.disk import write_file

    write_file(tmp_path, "CURRENT", b"old")

    def broken(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, fails, broken)
        with pytest.raises(OSError, match="Input/output"):
            write_file(tmp_path, "CURRENT", b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"CURRENT": b"old"}


def test_no_connection_is_open_in_a_child(tmp_path: Path) -> None:
    """It would break the locks of its parent when it is closed."""
    with opened(tmp_path / "kb") as fw:
        fw.add(PASSAGES)
        assert any("flywheel.db" in place for place in open_files())
        child = os.fork()
        if child == 0:
            os._exit(int(any("flywheel.db" in place for place in open_files())))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        vote(fw, "ann")


def open_files() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - of links
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}"))  # noqa: PTH115
        except FileNotFoundError:
            continue
    return found


def test_a_move_never_takes_the_place_of_something(tmp_path: Path) -> None:
    from rag_flywheel.disk import move

    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    with pytest.raises(FileExistsError):
        move(tmp_path, "old", "new")  # rename(2) would replace an empty folder
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "old"]
    shutil.rmtree(tmp_path / "new")
    move(tmp_path, "old", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["new"]
