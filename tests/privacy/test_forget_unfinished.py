"""Forgetting that is interrupted, hindered, or seen from elsewhere; and rows besides votes."""

import re
import shutil
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fakes import WordEncoder
from forgetting import opened, query_name, rows, traces, user_hash
from rag_flywheel import Flywheel, Passage
from rag_flywheel.errors import StorageError
from rag_flywheel.store import forgetting
from rag_flywheel.store.database import FILE_NAME
from rag_flywheel.store.place import open_database

ASK = "how do I reset it, says ann"
OTHER = np.eye(1, 32, dtype=np.float32).tobytes()  # of unit length, and of no text
SECRETS = ["ann-4711", ASK, "because of ann"]


@pytest.fixture
def root(tmp_path: Path, help_desk: list[Passage]) -> Path:
    """Two versions; ann asked and voted, bob voted on her question and on his own."""
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add(help_desk)
        fw.refresh()
        shown = fw.retrieve(ASK, user_id="ann-4711")
        fw.feedback(shown.id, "secret", "helpful", user_id="ann-4711", reason="because of ann")
        fw.feedback(shown.id, "refund", "harmful", user_id="bob")
        fw.feedback(fw.retrieve("refund", user_id="bob").id, "cats", "helpful", user_id="bob")
        assert fw.refresh().outcome == "promoted"
    return root


def delete_only(root: Path) -> None:
    """What a process has done that dies right after the rows were deleted."""
    database = open_database(root)
    with database.transaction() as conn:
        report = forgetting.delete_user(conn, user_hash(root, "ann-4711"))
        forgetting.record_forget(conn, "begun", report)
    database.close()


def execute(root: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(root / FILE_NAME)) as conn, conn:
        conn.execute(sql, values)


def test_the_next_refresh_finishes_what_was_begun(root: Path) -> None:
    delete_only(root)
    with opened(root) as fw:
        older = [v.id for v in fw.versions()]  # that they rest on the user's votes is not on record
        (problem,) = fw.verify()
        assert "1 user was deleted" in problem and "rag-flywheel refresh" in problem
        with pytest.raises(StorageError, match=r"to be forgotten.*refresh"):
            fw.rollback()
        report = fw.refresh(if_votes=1000)
        assert report.outcome == "promoted"
        assert [v.id for v in fw.versions()] == [report.version]
        assert report.version not in older
        assert fw.verify() == []
        assert traces(root, [*SECRETS, query_name(root, ASK)]) == []
        assert fw.refresh().outcome == "unchanged"
        assert [e.text.split(":")[0] for e in fw.history() if e.kind == "forget"] == [
            "done",
            "begun",
        ]


def test_forgetting_again_finishes_what_was_begun(root: Path) -> None:
    delete_only(root)
    with opened(root) as fw:
        assert fw.forget("ann-4711").n_retrievals == 0  # they were deleted before
        assert fw.verify() == []
        assert len(fw.versions()) == 1
        assert traces(root, SECRETS) == []


def test_other_processes_lose_the_votes_at_once_and_follow_to_the_new_version(root: Path) -> None:
    with opened(root) as fw, opened(root) as other:
        shown = other.retrieve(ASK, record=False)
        assert any(hit.explanation.votes for hit in shown.hits)
        delete_only(root)
        (kept,) = [r["seq"] for r in rows(root, "SELECT seq FROM votes")]
        after = other.retrieve(ASK, record=False)
        assert after.version == shown.version
        assert {v for hit in after.hits for v in hit.explanation.votes} <= {kept}
        new = fw.refresh().version
        assert other.retrieve(ASK, record=False).version == new


def test_other_processes_do_not_remember_what_a_forgotten_user_asked(root: Path) -> None:
    encoder = WordEncoder(dim=32)
    with opened(root) as fw, Flywheel.open(root, encoder=encoder) as other:
        for _ in range(2):
            other.retrieve(ASK, record=False)
        assert encoder.n_encoded == 1  # the second time it was known
        fw.forget("ann-4711")
        other.retrieve("refund", record=False)
        before = encoder.n_encoded
        other.retrieve(ASK, record=False)
        assert encoder.n_encoded == before + 1


