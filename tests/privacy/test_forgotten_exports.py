"""What an export of before holds of a user who was forgotten since does not come back with it."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from rag_flywheel import Flywheel, ImportReport, Passage
from rag_flywheel.flywheel import restore
from rag_flywheel.records import ImportedHit, ImportedRetrieval, ImportedVote
from rag_flywheel.store.forgotten import Forgotten

PASSAGES = [
    Passage("reset", "press reset for a new password"),
    Passage("mail", "write a mail for the password"),
    Passage("cats", "cats sleep most of the day"),
    Passage("dogs", "dogs bark"),
]
GONE = "of people who were forgotten"


@pytest.fixture
def fw(tmp_path: Path) -> Iterator[Flywheel]:
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as opened:
        opened.add(PASSAGES)
        yield opened


def live(fw: Flywheel) -> dict[str, str]:
    """Ann and Bob ask, and each says something of both answers, Ann of every kind, Bob the opposite; the ids
    by who asked."""
    asked = {
        user: str(fw.retrieve(f"reset mail cats {user}", k=3, user_id=user, session_id=user).id)
        for user in ("ann", "bob")
    }
    for id_ in asked.values():
        fw.feedback(id_, "reset", "helpful", user_id="ann", reason="says ann")
        fw.feedback(id_, "mail", "harmful", user_id="ann")
        fw.feedback(id_, "mail", "retract", user_id="ann")
        fw.answer_feedback(id_, "helpful", user_id="ann")
        fw.adopted(id_, used=False, why="so ann", user_id="ann")
        fw.signal(id_, "copied", user_id="ann")
        fw.signal(id_, "rating", 5, passage_id="reset", user_id="ann")
        fw.correct(id_, "dogs", user_id="ann")
        fw.feedback(id_, "reset", "harmful", user_id="bob", reason="says bob")
        fw.answer_feedback(id_, "harmful", user_id="bob")
        fw.adopted(id_, used=True, user_id="bob")
    return asked


EXPORTS: dict[str, Callable[[Flywheel, Path], tuple[Any, list[Path]]]] = {}


def _tables(ending: str) -> Callable[[Flywheel, Path], tuple[Any, list[Path]]]:
    def write(fw: Flywheel, folder: Path) -> tuple[Any, list[Path]]:
        if ending == "parquet":
            pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
        paths = [folder / f"retrievals.{ending}", folder / f"votes.{ending}"]
        fw.export.retrievals(paths[0])
        fw.export.votes(paths[1])
        return "csv", paths

    return write


def _votes_alone(fw: Flywheel, folder: Path) -> tuple[Any, list[Path]]:
    fw.export.votes(folder / "alone.jsonl")
    return "csv", [folder / "alone.jsonl"]


def _ubi(fw: Flywheel, folder: Path) -> tuple[Any, list[Path]]:
    fw.export.ubi(folder / "ubi")
    return "ubi", sorted((folder / "ubi").glob("*.ndjson"))


def _ubi_events(fw: Flywheel, folder: Path) -> tuple[Any, list[Path]]:
    fw.export.ubi(folder / "events")
    return "ubi", [folder / "events" / "ubi_events.ndjson"]


EXPORTS = {
    "jsonl": _tables("jsonl"),
    "csv": _tables("csv"),
    "parquet": _tables("parquet"),
    "votes alone": _votes_alone,
    "ubi": _ubi,
    "events of ubi alone": _ubi_events,
}


def logged(fw: Flywheel) -> list[str]:
    with closing(sqlite3.connect(fw._root / "flywheel.db")) as conn:
        tables = "retrievals", "votes", "answer_votes", "credits", "corrections", "notes", "runs"
        return [repr(row) for t in tables for row in conn.execute(f"SELECT * FROM {t}")]


def left_out(report: ImportReport) -> int:
    """How many retrievals and votes of the forgotten were left out; nothing else came in."""
    assert (report.retrievals, dict(report.votes), report.extended) == (0, {}, 0)
    return sum(n for reason, n in report.left_out.items() if reason.endswith(GONE))


@pytest.mark.parametrize("kind", EXPORTS)
def test_an_export_of_before_brings_nothing_of_a_forgotten_user(
    fw: Flywheel, tmp_path: Path, kind: str
) -> None:
    live(fw)
    tool, paths = EXPORTS[kind](fw, tmp_path)
    fw.refresh()
    report = fw.forget("ann")
    assert (report.n_retrievals, report.n_votes, report.n_votes_of_others) == (1, 16, 3)
    before = logged(fw)
    dry = fw.import_files(tool, paths, dry_run=True)
    found = fw.import_files(tool, paths)
    assert dict(dry.left_out) == dict(found.left_out)
    left_out(found)
    n = 8 - (tool == "ubi")  # which has no word for a passage that was not shown
    assert found.left_out[f"votes {GONE}"] == n
    assert found.left_out[f"votes on retrievals {GONE}"] == n + 3
    with_retrievals = kind != "events of ubi alone"  # rows of votes tell of their retrievals
    assert found.left_out.get(f"retrievals {GONE}", 0) == with_retrievals
    assert found.unchanged == 3 + with_retrievals, "what Bob said of his own answer"
    assert logged(fw) == before
    assert fw.verify() == []


@pytest.mark.parametrize("kind", ["jsonl", "ubi"])
def test_a_backup_keeps_what_was_forgotten_and_another_index_takes_the_export(
    fw: Flywheel, tmp_path: Path, kind: str
) -> None:
    live(fw)
    tool, paths = EXPORTS[kind](fw, tmp_path)
    fw.refresh()
    fw.forget("ann")
    fw.backup(tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "again")
    with Flywheel.open(tmp_path / "again", encoder=WordEncoder()) as again:
        assert left_out(again.import_files(tool, paths)) > 10
    with Flywheel.open(tmp_path / "other", encoder=WordEncoder()) as other:
        other.add(PASSAGES)
        report = other.import_files(tool, paths)
        assert (report.retrievals, dict(report.left_out)) == (2, {})


def test_a_trace_of_another_tool_that_names_our_retrieval_does_not_bring_it_back(
    fw: Flywheel,
) -> None:
    asked = live(fw)
    fw.forget("ann")
    of_ann, of_bob = (
        ImportedRetrieval(
            f"span-{user}", "password", [ImportedHit("reset")], recorded_as=id_, user_id=user
        )
        for user, id_ in asked.items()
    )
    votes = [
        ImportedVote(f"score-{u}", f"span-{u}", "helpful", "reset", user_id="eve") for u in asked
    ]
    report = fw.import_votes([of_ann, of_bob, *votes], source="traces")
    assert (report.retrievals, dict(report.votes), report.unchanged) == (0, {"vote": 1}, 1)
    assert dict(report.left_out) == {f"retrievals {GONE}": 1, f"votes on retrievals {GONE}": 1}


def test_a_user_who_is_forgotten_during_an_import_leaves_no_vote_on_what_is_asked_meanwhile(
    fw: Flywheel,
) -> None:
    """The row of what was deleted is that of the next question."""
    meanwhile = list[str | None]()

    def forget(step: str, done: int, total: int) -> None:
        if step == "import votes" and not meanwhile:
            fw.forget("ann")
            meanwhile.append(fw.retrieve("reset mail cats", k=3, user_id="eve").id)

    records = [
        ImportedRetrieval(
            "r", "reset mail cats", [ImportedHit("reset"), ImportedHit("mail")], user_id="ann"
        ),
        ImportedVote("1", "r", "harmful", "reset", user_id="bob"),
        ImportedVote("2", "r", "harmful", user_id="bob"),
    ]
    report = fw.import_votes(records, progress=forget)
    assert meanwhile[0] is not None
    assert (dict(report.votes), fw.votes()) == ({}, [])
    assert dict(report.left_out) == {"votes on retrievals that were deleted here since": 2}
    assert dict(fw.import_votes(records).left_out) == {
        f"retrievals {GONE}": 1,
        f"votes on retrievals {GONE}": 2,
    }


def test_what_comes_after_the_forgetting_comes_in(fw: Flywheel, tmp_path: Path) -> None:
    live(fw)
    fw.forget("ann")
    asked = fw.retrieve("reset mail cats ann", k=3, user_id="ann")
    fw.feedback(asked.id, "reset", "harmful", user_id="ann")
    own = ImportedRetrieval("r-9", "cats", [ImportedHit("cats")], user_id="ann")
    vote = ImportedVote("v-9", "r-9", "helpful", "cats", user_id="ann")
    report = fw.import_votes([own, vote])
    assert (report.retrievals, dict(report.votes), dict(report.left_out)) == (1, {"vote": 1}, {})
    tool, paths = EXPORTS["jsonl"](fw, tmp_path)
    assert left_out(fw.import_files(tool, paths)) == 0
    fw.forget("ann")
    assert left_out(fw.import_files(tool, paths)) > 0


def test_what_is_kept_names_nobody_and_is_the_index_s_own(fw: Flywheel, tmp_path: Path) -> None:
    asked = live(fw)
    user = fw.hashed_user("ann")
    fw.forget("ann")
    with closing(sqlite3.connect(fw._root / "flywheel.db")) as conn:
        columns = [row[1] for row in conn.execute("PRAGMA table_info(forgotten)")]
        keys = [bytes(row[0]) for row in conn.execute("SELECT key FROM forgotten")]
    assert columns == ["key"] and len(keys) > 5 and {len(key) for key in keys} == {16}
    assert keys == sorted(keys), "their order says nothing of when, or of which belong together"
    for path in fw._root.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert user.encode() not in data and asked["ann"].encode() not in data
    with (
        Flywheel.open(tmp_path / "other", encoder=WordEncoder()) as other,
        fw._database.reading() as ours,
        other._database.reading() as theirs,
    ):
        assert Forgotten(ours).retrieval(asked["ann"]) in keys
        assert Forgotten(theirs).retrieval(asked["ann"]) not in keys


@pytest.mark.parametrize("fraction", [0.0, 0.0004, 0.25, 0.5, 0.9994, 0.9996, 0.99999])
def test_a_vote_is_known_by_its_time_however_that_was_written(
    fw: Flywheel, fraction: float
) -> None:
    at = 1_790_000_000.0 + fraction
    vote: tuple[Any, ...] = ("r", 1, "vote", "helpful")
    with fw._database.reading() as conn:
        of = Forgotten(conn)
    noted = set(of.vote(*vote, at))
    cut = int(at), int(at * 1e3) / 1e3
    for written in (at, *cut, round(at, 3), round(at, 6)):
        assert noted & set(of.votes_at(*vote, written)), written
    for other in (at - 2.0, at + 2.0):
        assert not noted & set(of.votes_at(*vote, other))


def test_verify_finds_a_key_that_is_none(fw: Flywheel) -> None:
    with closing(sqlite3.connect(fw._root / "flywheel.db")) as conn, conn:
        conn.execute("INSERT INTO forgotten (key) VALUES ('x')")
    assert any("forgotten.key" in each for each in fw.verify())
