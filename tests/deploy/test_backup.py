"""A backup is one state of an index, whole and checked; a restore brings exactly that state back."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fakes import WordEncoder
from folders import state
from rag_flywheel import (
    Config,
    CorruptFileError,
    Flywheel,
    InputError,
    LockedError,
    NewerFormatError,
    Passage,
    StorageError,
    restore,
)
from rag_flywheel.cli.app import main
from rag_flywheel.config import config_text
from rag_flywheel.deploy.lock import refresh_lock

PASSAGES = [Passage(f"p{i}", f"common word{i} and word{i + 1}", f"Title {i}") for i in range(30)]
LATER = [Passage(f"later{i}", f"later word{i} and word{i + 1}") for i in range(10)]
QUERIES = [f"word{i} common" for i in range(0, 30, 3)]
Answers = list[list[tuple[str, float]]]


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder())


def answers(fw: Flywheel) -> Answers:
    found = [fw.retrieve(query, record=False) for query in QUERIES]
    return [[(hit.passage_id, round(hit.score, 9)) for hit in each.hits] for each in found]


def vote(fw: Flywheel, user: str) -> None:
    for i, query in enumerate(QUERIES):
        shown = fw.retrieve(query, user_id=user)
        fw.feedback(shown.id, shown.hits[i % 3].passage_id, "helpful", user_id=user)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copied, never changed: 30 passages, two versions, votes of three users, one since the refresh."""
    root = tmp_path_factory.mktemp("made") / "kb"
    with opened(root) as fw:
        fw.add(PASSAGES[:20])
        fw.refresh()
        fw.add(PASSAGES[20:])
        vote(fw, "ann")
        vote(fw, "bob")
        fw.refresh()
        vote(fw, "cyd")
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "kb"))


def go_on(fw: Flywheel) -> None:
    """What comes after the backup and must be gone after a restore."""
    fw.add(LATER)
    fw.remove(["p3"])
    vote(fw, "dan")
    assert fw.refresh().outcome == "promoted"
    fw.forget("ann")


def test_a_restored_index_answers_as_at_the_moment_of_the_backup(
    root: Path, tmp_path: Path
) -> None:
    with opened(root) as fw:
        before, version = answers(fw), fw.status().version
        report = fw.backup(tmp_path / "saved")
        go_on(fw)
        assert (answers(fw) != before, report.version) == (True, version)
    done = restore(tmp_path / "saved", tmp_path / "new")
    assert (done.seq, done.version, done.moved) == (report.seq, version, ())
    restore(tmp_path / "saved", root)  # over newer versions
    for place in (tmp_path / "new", root):
        with opened(place) as fw:
            assert (answers(fw), fw.verify(), fw.status().version) == (before, [], version)
            assert fw.refresh(if_votes=1_000).outcome == "unchanged"
            fw.add(LATER)  # under numbers that other texts had
            assert [fw.rank_many([p.text], k=1) for p in LATER] == [[[p.id]] for p in LATER]
            assert fw.refresh().outcome == "promoted"
            assert fw.verify() == []


def test_a_database_with_pages_of_another_size_takes_a_backup_and_keeps_its_pages(
    root: Path, tmp_path: Path
) -> None:
    with opened(root) as fw:
        before = answers(fw)
        fw.backup(tmp_path / "saved")
        go_on(fw)
    with closing(sqlite3.connect(root / "flywheel.db", isolation_level=None)) as conn:
        for statement in ("PRAGMA journal_mode=DELETE", "PRAGMA page_size=4096", "VACUUM"):
            conn.execute(statement)
    with opened(root) as serving:
        assert answers(serving) != before
        restore(tmp_path / "saved", root)
        assert answers(serving) == before
        assert serving.verify() == []
    with closing(sqlite3.connect(root / "flywheel.db")) as conn:
        assert conn.execute("PRAGMA page_size").fetchone() == (4096,)