def test_a_version_that_fails_its_check_leaves_none_that_rests_on_the_user(root: Path) -> None:
    text = rows(root, "SELECT text_hash, vector FROM vectors JOIN passages USING (text_hash)")[0]
    with opened(root) as fw:
        fw.retrieve("refund", record=False)
        first = fw.versions()[-1].id  # before any vote
        execute(root, "UPDATE vectors SET vector = ? WHERE text_hash = ?", OTHER, text["text_hash"])
        with pytest.raises(StorageError, match=r"failed its check.*rag-flywheel refresh"):
            fw.forget("ann-4711")
        assert [v.id for v in fw.versions()] == [first]
        assert traces(root, SECRETS) == []
        assert fw.status().version is None
        assert len(fw.retrieve("refund", record=False).hits) == 4  # from the database alone
        assert any("user was deleted" in problem for problem in fw.verify())
        execute(
            root,
            "UPDATE vectors SET vector = ? WHERE text_hash = ?",
            text["vector"],
            text["text_hash"],
        )
        report = fw.refresh()
        assert (report.outcome, fw.verify()) == ("promoted", [])
        assert fw.retrieve("refund", record=False).version == report.version


def test_it_waits_for_a_reader_of_an_older_state(root: Path) -> None:
    with (
        opened(root) as fw,
        closing(sqlite3.connect(root / FILE_NAME, check_same_thread=False)) as conn,
    ):
        conn.execute("BEGIN")
        conn.execute("SELECT count(*) FROM votes").fetchone()
        released = threading.Timer(1.0, conn.rollback)
        released.start()
        fw.forget("ann-4711")
        released.join()
        assert traces(root, SECRETS) == []


@pytest.mark.slow
def test_a_reader_that_stays_is_an_error_and_not_an_end(root: Path) -> None:
    with opened(root) as fw:
        with closing(sqlite3.connect(root / FILE_NAME)) as conn:
            conn.execute("BEGIN")
            conn.execute("SELECT count(*) FROM votes").fetchone()
            began = time.monotonic()
            with pytest.raises(StorageError, match=r"has been reading.*rag-flywheel refresh"):
                fw.forget("ann-4711")
            assert time.monotonic() - began < 60
        assert fw.refresh().outcome == "promoted"
        assert (traces(root, SECRETS), fw.verify()) == ([], [])


def test_a_held_version_is_built_anew_and_stays_held(root: Path) -> None:
    with opened(root) as fw:
        fw.rollback(hold=True)
        frozen_at = fw.status().frozen_at
        report = fw.forget("ann-4711")
        status = fw.status()
        assert (status.version, status.held, status.frozen_at) == (report.version, True, frozen_at)
        assert fw.refresh().outcome == "unchanged"
        assert fw.release()
        assert fw.refresh().outcome == "promoted"


