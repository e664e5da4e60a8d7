"""Every damage that makes answers wrong or impossible is noticed; no healthy index is called ill."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fakes import WordEncoder
from folders import PASSAGES, QUERY, opened, state, use
from rag_flywheel import Config, Flywheel, Passage, restore
from rag_flywheel.errors import FlywheelError, InputError
from rag_flywheel.records import Health
from rag_flywheel.report import health_of_refreshes
from rag_flywheel.report.health import exit_code, health
from rag_flywheel.store import journal, time_limit
from rag_flywheel.store.database import FILE_NAME

DB = FILE_NAME


def live(root: Path) -> Path:
    return root / "versions" / (root / "CURRENT").read_text().split()[0]


def older(root: Path) -> Path:
    return min((root / "versions").iterdir())


def truncate(path: Path, share: float = 0.5) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 0xFF
    path.write_bytes(data)


def sql(root: Path, *statements: str) -> None:
    with closing(sqlite3.connect(root / DB)) as conn, conn:
        for statement in statements:
            conn.execute(statement)


def other_index(root: Path) -> None:
    """Another index's database in the place of this one's."""
    with opened(root.parent / "other") as fw:
        fw.add([Passage("o", "some other words")])
    shutil.copy(root.parent / "other" / DB, root / DB)


def older_database(root: Path) -> None:
    """The database alone is put back, and CURRENT names a version that was built later."""
    shutil.copy(root / DB, root.parent / "old.db")
    with opened(root) as fw:
        fw.add([Passage("later", "later words")])
        fw.refresh()
    shutil.copy(root.parent / "old.db", root / DB)


def lost_log(root: Path) -> None:
    """The write-ahead log is lost, with all that was written since it was last emptied."""
    copy = root.parent / "copy"
    with opened(root) as fw:
        fw.add([Passage("later", "later words")])
        fw.refresh()
        shutil.copytree(root, copy)
    shutil.rmtree(root)
    for beside in ("-wal", "-shm"):
        (copy / f"{DB}{beside}").unlink()
    copy.rename(root)


def linked(path: Path) -> None:
    elsewhere = path.parent.parent / "elsewhere"
    shutil.move(path, elsewhere)
    path.symlink_to(elsewhere)


def edit_manifest(root: Path, **values: object) -> None:
    path = live(root) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def fill(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def replaced_by_folder(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    path.mkdir()


def link_lock(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("x")


NEWER = (
    "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) "
    "VALUES ('rag-flywheel', 'm999', '')"
)
OLDER = "DELETE FROM _sqlite_migrations WHERE name = 'm027_attempts'"
FORGET = """INSERT INTO forgets (at, state, report) VALUES (1e9, 'begun', '{"n_retrievals": 0,
    "n_votes": 0, "n_votes_of_others": 0, "n_corrections_kept": 0, "n_reviews_kept": 0,
    "version": null}')"""