def test_a_process_that_serves_notices_a_restore(root: Path, tmp_path: Path) -> None:
    with opened(root) as serving:
        before = answers(serving)
        serving.backup(tmp_path / "saved")
        with opened(root) as other:
            go_on(other)
        later = answers(serving)
        shown = serving.retrieve(QUERIES[0])
        assert later != before
        restore(tmp_path / "saved", root)
        assert answers(serving) == before
        serving.add(LATER)
        with opened(root) as other:
            assert answers(serving) == answers(other)
            with pytest.raises(LookupError):  # it was asked after the backup
                serving.feedback(shown.id, shown.hits[0].passage_id, "helpful")
        vote(serving, "eve")
        assert serving.refresh().outcome == "promoted"
        assert serving.verify() == []


@pytest.mark.parametrize("refreshed", [False, True])
def test_a_restore_is_noticed_though_as_much_has_happened_since_as_it_took_back(
    root: Path, tmp_path: Path, refreshed: bool
) -> None:
    """The numbers of events alone say that everything went on."""
    if not refreshed:
        root = tmp_path / "without a version"
        with opened(root) as fw:
            fw.add(PASSAGES)
    with opened(root) as serving:
        serving.backup(tmp_path / "saved")
        serving.add(LATER[:2])
        assert serving.rank_many([p.text for p in LATER[:2]], k=1) == [["later0"], ["later1"]]
        restore(tmp_path / "saved", root)
        with opened(root) as other:
            for passage in LATER[5:]:
                other.add([passage])
            found = answers(serving)
            assert found == answers(other)
            ranked = serving.rank_many([p.text for p in LATER], k=1)
            assert ranked == other.rank_many([p.text for p in LATER], k=1)
            assert ranked[5:] == [[p.id] for p in LATER[5:]]


def test_nothing_of_what_came_after_is_left_beside_a_restored_index(
    root: Path, tmp_path: Path
) -> None:
    """Neither a version that is live no more, nor what a tuning had learned from later votes."""
    with opened(tmp_path / "kb2") as fw:
        fw.add(PASSAGES)
        fw.backup(tmp_path / "saved")
        fw.refresh()
    shutil.rmtree(tmp_path / "kb2" / "versions")  # so that nothing says where CURRENT's is from
    (tmp_path / "kb2" / "tuning").mkdir()
    (tmp_path / "kb2" / "tuning" / "checkpoint.safetensors").write_bytes(b"of later votes")
    restore(tmp_path / "saved", tmp_path / "kb2")
    assert not (tmp_path / "kb2" / "CURRENT").exists()
    assert list((tmp_path / "kb2").glob("tuning/*")) == []
    with opened(tmp_path / "kb2") as fw:
        assert (fw.verify(), len(fw.passages())) == ([], len(PASSAGES))


def test_a_restore_over_an_index_leaves_what_the_backup_holds_and_names_what_it_moved(
    root: Path, tmp_path: Path
) -> None:
    settings = (root / "flywheel.toml").read_bytes()
    with opened(root) as fw:
        before, version = answers(fw), str(fw.status().version)
        known = {v.id for v in fw.versions()}
        fw.backup(tmp_path / "saved")
        go_on(fw)
        later = {v.id for v in fw.versions()} - known
    (root / "flywheel.toml").write_text(config_text(Config(encoder="", keep_versions=7)))
    damaged = root / "versions" / version
    if damaged.exists():
        shutil.rmtree(damaged)
    shutil.copytree(root / "versions" / max(later), damaged)  # other files under its name
    moved = restore(tmp_path / "saved", root).moved
    assert (root / "flywheel.toml").read_bytes() == settings
    for each in (version, *later):
        assert any(f"versions/{each} to quarantine/" in said for said in moved), moved
    with opened(root) as fw:
        assert (answers(fw), fw.verify(), fw.status().version) == (before, [], version)