def test_corrections_reviews_and_known_answers(root: Path) -> None:
    ann, bob = user_hash(root, "ann-4711"), user_hash(root, "bob")
    with opened(root) as fw:
        fw.retrieve("refund", user_id="ann-4711")  # bob asked it too
        rids = {
            r["user_id"]: r["rid"] for r in rows(root, "SELECT * FROM retrievals ORDER BY rid DESC")
        }
        for rid, user in ((rids[ann], bob), (rids[bob], ann), (rids[bob], bob)):
            execute(
                root,
                "INSERT INTO corrections (at, rid, pid, user_id) VALUES (0, ?, 1, ?)",
                rid,
                user,
            )
        for query, user in ((ASK, bob), ("refund", ann), ("refund", bob)):
            execute(
                root,
                "INSERT INTO reviews (at, decision, query, query_hash, pid, user_id) "
                "VALUES (0, 'accept', ?, ?, 1, ?)",
                query,
                query_name(root, query),
                user,
            )
        import_answer(root, "refund")
        report = fw.forget("ann-4711")
        assert (report.n_corrections_kept, report.n_reviews_kept) == (1, 1)
        corrections = [r["user_id"] for r in rows(root, "SELECT * FROM corrections ORDER BY seq")]
        reviews = [r["user_id"] for r in rows(root, "SELECT * FROM reviews ORDER BY seq")]
        assert {r["query"] for r in rows(root, "SELECT * FROM reviews")} == {"refund"}
        assert (corrections[1:], reviews[1:]) == ([bob], [bob])
        for user in (corrections[0], reviews[0]):
            assert re.fullmatch("once:[0-9a-f]{32}", user)
        assert corrections[0] != reviews[0]  # nothing says that they were one person
        assert [r["query"] for r in rows(root, "SELECT * FROM golden")] == ["refund"]
        vectors = rows(root, "SELECT * FROM vectors WHERE text_hash = ?", query_name(root, ASK))
        assert vectors == []
        assert (
            len(rows(root, "SELECT * FROM vectors WHERE text_hash = ?", query_name(root, "refund")))
            == 1
        )
        assert rows(root, "SELECT * FROM looks") == []
        assert traces(root, SECRETS) == []


def import_answer(root: Path, query: str) -> None:
    execute(
        root,
        "INSERT INTO golden (at, query, query_hash, pid, grade, source) "
        "VALUES (0, ?, ?, 1, 1, 'imported')",
        query,
        query_name(root, query),
    )


def test_an_imported_answer_keeps_the_question_that_a_user_asked_too(root: Path) -> None:
    """And what reviewers decided of it: it is not the user's alone."""
    import_answer(root, ASK)
    execute(
        root,
        "INSERT INTO reviews (at, decision, query, query_hash, pid, user_id) "
        "VALUES (0, 'reject', ?, ?, 1, ?)",
        ASK,
        query_name(root, ASK),
        user_hash(root, "bob"),
    )
    with opened(root) as fw:
        before = fw.golden.items()
        fw.forget("ann-4711")
        assert fw.golden.items() == before == []
        assert len(rows(root, "SELECT * FROM golden")) == 1
        assert [r["decision"] for r in rows(root, "SELECT * FROM reviews")] == ["reject"]
        assert (
            len(rows(root, "SELECT * FROM vectors WHERE text_hash = ?", query_name(root, ASK))) == 1
        )


def test_two_forgotten_correctors_stay_two_voices(tmp_path: Path, help_desk: list[Passage]) -> None:
    root = tmp_path / "two"
    with opened(root) as fw:
        fw.add(help_desk)
        shown = fw.retrieve("refund", k=1, user_id="bob")
        fw.correct(shown.id, "secret", user_id="ann-4711")
        fw.correct(shown.id, "cats", user_id="cid")
        assert fw.golden.items() == []
        waiting = [(i.passage_id, i.why) for i in fw.review.items()]
        assert {p for p, _ in waiting} == {"secret", "cats"}
        for user in ("ann-4711", "cid"):
            fw.retrieve("login", user_id=user)
            assert fw.forget(user).n_corrections_kept == 1
            assert fw.golden.items() == []
            assert [(i.passage_id, i.why) for i in fw.review.items()] == waiting
        users = {r["user_id"] for r in rows(root, "SELECT * FROM corrections")}
        assert len(users) == 2 and None not in users