VETO = (
    "INSERT INTO looks (at, version, n_votes, alpha, p, outcome) "
    "VALUES (2e9, 'v', 90, 0.01, 0.004, 'vetoed')"
)
BEGUN = "INSERT INTO attempts (at, state, pid) VALUES (2.1e9, 'begun', 7)"
FAILED = (
    "INSERT INTO attempts (at, state, attempt, pid, error, reason, to_do) "
    "VALUES (2.1e9, 'failed', last_insert_rowid(), 7, 'X', 'no space', 'free some')"
)
BROKEN: dict[str, Callable[[Path], object]] = {
    "settings missing": lambda r: (r / "flywheel.toml").unlink(),
    "settings empty": lambda r: fill(r / "flywheel.toml", b""),
    "settings garbage": lambda r: fill(r / "flywheel.toml", b"\xff[["),
    "settings unknown key": lambda r: fill(r / "flywheel.toml", b"format_version = 1\ntypo = 2\n"),
    "settings newer": lambda r: fill(r / "flywheel.toml", b"format_version = 9\n"),
    "settings a folder": lambda r: replaced_by_folder(r / "flywheel.toml"),
    "database missing": lambda r: (r / DB).unlink(),
    "database empty": lambda r: fill(r / DB, b""),
    "database half": lambda r: truncate(r / DB),
    "database lacks the last page": lambda r: truncate(r / DB, 0.98),
    "database garbage": lambda r: fill(r / DB, b"no database" * 5_000),
    "database header flipped": lambda r: flip(r / DB, 0.0),
    "database a folder": lambda r: replaced_by_folder(r / DB),
    "database linked": lambda r: linked(r / DB),
    "database of another index": other_index,
    "table missing": lambda r: sql(r, "DROP TABLE votes"),
    "index missing": lambda r: sql(r, "DROP INDEX passages_current"),
    "foreign trigger": lambda r: sql(r, "CREATE TRIGGER t AFTER INSERT ON votes BEGIN SELECT 1; END"),
    "newer tables": lambda r: sql(r, NEWER),
    "a text changed": lambda r: sql(r, "UPDATE passages SET text = 'something else' WHERE id = 'p3'"),
    "a hash changed": lambda r: sql(r, f"UPDATE passages SET text_hash = x'{'0f' * 16}' WHERE id = 'p3'"),
    "the clock is behind": lambda r: sql(r, "UPDATE clock SET seq = 1"),
    "the clock is text": lambda r: sql(r, "UPDATE clock SET seq = 'x'"),
    "no timeline": lambda r: sql(r, "UPDATE clock SET timeline = x'ff'"),
    "a retrieval unreadable": lambda r: sql(r, "UPDATE retrievals SET hits = '{'"),
    "a vote of nothing": lambda r: sql(r, "UPDATE votes SET rid = 999"),
    "another encoder": lambda r: sql(r, "UPDATE meta SET value = 'other' WHERE key = 'revision'"),
    "builds forgotten": lambda r: sql(r, "DELETE FROM builds"),
    "CURRENT missing": lambda r: (r / "CURRENT").unlink(),
    "CURRENT empty": lambda r: fill(r / "CURRENT", b""),
    "CURRENT garbage": lambda r: fill(r / "CURRENT", b"\xff\x00 nonsense"),
    "CURRENT outside": lambda r: fill(r / "CURRENT", b"../../etc\n"),
    "CURRENT to nothing": lambda r: fill(r / "CURRENT", b"20200101T000000Z-00000\n"),
    "CURRENT a folder": lambda r: replaced_by_folder(r / "CURRENT"),
    "CURRENT a link": lambda r: linked(r / "CURRENT"),
    "versions missing": lambda r: shutil.rmtree(r / "versions"),
    "versions linked": lambda r: linked(r / "versions"),
    "the version missing": lambda r: shutil.rmtree(live(r)),
    "the version empty": lambda r: replaced_by_folder(live(r)),
    "manifest missing": lambda r: (live(r) / "manifest.json").unlink(),
    "manifest half": lambda r: truncate(live(r) / "manifest.json"),
    "manifest newer": lambda r: edit_manifest(r, format_version=99),
    "manifest older": lambda r: edit_manifest(r, format_version=1),
    "manifest of another": lambda r: edit_manifest(r, id="20200101T000000Z-00000"),
    "manifest token": lambda r: edit_manifest(r, token="0" * 32),
    "manifest texts": lambda r: edit_manifest(r, texts="0" * 32),
    "manifest encoder": lambda r: edit_manifest(r, revision="other"),
    "a file too many": lambda r: fill(live(r) / "tokens" / "extra.npy", b"?"),
    "a file linked": lambda r: linked(live(r) / "parameters.json"),
    "a file a folder": lambda r: replaced_by_folder(live(r) / "parameters.json"),
    "a file unreadable": lambda r: (live(r) / "parameters.json").chmod(0),
    "database unreadable": lambda r: (r / DB).chmod(0),
    "folder unreadable": lambda r: r.chmod(0),
}  # fmt: skip
DEGRADED: dict[str, Callable[[Path], object]] = {
    "database older": older_database,  # the last version of it answers
    "log lost": lost_log,
    "an older version damaged": lambda r: truncate(older(r) / "vectors/0000000000000000001.npy"),
    "an older manifest missing": lambda r: (older(r) / "manifest.json").unlink(),
    "a stray": lambda r: fill(r / "versions" / "stray", b""),
    "CURRENT by hand": lambda r: fill(r / "CURRENT", f"{older(r).name} 7\n".encode()),
    "folder not writable": lambda r: r.chmod(0o500),
    "database not writable": lambda r: (r / DB).chmod(0o400),
    "lock a link": lambda r: link_lock(r / "refresh.lock"),
    "vectors gone": lambda r: sql(r, "DELETE FROM vectors"),
    "a vector damaged": lambda r: sql(r, "UPDATE vectors SET vector = x'00' WHERE rowid = 1"),
    "older tables": lambda r: sql(r, "DROP TABLE attempts", OLDER),
    "an unfinished forget": lambda r: sql(r, FORGET),
    "votes that wait": lambda r: sql(r, "UPDATE votes SET at = 1.5e9"),
    "vetoes": lambda r: sql(r, *[VETO] * 3),
    "noise": lambda r: sql(r, """INSERT INTO refreshes (at, outcome, parameters, reason, scores, seconds)
        VALUES (2e9, 'promoted', 'kept', '', '{"noise": 0.5}', 1)"""),
    "rejected": lambda r: sql(r, """INSERT INTO refreshes (at, outcome, parameters, reason, scores, seconds)
        VALUES (2e9, 'rejected', 'kept', 'lost 3 passages', '{}', 1)"""),
    "failed": lambda r: sql(r, BEGUN, FAILED),
    "killed": lambda r: sql(r, BEGUN),
    "log without its index": lambda r: log_without_index(r),
}  # fmt: skip