def test_a_backup_whose_version_is_not_of_its_database_is_refused(
    root: Path, tmp_path: Path
) -> None:
    with opened(root) as fw:
        fw.backup(tmp_path / "first")
        fw.add(LATER)
        fw.refresh()
        fw.backup(tmp_path / "second")
    older = json.loads((tmp_path / "first" / "backup.json").read_text())["files"]["flywheel.db"]
    for part in older["parts"]:
        shutil.copy(tmp_path / "first" / "parts" / part, tmp_path / "second" / "parts" / part)
    edited(lambda v: v["files"].update({"flywheel.db": older}))(  # type: ignore[attr-defined]
        tmp_path / "second"
    )
    with pytest.raises(CorruptFileError, match=r"is not sound: .* another state of the database"):
        restore(tmp_path / "second", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_rollback_is_in_the_backup(root: Path, tmp_path: Path) -> None:
    with opened(root) as fw:
        fw.rollback(hold=True)
        before, frozen = answers(fw), fw.status().frozen_at
        fw.backup(tmp_path / "saved")
        fw.release()
        fw.refresh()
    for place in (root, tmp_path / "new"):
        restore(tmp_path / "saved", place)
        with opened(place) as fw:
            now = fw.status()
            assert (now.frozen_at, now.held, answers(fw)) == (frozen, True, before)
            assert fw.release()
            assert fw.refresh().outcome in {"promoted", "unchanged"}
            assert fw.verify() == []


def test_an_index_without_a_version_and_an_empty_one(tmp_path: Path) -> None:
    with opened(tmp_path / "kb") as fw:
        assert fw.backup(tmp_path / "empty").version is None
        fw.add(PASSAGES)
        before = answers(fw)
        fw.backup(tmp_path / "saved")
        fw.refresh()
    restore(tmp_path / "saved", tmp_path / "kb")
    with opened(tmp_path / "kb") as fw:
        assert (answers(fw), fw.status().version, fw.verify()) == (before, None, [])
    restore(tmp_path / "empty", tmp_path / "kb")
    with opened(tmp_path / "kb") as fw:
        assert (fw.passages(), fw.verify()) == ([], [])


def test_a_second_backup_writes_only_what_is_new(root: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    with opened(root) as fw:
        first, again = fw.backup(saved), fw.backup(saved)
        assert (first.n_new_bytes > first.n_bytes / 2, again.n_new_bytes) == (True, 0)
        parts = set((saved / "parts").iterdir())
        fw.add(Passage(f"long{i}", f"long {i} " + "words " * 50_000) for i in range(20))
        assert fw.backup(saved).n_new_bytes > 5_000_000
        vote(fw, "eve")
        assert 0 < fw.backup(saved).n_new_bytes < 2_000_000
        fw.add(LATER)
        fw.refresh()
        fw.backup(saved)
        now = answers(fw)
    listed = json.loads((saved / "backup.json").read_text())["files"].values()
    assert {p.name for p in (saved / "parts").iterdir()} == {p for f in listed for p in f["parts"]}
    assert not parts <= set((saved / "parts").iterdir())  # what is used no more is gone
    restore(saved, tmp_path / "new")
    with opened(tmp_path / "new") as fw:
        assert answers(fw) == now


def test_the_tuned_encoder_and_the_history_of_the_gate_are_in_it(
    tuned: Path, tmp_path: Path
) -> None:
    from tuned import opened as tunable

    with tunable(tuned) as fw:
        expected = fw.history(), fw.explain_version(str(fw.status().version))
        order = fw.rank_many(["thing5 ripe please", "thing12 loud"])
        fw.backup(tmp_path / "saved")
    shutil.rmtree(tuned / "versions")
    for place in (tmp_path / "new", tuned):
        restore(tmp_path / "saved", place)
        with tunable(place) as fw:
            assert (fw.history(), fw.explain_version(str(fw.status().version))) == expected
            assert fw.rank_many(["thing5 ripe please", "thing12 loud"]) == order
            assert fw.verify() == []


@pytest.mark.parametrize("left", ["", "flywheel.toml", "CURRENT", "flywheel.db-wal"])
def test_a_restore_mends_a_database_that_is_damaged_or_gone(
    root: Path, tmp_path: Path, left: str
) -> None:
    with opened(root) as fw:
        before = answers(fw)
        fw.backup(tmp_path / "saved")
    (root / "flywheel.db").write_bytes(b"not a database" * 1000)
    if left:
        (root / "flywheel.db").unlink()
        for path in root.iterdir():
            if path.name not in {left, "versions"}:
                path.unlink() if path.is_file() else shutil.rmtree(path)
        (root / left).touch()
    with (
        pytest.raises(StorageError, match=r"sound SQLite|is missing|no flywheel\.toml|empty"),
        opened(root) as fw,
    ):
        answers(fw)
    restore(tmp_path / "saved", root)
    with opened(root) as fw:
        assert (answers(fw), fw.verify()) == (before, [])


def cut(saved: Path) -> None:
    part = max((saved / "parts").iterdir(), key=lambda p: p.stat().st_size)
    part.write_bytes(part.read_bytes()[:-1])


def flip(saved: Path) -> None:
    part = max((saved / "parts").iterdir(), key=lambda p: p.stat().st_size)
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)


def gone(saved: Path) -> None:
    max((saved / "parts").iterdir()).unlink()


def link(saved: Path) -> None:
    part = max((saved / "parts").iterdir())
    part.rename(saved / "elsewhere")
    part.symlink_to(saved / "elsewhere")


def edited(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def edit(saved: Path) -> None:
        values = json.loads((saved / "backup.json").read_text())
        change(values)
        (saved / "backup.json").write_text(json.dumps(values))

    return edit


def swapped(values: dict[str, object]) -> None:
    files = values["files"]
    assert isinstance(files, dict)
    first, second = [name for name in sorted(files) if "tokens" in name][:2]
    files[first], files[second] = files[second], files[first]


def shortened(values: dict[str, object]) -> None:
    files = values["files"]
    assert isinstance(files, dict)
    files["flywheel.toml"]["parts"] = []


def escaping(values: dict[str, object]) -> None:
    files = values["files"]
    assert isinstance(files, dict)
    files["versions/../../escaped"] = files["flywheel.toml"]


@pytest.mark.parametrize(
    "damage",
    [
        *(cut, flip, gone, link),
        edited(swapped),
        edited(shortened),
        edited(escaping),
        edited(lambda v: v.pop("files")),
        edited(lambda v: v.update(seq=-1)),
        edited(lambda v: v["files"].pop("flywheel.db")),  # type: ignore[attr-defined]
        lambda saved: (saved / "backup.json").write_text("{"),
    ],
)
def test_a_damaged_backup_is_refused_before_anything_is_changed(
    root: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    with opened(root) as fw:
        fw.backup(tmp_path / "saved")
        now = answers(fw)
    damage(tmp_path / "saved")
    before = state(root)
    for place in (root, tmp_path / "new"):
        with pytest.raises(CorruptFileError, match=r"restore another"):
            restore(tmp_path / "saved", place)
    assert {n: s for n, s in state(root).items() if not n.startswith("flywheel.db-")} == {
        n: s for n, s in before.items() if not n.startswith("flywheel.db-")
    } | {"staging": state(root)["staging"]}
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "escaped").exists()
    with opened(root) as fw:
        assert (answers(fw), fw.verify()) == (now, [])
        fw.backup(tmp_path / "again")


@pytest.mark.parametrize("damage", [cut, flip, gone])
def test_the_part_that_is_damaged_is_named(
    root: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    with opened(root) as fw:
        fw.backup(tmp_path / "saved")
    before = state(tmp_path / "saved")
    damage(tmp_path / "saved")
    after = state(tmp_path / "saved")
    (part,) = (name for name in before if after.get(name) != before[name] and name != "parts")
    with pytest.raises(CorruptFileError, match=f"{part}, a part of .*, cannot be used"):
        restore(tmp_path / "saved", tmp_path / "new")


def test_a_part_that_was_damaged_is_written_again(root: Path, tmp_path: Path) -> None:
    with opened(root) as fw:
        fw.backup(tmp_path / "saved")
        flip(tmp_path / "saved")
        assert fw.backup(tmp_path / "saved").n_new_bytes > 0
        restore(tmp_path / "saved", tmp_path / "new")


def test_what_is_no_place_for_a_backup_or_no_backup(root: Path, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "thesis.odt").write_text("words")
    with opened(root) as fw, opened(tmp_path / "other") as other:
        other.add(PASSAGES)
        other.backup(tmp_path / "of other")
        for place, said in (
            (root / "saved", "is in the index folder"),
            (tmp_path / "docs", "'thesis.odt'"),
            (tmp_path / "docs" / "thesis.odt", "is a file"),
            (tmp_path / "of other", "backup of another index"),
        ):
            with pytest.raises(InputError, match=said):
                fw.backup(place)
        with pytest.raises(InputError, match="expected the name of a folder"):
            fw.backup(7)  # type: ignore[arg-type]
        fw.backup(tmp_path / "saved")
    for source, place, said in (
        (tmp_path / "docs", root, "holds no backup"),
        (tmp_path / "missing", root, "holds no backup"),
        (tmp_path / "saved", tmp_path / "docs", "not empty"),
        (tmp_path / "of other", root, "another index"),
    ):
        with pytest.raises(InputError, match=said):
            restore(source, place)
    assert [p.name for p in (tmp_path / "docs").iterdir()] == ["thesis.odt"]


def test_a_backup_of_a_newer_release(root: Path, tmp_path: Path) -> None:
    with opened(root) as fw:
        fw.backup(tmp_path / "saved")
    edited(lambda v: v.update(format_version=2, new=1))(tmp_path / "saved")
    with pytest.raises(NewerFormatError, match=r"format 2; .* up to 1\. Upgrade"):
        restore(tmp_path / "saved", root)


def test_an_unsound_index_is_not_backed_up_over_a_sound_backup(root: Path, tmp_path: Path) -> None:
    with opened(root) as fw:
        before = answers(fw)
        fw.backup(tmp_path / "saved")
        live = root / "versions" / str(fw.status().version)
        array = live / "tokens" / "ids-1.npy"
        array.write_bytes(array.read_bytes()[:-1] + b"?")
        with pytest.raises(CorruptFileError, match=r"tokens/ids-1.npy is not what .* repair"):
            fw.backup(tmp_path / "saved")
    restore(tmp_path / "saved", root)
    with opened(root) as fw:
        assert (answers(fw), fw.verify()) == (before, [])


def test_a_restore_waits_for_no_refresh_and_a_backup_for_no_other(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from filelock import FileLock

    from rag_flywheel.deploy import restore as module

    monkeypatch.setattr(module, "_WAIT_S", 0.0)
    with opened(root) as fw:
        fw.backup(tmp_path / "saved")
        with refresh_lock(root):
            fw.backup(tmp_path / "saved")  # needs no lock
            with pytest.raises(LockedError):
                restore(tmp_path / "saved", root)
        in_use = FileLock(tmp_path / "saved" / "backup.lock")
        with in_use, pytest.raises(LockedError, match="another backup"):
            fw.backup(tmp_path / "saved")


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, saved = tmp_path / "kb", tmp_path / "saved"
    with Flywheel.open(root, config=Config(encoder="fakes:word_encoder")) as fw:
        fw.add(PASSAGES)
        fw.refresh()

    def run(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main([*words, "--index", str(root)])
        assert ended.value.code == 0
        return capsys.readouterr().out

    assert "files of" in run("backup", str(saved))
    assert json.loads(run("backup", str(saved), "--json"))["n_new_bytes"] == 0
    run("remove", "p3")
    assert "restored to event 1" in run("restore", str(saved))
    assert json.loads(run("restore", str(saved), "--json"))["moved"] == []
    assert "sound" in run("verify")
    with Flywheel.open(root) as fw:
        assert len(fw.passages()) == 30


def test_a_damaged_database_is_not_backed_up_over_a_sound_backup(
    root: Path, tmp_path: Path
) -> None:
    """Not even where only an index of it disagrees with its table, which no query need notice."""
    with opened(root) as fw:
        fw.backup(tmp_path / "saved")
        with fw._database.reading() as conn:
            (name,) = conn.execute("SELECT query_hash FROM retrievals LIMIT 1").fetchone()
        fw._database.empty_log()
    before = state(tmp_path / "saved")
    sound = (root / "flywheel.db").read_bytes()
    place = sound.rindex(name)
    (root / "flywheel.db").write_bytes(
        sound[:place] + b"9" * len(name) + sound[place + len(name) :]
    )
    with opened(root) as fw, pytest.raises(CorruptFileError):
        fw.backup(tmp_path / "saved")
    kept = state(tmp_path / "saved")
    assert {name: kept.get(name) for name in before} == before