def test_of_a_forgotten_corrector_the_last_correction_still_counts(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    with opened(tmp_path / "kb2") as fw:
        fw.add(help_desk)
        shown = fw.retrieve("refund", k=1, user_id="bob")
        fw.retrieve("login", user_id="ann-4711")
        for passage in ("secret", "cats"):
            fw.correct(shown.id, passage, user_id="ann-4711")
        (before,) = fw.golden.items()
        assert before.answers == {"cats": 1}
        fw.forget("ann-4711")
        assert fw.golden.items() == [before]


def test_strays_and_what_was_set_aside_are_deleted_too(root: Path) -> None:
    """An old copy of a version, or one that failed its check, holds what the user asked."""
    with opened(root) as fw:
        live = root / "versions" / str(fw.status().version)
        first = fw.versions()[-1].id
        for name in ("versions/copy of a version", "quarantine/20200101T000000Z-00000"):
            shutil.copytree(live, root / name)
            (root / name / "notes.txt").write_text(ASK)
        (root / "versions" / "notes.txt").write_text(ASK)
        for name in ("staging/copy of a version", "tuning"):
            (root / name).mkdir(parents=True)
        (root / "staging" / "copy of a version" / "notes.txt").write_text(ASK)
        (root / "tuning" / "checkpoint.safetensors").write_text(ASK)
        assert traces(root / "versions", [ASK]) and traces(root / "quarantine", [ASK])
        report = fw.forget("ann-4711")
        kept = [p.name for p in (root / "versions").iterdir()]
        assert sorted(kept) == [first, report.version]
        assert not list((root / "quarantine").glob("*"))
        assert (traces(root, SECRETS), fw.verify()) == ([], [])


def test_opting_out_survives_being_forgotten(root: Path) -> None:
    with opened(root) as fw:
        fw.opt_out("ann-4711")
        fw.forget("ann-4711")
        assert fw.retrieve(ASK, user_id="ann-4711").id is None
        assert traces(root, SECRETS) == []


def test_before_the_first_refresh(fw: Flywheel, help_desk: list[Passage]) -> None:
    fw.add(help_desk)
    fw.retrieve(ASK, user_id="ann-4711")
    report = fw.forget("ann-4711")
    assert report.version == fw.status().version is not None
    assert fw.status().n_retrievals == 0


def test_what_others_asked_too_keeps_what_reviewers_decided_of_it(
    fw: Flywheel, help_desk: list[Passage]
) -> None:
    """Also where nobody knows who the others were."""
    fw.add(help_desk)
    for user in ("ann", None):
        for voice in ("bob", "cid", "dan", "eve"):
            shown = fw.retrieve("refund", user_id=user)
            verdict = "helpful" if voice in {"bob", "cid"} else "harmful"
            fw.feedback(shown.id, "secret", verdict, user_id=voice)
    (item,) = fw.review.items()
    fw.review.accept(item.id, user_id="rob")
    before = [(i.query, i.answers) for i in fw.golden.items()]
    fw.forget("ann")
    assert (
        [(i.query, i.answers) for i in fw.golden.items()] == before == [("refund", {"secret": 1})]
    )


def test_of_votes_on_answers_nothing_is_left(root: Path) -> None:
    with opened(root) as fw:
        for user in ("ann-4711", "bob"):
            shown = fw.retrieve("login", user_id=user)
            fw.answer_feedback(shown.id, "helpful", user_id="ann-4711")
            fw.signal(shown.id, "copied", passage_id="secret", user_id="bob")
        assert len(rows(root, "SELECT DISTINCT seq FROM credits")) == 4
        fw.forget("ann-4711")
        kept = rows(root, "SELECT seq FROM answer_votes")
        assert len(kept) == 1
        assert rows(root, "SELECT DISTINCT seq FROM credits") == kept


def test_who_decided_on_a_note_of_another_is_not_named_any_more(root: Path) -> None:
    with opened(root) as fw:
        shown = fw.retrieve("opening hours", user_id="bob")
        fw.missing(shown.id, "there is no page on it", user_id="bob")
        (item,) = (i for i in fw.review.items() if "opening" in i.query)
        fw.review.reject(item.id, user_id="ann-4711")
        (row,) = rows(root, "SELECT user_id FROM note_reviews")
        assert row["user_id"] == user_hash(root, "ann-4711")
        hidden = user_hash(root, "ann-4711")
        fw.forget("ann-4711")
        assert [r["decision"] for r in rows(root, "SELECT * FROM note_reviews")] == ["reject"]
        assert traces(root, [hidden]) == []