def log_without_index(root: Path) -> None:
    copy = root.parent / "copy"
    with opened(root) as fw:
        fw.add([Passage("later", "later words")])
        shutil.copytree(root, copy)
    (copy / f"{DB}-shm").unlink()
    shutil.rmtree(root)
    copy.rename(root)


class Answers(NamedTuple):
    """What an application gets: ids, or the name of the error."""

    ids: list[str] | None
    error: str = ""


def answers(root: Path) -> Answers:
    try:
        return Answers(use(root))
    except FlywheelError as error:
        return Answers(None, type(error).__name__)


def restored_modes(root: Path) -> None:
    root.chmod(0o700)
    for path in root.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)


@pytest.mark.parametrize("name", [*BROKEN, *DEGRADED])
def test_damage_is_noticed_with_what_to_do_and_nothing_is_changed(folder: Path, name: str) -> None:
    good = answers(folder)
    assert health(folder).state == "ok"
    {**BROKEN, **DEGRADED}[name](folder)
    before = state(folder) if name != "folder unreadable" else {}
    found = health(folder)
    assert found.state == ("broken" if name in BROKEN else "degraded"), found.problems
    assert exit_code(found) == (2 if name in BROKEN else 1)
    for check in found.problems:
        assert check.found and check.expected and check.to_do, check
        assert QUERY not in check.found and "common word" not in check.found
    assert not before or state(folder) == before
    if name in DEGRADED:  # answers are right
        restored_modes(folder)
        assert answers(folder) == good or name in {"log without its index"}


