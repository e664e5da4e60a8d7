"""Feedback that names the run of a framework reaches the retrievals of that run, and no others."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from rag_flywheel import Candidate, Config, Flywheel, Passage, Vote
from rag_flywheel.capture.runs import MOST_RETRIEVALS, MOST_RUNS
from rag_flywheel.errors import InputError, UnknownIdError
from rag_flywheel.flywheel import restore

PASSAGES = [
    Passage("reset", "press reset for a new password"),
    Passage("mail", "write a mail for the password"),
    Passage("cats", "cats sleep most of the day"),
]


@pytest.fixture
def fw(tmp_path: Path) -> Iterator[Flywheel]:
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as opened:
        opened.add(PASSAGES)
        yield opened


def rows(fw: Flywheel, sql: str) -> list[Any]:
    with closing(sqlite3.connect(fw._root / "flywheel.db")) as conn:
        return conn.execute(sql).fetchall()


def voted(fw: Flywheel) -> list[tuple[str, str, str | None]]:
    """(retrieval, kind, passage) of every vote, the oldest first."""
    return [(v.retrieval_id, v.kind, v.passage_id) for v in reversed(fw.votes())]


def test_a_vote_moves_the_next_answer_like_one_on_the_retrieval(fw: Flywheel) -> None:
    query = "password"
    first = fw.retrieve(query, run_id="run-1")
    last = first.hits[1].passage_id
    for user in ("ann", "bob", "cid"):
        assert fw.feedback(run="run-1", passage_id=last, verdict="helpful", user_id=user)
    assert fw.retrieve(query).hits[0].passage_id == last
    assert voted(fw) == [(first.id, "vote", last)] * 3


def test_a_vote_is_on_the_newest_retrieval_of_the_run_that_showed_the_passage(fw: Flywheel) -> None:
    one = fw.retrieve("cats sleep", k=1, run_id="run")
    two = fw.retrieve("cats sleep day", k=1, run_id="run")
    three = fw.retrieve("reset password", k=1, run_id="run")
    other = fw.retrieve("cats sleep day", k=1, run_id="other")
    shown = [r.hits[0].passage_id for r in (one, two, three, other)]
    assert shown == ["cats", "cats", "reset", "cats"]
    fw.feedback(run="run", passage_id="cats", verdict="helpful")
    fw.relevance(run="run", helpful={"reset": False, "cats": True}, user_id="ann")
    fw.signal(run="run", kind="copied", passage_id="reset")
    assert voted(fw) == [
        (two.id, "vote", "cats"),
        (three.id, "vote", "reset"),
        (two.id, "vote", "cats"),
        (three.id, "copied", "reset"),
    ]


def test_a_verdict_on_the_answer_is_on_each_retrieval_of_the_run(fw: Flywheel) -> None:
    one, two = (fw.retrieve(q, k=1, run_id="run") for q in ("cats sleep", "reset password"))
    fw.retrieve("mail", run_id="other")
    assert fw.answer_feedback(run="run", verdict="helpful", cited=["cats"], user_id="ann")
    assert fw.adopted(run="run", used=False, user_id="bob")
    assert fw.signal(run="run", kind="rating", value=1, user_id="cid")
    kinds = "answer", "adopted", "rating"
    assert [(r, k) for r, k, _ in voted(fw)] == [(r.id, k) for k in kinds for r in (two, one)]
    credited = rows(
        fw,
        "SELECT r.id, p.id FROM credits c JOIN answer_votes v USING (seq) JOIN retrievals r USING (rid) "
        "JOIN passages p USING (pid) WHERE v.kind = 'answer' AND credit > 0",
    )
    assert credited == [(one.id, "cats")]


def test_a_correction_and_a_missing_answer_are_on_the_newest_retrieval(fw: Flywheel) -> None:
    fw.retrieve("cats sleep", run_id="run")
    last = fw.retrieve("reset password", run_id="run")
    assert fw.correct(run="run", passage_id="mail", user_id="ann")
    assert fw.correct(run="run", text="Ask the desk.", user_id="ann")
    assert fw.missing(run="run", note="nothing on phones", user_id="ann")
    assert voted(fw) == [(last.id, "correction", "mail")]
    notes = rows(fw, "SELECT r.id, n.text FROM notes n JOIN retrievals r USING (rid)")
    assert sorted(notes) == [(last.id, "Ask the desk."), (last.id, "nothing on phones")]


def test_a_retrieval_is_of_several_runs_and_a_run_has_candidates_of_its_own(fw: Flywheel) -> None:
    asked = fw.rerank("password", [Candidate("own", "a password", 1.0)], run_id="inner")
    fw.link_run(asked.id, "outer")
    fw.link_run(asked.id, "outer")
    for run in ("inner", "outer"):
        assert fw.feedback(run=run, passage_id="own", verdict="helpful", user_id=run)
    assert voted(fw) == [(asked.id, "vote", "own")] * 2


def test_one_call_may_name_several_runs(fw: Flywheel) -> None:
    one = fw.retrieve("cats sleep", k=1, run_id=["inner", "outer", "inner"])
    two = fw.rerank("a password", [Candidate("own", "a password", 1.0)], run_id=("outer", "other"))
    assert len(rows(fw, "SELECT * FROM runs")) == 4
    for run, passage, on in (
        ("inner", "cats", one),
        ("outer", "cats", one),
        ("outer", "own", two),
        ("other", "own", two),
    ):
        assert fw.feedback(run=run, passage_id=passage, verdict="helpful")
        assert voted(fw)[-1] == (on.id, "vote", passage)
    fw.retrieve("mail", run_id=[])
    assert len(rows(fw, "SELECT * FROM runs")) == 4


def test_each_of_many_queries_has_its_runs(fw: Flywheel) -> None:
    queries = ["cats sleep", "reset password", "mail"]
    together = fw.retrieve_many(queries, 1, run_id="all")
    each = fw.retrieve_many(queries, 1, run_id=["a", None, ["b", "c"]])
    found = rows(fw, "SELECT r.id, count(*) FROM runs JOIN retrievals r USING (rid) GROUP BY r.id")
    assert sorted(found) == sorted(
        [(r.id, 1) for r in together] + [(each[0].id, 1), (each[2].id, 2)]
    )
    assert fw.answer_feedback(run="all", verdict="helpful")
    assert sorted(r for r, _, _ in voted(fw)) == sorted(str(r.id) for r in together)
    assert fw.feedback(run="c", passage_id="mail", verdict="helpful")
    assert voted(fw)[-1] == (each[2].id, "vote", "mail")
    assert fw.retrieve_many([], run_id="all") == [] == fw.retrieve_many([], run_id=[])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["a"], "run_id has 1 item; expected one for each of the 2 queries"),
        (["a", " "], "run_id is ' '"),
        ([["a", 7], None], "run_id is 7"),
        ({"a": "b"}, "run_id is"),
        ("", "run_id is ''"),
    ],
)
def test_runs_of_many_queries_that_cannot_be(fw: Flywheel, given: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        fw.retrieve_many(["cats", "mail"], run_id=given)
    assert fw.retrievals() == []


def test_votes_in_one_commit_may_name_runs_and_retrievals(fw: Flywheel) -> None:
    one = fw.retrieve("cats sleep", k=1, run_id="run")
    two = fw.retrieve("reset password", k=1, run_id=["run", "other"])
    votes = [
        Vote(None, "cats", "helpful", run="run"),
        Vote(two.id, "reset", "harmful", "ann"),
        Vote(None, "reset", "helpful", "bob", "good", run="other"),
    ]
    assert fw.feedback_many(iter(votes)) == 3
    assert voted(fw) == [(one.id, "vote", "cats"), *[(two.id, "vote", "reset")] * 2]
    assert [v.reason for v in fw.votes()] == ["good", None, None]
    wrong: list[tuple[Vote, type[Exception], str]] = [
        (Vote(one.id, "cats", "helpful", run="run"), InputError, "found retrieval_id and run"),
        (Vote(None, "mail", "helpful", run="run"), InputError, "showed passage 'mail'"),
        (Vote(None, "cats", "helpful", run="nothing"), UnknownIdError, "no retrieval of run"),
        (Vote(None, "cats", "helpful", run=["run"]), InputError, "run is"),  # type: ignore[arg-type]
        (Vote(None, "cats", "helpful"), InputError, "retrieval_id is None"),
    ]
    for vote, error, words in wrong:
        with pytest.raises(error, match=words):
            fw.feedback_many([*votes, vote])
    assert len(fw.votes()) == 3


def test_retrievals_of_one_run_are_not_rephrased_questions(fw: Flywheel) -> None:
    ask = {"user_id": "ann", "session_id": "s"}
    first = fw.retrieve("new password", run_id="one", **ask)  # type: ignore[arg-type]
    fw.retrieve("new password please", run_id="one", **ask)  # type: ignore[arg-type]
    assert voted(fw) == []
    fw.link_run(first.id, "two")
    last = fw.retrieve("new password now", run_id="one", **ask)  # type: ignore[arg-type]
    assert voted(fw) == []
    fw.retrieve("new password now please", run_id="two", **ask)  # type: ignore[arg-type]
    assert voted(fw) == [(last.id, "rephrased", None)]


def test_what_is_no_run(fw: Flywheel) -> None:
    asked = fw.retrieve("cats sleep", k=1, run_id="run")
    with pytest.raises(UnknownIdError, match="no retrieval of run 'nothing' is recorded"):
        fw.feedback(run="nothing", passage_id="cats", verdict="helpful")
    with pytest.raises(InputError, match="showed passage 'mail'; they showed 'cats'"):
        fw.feedback(run="run", passage_id="mail", verdict="helpful")
    with pytest.raises(InputError, match="no retrieval of run 'run' showed passage 'mail'"):
        fw.answer_feedback(run="run", verdict="helpful", cited=["cats", "mail"])
    with pytest.raises(InputError, match="found retrieval_id and run"):
        fw.feedback(asked.id, "cats", "helpful", run="run")
    with pytest.raises(InputError, match="verdict is None"):
        fw.feedback(run="run", passage_id="cats")
    with pytest.raises(InputError, match="passage_id is None"):
        fw.feedback(run="run")
    with pytest.raises(InputError, match=r"retrieval_id is None.*Or give run"):
        fw.answer_feedback(verdict="helpful")
    for blank in ("", " ", 7):
        with pytest.raises(InputError, match="run is "):
            fw.missing(run=blank)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="run_id is "):
            fw.retrieve("cats", run_id=blank)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="run_id is "):
            fw.retrieve("cats", run_id=["fine", blank])  # type: ignore[list-item]
        with pytest.raises(InputError, match="run_id is "):
            fw.link_run(asked.id, blank)  # type: ignore[arg-type]
    with pytest.raises(UnknownIdError, match="no retrieval 'nothing'"):
        fw.link_run("nothing", "run")
    assert voted(fw) == []


def test_a_retrieval_that_is_not_recorded_has_no_run(fw: Flywheel) -> None:
    fw.retrieve("cats sleep", run_id="run", record=False)
    fw.opt_out("ann")
    fw.retrieve("cats sleep", run_id="run", user_id="ann")
    with pytest.raises(UnknownIdError):
        fw.answer_feedback(run="run", verdict="helpful")
    with pytest.raises(InputError, match="retrieval_id is None"):
        fw.link_run(None, "run")
    asked = fw.retrieve("cats sleep", user_id="bob")
    fw.opt_out("bob")
    fw.link_run(asked.id, "run")
    assert rows(fw, "SELECT * FROM runs") == []


def test_the_numbers_of_runs_and_retrievals_are_bounded(fw: Flywheel) -> None:
    asked = fw.retrieve("cats sleep", k=1)
    for i in range(MOST_RUNS):
        fw.link_run(asked.id, f"run {i}")
    fw.link_run(asked.id, "run 3")
    with pytest.raises(InputError, match="belongs to 32 runs already"):
        fw.link_run(asked.id, "one more")
    with pytest.raises(InputError, match="run_id has 33 ids; expected at most 32"):
        fw.retrieve("cats sleep", run_id=[f"run {i}" for i in range(MOST_RUNS + 1)])
    assert fw.retrieve("cats sleep", run_id=[f"run {i % MOST_RUNS}" for i in range(99)], k=1)
    assert len(rows(fw, "SELECT * FROM runs")) == 2 * MOST_RUNS
    with closing(sqlite3.connect(fw._root / "flywheel.db")) as conn, conn:
        conn.execute("DELETE FROM runs WHERE rid != 1")
    assert len(rows(fw, "SELECT * FROM runs")) == MOST_RUNS
    many = [fw.retrieve("cats sleep", k=1, run_id="many").id for _ in range(MOST_RETRIEVALS + 5)]
    fw.answer_feedback(run="many", verdict="helpful", user_id="ann")
    assert [r for r, _, _ in reversed([(v.retrieval_id, 0, 0) for v in fw.votes(200)])] == many[
        : -MOST_RETRIEVALS - 1 : -1
    ]


def test_forgetting_a_user_and_retention_take_the_runs_away(tmp_path: Path) -> None:
    config = Config(encoder="", retention_days=30)
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add(PASSAGES)
        for user in ("ann", "bob"):
            asked = fw.retrieve("cats sleep", user_id=user, run_id=f"run of {user}")
            fw.link_run(asked.id, "both")
            fw.feedback(asked.id, "cats", "helpful", user_id=user)
        fw.refresh()
        fw.forget("ann")
        with pytest.raises(UnknownIdError):
            fw.answer_feedback(run="run of ann", verdict="helpful")
        assert fw.answer_feedback(run="both", verdict="helpful", user_id="cid")
        assert len(rows(fw, "SELECT * FROM runs")) == 2
        with closing(sqlite3.connect(tmp_path / "kb" / "flywheel.db")) as conn, conn:
            for table in ("retrievals", "votes", "answer_votes"):
                conn.execute(f"UPDATE {table} SET at = at - 31 * 86400")
        fw.refresh()
        assert rows(fw, "SELECT count(*) FROM retrievals") == [(1,)]
        assert rows(fw, "SELECT * FROM runs") == []
        assert fw.verify() == []


def test_a_backup_has_the_runs(fw: Flywheel, tmp_path: Path) -> None:
    asked = fw.retrieve("cats sleep", k=1, run_id="run")
    fw.refresh()
    fw.backup(tmp_path / "backup")
    restore(tmp_path / "backup", tmp_path / "again")
    with Flywheel.open(tmp_path / "again", encoder=WordEncoder()) as again:
        assert again.feedback(run="run", passage_id="cats", verdict="helpful")
        assert voted(again) == [(asked.id, "vote", "cats")]


def test_verify_finds_a_run_of_no_retrieval(fw: Flywheel) -> None:
    with closing(sqlite3.connect(fw._root / "flywheel.db")) as conn, conn:
        conn.execute("INSERT INTO runs (run, rid) VALUES ('x', 99)")
    assert any("runs: 1 row names a row of retrievals" in each for each in fw.verify())


def test_a_vote_on_a_run_waits_for_a_record_that_waits(tmp_path: Path) -> None:
    config = Config(encoder="", record_wait_s=0.01)
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add(PASSAGES)
        fw.retrieve("cats", record=False)
        held, let_go = threading.Event(), threading.Event()

        def hold() -> None:
            with closing(sqlite3.connect(tmp_path / "kb" / "flywheel.db")) as conn:
                conn.execute("BEGIN IMMEDIATE")
                held.set()
                let_go.wait(10)
                conn.rollback()

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(10)
        asked = fw.retrieve("cats sleep", k=1, run_id="run")
        threading.Timer(0.2, let_go.set).start()
        assert fw.feedback(run="run", passage_id="cats", verdict="helpful")
        holder.join()
        assert voted(fw) == [(asked.id, "vote", "cats")]


def test_what_a_run_showed_is_named_in_part_where_it_is_much(fw: Flywheel) -> None:
    fw.add([Passage(f"{n:03}" * 1_000, f"cats sleep {n}") for n in range(60)])
    fw.retrieve("cats sleep", k=30, run_id="wide")
    fw.retrieve("dogs", k=5, run_id="wide")
    with pytest.raises(InputError, match=r"no retrieval of run 'wide' .* more\. A vote") as refused:
        fw.feedback(run="wide", passage_id="none", verdict="helpful")
    assert len(str(refused.value)) < 3_000
    for _ in range(MOST_RETRIEVALS):
        fw.retrieve("cats sleep", k=1, run_id="wide")
    with pytest.raises(InputError, match=f"none of the {MOST_RETRIEVALS} newest retrievals of run"):
        fw.feedback(run="wide", passage_id="none", verdict="helpful")