@pytest.mark.parametrize("one_in", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_what_makes_answers_impossible_or_others_is_noticed(
    sound: Path, tmp_path: Path, one_in: int
) -> None:
    """Every file of the live version, damaged in three ways, and every 4 kB of the database."""
    missed = []
    version = live(sound)
    names = [p.relative_to(sound) for p in sorted(version.rglob("*")) if p.is_file()]
    every: list[tuple[str, Callable[[Path], object]]] = []
    for name in names:
        for damage in (truncate, flip, Path.unlink):
            every.append((f"{damage.__name__} {name}", lambda r, n=name, d=damage: d(r / n)))
    size = (sound / DB).stat().st_size
    for at in range(100, size, 4096):
        every.append((f"flip {DB} at {at}", lambda r, at=at: flip(r / DB, at / size)))
    good = use(Path(shutil.copytree(sound, tmp_path / "good")))
    n_bad = 0
    for i, (said, damage_) in enumerate(every[::one_in]):
        root = Path(shutil.copytree(sound, tmp_path / str(i)))
        damage_(root)
        found = health(root).state
        got = answers(root)
        n_bad += got.ids != good
        if got.ids != good and found == "ok":
            missed.append((said, got))
        shutil.rmtree(root)
    assert n_bad > 60 / one_in
    assert missed == []


def ordinary(root: Path, name: str) -> None:
    """Bring an empty folder into an ordinary state."""
    if name == "a copy":
        ordinary(root.parent / "first", "refreshed")
        shutil.copytree(root.parent / "first", root)
        return
    if name == "restored":
        ordinary(root.parent / "first", "refreshed")
        with opened(root.parent / "first") as fw:
            fw.backup(root.parent / "backup")
        restore(root.parent / "backup", root)
        return
    with opened(root) as fw:
        if name == "empty":
            return
        fw.add(PASSAGES[:20])
        if name == "never refreshed":
            fw.feedback(fw.retrieve(QUERY).id, "p3", "helpful", user_id="u")
            return
        fw.refresh()
        fw.feedback(fw.retrieve(QUERY).id, "p3", "helpful", user_id="u")
        fw.add(PASSAGES[20:])
        if name == "refreshed":
            fw.refresh()
            fw.refresh()
        if name in {"rolled back", "held", "released"}:
            fw.refresh()
            fw.rollback(hold=name == "held")
            fw.feedback(fw.retrieve(QUERY).id, "p3", "helpful", user_id="w")
        if name == "released":
            fw.release()
        if name == "forgotten":
            fw.forget("u")
        if name == "repaired":
            truncate(live(root) / "parameters.json")
            fw.repair()
        if name == "restored over":
            fw.backup(root.parent / "backup")
            fw.refresh()
    if name == "restored over":
        restore(root.parent / "backup", root)
    if name == "log kept":
        shutil.copytree(root, root.parent / "copy")


STATES = [
    "empty", "never refreshed", "votes since", "refreshed", "rolled back", "held", "released", "forgotten",
    "repaired", "a copy", "restored", "restored over",
]  # fmt: skip


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("read_only", [False, True])
def test_an_ordinary_index_is_healthy(tmp_path: Path, name: str, read_only: bool) -> None:
    root = tmp_path / "kb"
    ordinary(root, name)
    found = health(root, read_only=read_only)
    assert found.state == "ok", found.problems
    with opened(root) as fw:
        assert fw.health().state == "ok"
        assert fw.status().problems == ()
        fw.add([Passage("more", "with a log beside")])
        assert health(root, read_only=read_only).state == "ok"
        assert fw.health().state == "ok"


def test_healthy_while_a_refresh_runs(tmp_path: Path) -> None:
    seen: list[Health] = []
    with opened(tmp_path / "kb") as fw:
        fw.add(PASSAGES)
        fw.refresh(progress=lambda *_: seen.extend([health(tmp_path / "kb"), fw.health()]))
        sql(tmp_path / "kb", "DELETE FROM vectors")
        fw.refresh(progress=lambda *_: seen.append(health(tmp_path / "kb")))
    assert len(seen) > 2
    refreshing = [next(c for c in each.checks if c.name == "refreshes") for each in seen]
    assert {check.state for check in refreshing} == {"ok"}
    assert any("running" in check.found for check in refreshing)
    assert {e.state for e in seen} <= {"ok", "degraded"}  # vectors were lacking
    assert health(tmp_path / "kb").state == "ok"


def test_a_backup_that_was_made_while_a_refresh_ran_is_restored_healthy(tmp_path: Path) -> None:
    with opened(tmp_path / "kb") as fw:
        fw.add(PASSAGES)
        fw.refresh()
        fw.add([Passage("n", "new words")])

        def back_up(*_: object) -> None:
            thread = threading.Thread(target=fw.backup, args=[tmp_path / "backup"])
            thread.start()
            thread.join()

        fw.refresh(progress=back_up)
    restore(tmp_path / "backup", tmp_path / "elsewhere")
    assert health(tmp_path / "elsewhere").state == "ok"
    with opened(tmp_path / "elsewhere") as fw:
        assert [e.kind for e in fw.history()] == ["promoted"]


def test_what_is_no_folder_of_an_index(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "none").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("x")
    for name in ("typo", "file", "none", "other"):
        found = health(tmp_path / name)
        assert (found.state, len(found.checks), found.version) == ("broken", 1, None)
    assert not (tmp_path / "typo").exists()


def test_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(folder)

    def with_free(blocks: int, inodes: int) -> Any:
        values = list(real)
        values[4], values[7] = blocks, inodes
        return lambda _: os.statvfs_result(values)

    disks = ((0, 9, "broken"), (10**6, 0, "broken"), (1_000, 9, "degraded"), (10**7, 9, "ok"))
    for blocks, inodes, expected in disks:
        monkeypatch.setattr(os, "statvfs", with_free(blocks, inodes))
        found = health(folder)
        assert found.state == expected, (blocks, inodes, found.problems)
        assert health(folder, read_only=True).state == "ok"


def test_the_age_of_the_last_refresh(folder: Path) -> None:
    assert health(folder, max_age_s=3600.0).state == "ok"
    time.sleep(0.05)
    (late,) = health(folder, max_age_s=0.01).problems
    assert (late.name, late.state) == ("refreshes", "degraded") and "cron" in late.to_do
    with opened(folder) as fw, pytest.raises(InputError, match="max_age_s is 0"):
        fw.health(max_age_s=0)


def test_refreshes_that_fail_are_counted(folder: Path) -> None:
    sql(folder, BEGUN, FAILED, BEGUN, BEGUN, FAILED)
    (found,) = health(folder).problems
    assert found.found.startswith("3 refreshes failed in a row; the last one")
    assert (found.found.split(": ")[1], found.to_do) == ("no space", "free some")


def test_a_rollback_that_lasts_is_named(folder: Path) -> None:
    with opened(folder) as fw:
        fw.rollback()
    assert health(folder).state == "ok"
    sql(folder, "INSERT INTO moves (at, action, version, frozen_at, held) SELECT 1.5e9, action, version, "
        "frozen_at, held FROM moves ORDER BY id DESC LIMIT 1")  # fmt: skip
    (found,) = health(folder).problems
    assert "rollback" in found.found and "release" in found.to_do


def test_the_holder_of_the_lock_is_named(folder: Path) -> None:
    from rag_flywheel.deploy.lock import refresh_lock

    assert health_of_refreshes.lock(folder).found == "it is free"
    with refresh_lock(folder):
        assert health_of_refreshes.lock_holder(folder) in {os.getpid(), None}  # None: no Linux
        sql(folder, "INSERT INTO attempts (at, state, pid) VALUES (1.5e9, 'begun', 7)")
        (found,) = [c for c in health(folder).problems if c.name == "refreshes"]
        assert "has been running for" in found.found


def test_time_is_limited_whatever_there_is_to_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, folder.parent / "copy")
    monkeypatch.setattr(time_limit, "LIMIT_S", 0.0)
    monkeypatch.setattr(time_limit, "_STEPS", 1)
    found = health(folder.parent / "copy")
    assert found.state == "ok"
    said = {check.name: check.found for check in found.checks}
    assert "in part" in said["database"]
    assert said["rows"] == "those looked at can be used"
    assert "0.0 of 0." in said["files of the live version"]


SPENT = """
import sys, time
from pathlib import Path
from rag_flywheel.report.health import health
import rag_flywheel.store.migrations, rag_flywheel.store.row_checks
root = Path(sys.argv[1])
health(root)
began = time.process_time()
found = health(root)
print(found.state, time.process_time() - began)
print(*sorted({name.split(".")[0] for name in sys.modules} & {"torch", "sentence_transformers", "transformers", "faiss"}))
"""  # noqa: E501


def test_it_is_cheap(folder: Path, tmp_path: Path) -> None:
    with opened(folder) as fw:
        fw.add([Passage(f"n{i}", f"number {i} of many common words") for i in range(3_000)])
        fw.refresh()
    done = subprocess.run(
        [sys.executable, "-c", SPENT, str(folder)], capture_output=True, text=True, check=True
    )
    first, loaded = done.stdout.splitlines()
    assert first.split()[0] == "ok"
    assert float(first.split()[1]) < 0.2
    assert "torch" not in loaded and "transformers" not in loaded


def test_status_says_it_first(folder: Path) -> None:
    with opened(folder) as fw:
        assert (fw.status().health, fw.status().problems) == ("ok", ())
        for damage in ("CURRENT garbage", "manifest half", "CURRENT missing"):
            BROKEN[damage](folder)
            found = fw.status()
            assert found.health == "broken" and found.problems, damage
            (folder / "CURRENT").unlink(missing_ok=True)
            fw.refresh()


def test_a_refused_fit_is_told(folder: Path) -> None:
    with opened(folder) as fw:
        last = fw.refresh()
        scores = {**last.scores, "noise": 0.52}
        with fw._database.transaction() as conn:
            journal.record_refresh(conn, replace(last, outcome="promoted", scores=scores))
    (found,) = health(folder).problems
    assert found.found == "52% of votes look wrong: nothing is learned from them"
    assert "raters" in found.to_do


def test_tenants_are_no_illness(tmp_path: Path) -> None:
    config = Config(encoder="", tenant_key="team")
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add([Passage("a", "words", metadata={"team": "x"})])
        fw.refresh()
    assert health(tmp_path / "kb").state == "ok"
