"""What one call costs does not grow with what is stored: its statements read no table from end to end."""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from folders import PASSAGES, QUERY
from rag_flywheel import Candidate, Flywheel, Passage

GROWING = {
    "answer_votes", "corrections", "credits", "golden", "imports", "notes", "passages", "retrievals",
    "reviews", "runs", "sketches", "vectors", "votes",
}  # fmt: skip
"""Tables with a row for each passage, question or vote; users are muted one by one, by hand."""
Call = Callable[[Flywheel, str], object]
CALLS: dict[str, Call] = {
    "retrieve": lambda fw, _: fw.retrieve("another question", k=3, user_id="u", session_id="s"),
    "rerank": lambda fw, _: fw.rerank("another question", [Candidate("c", "its text", 1.0)], k=1),
    "feedback": lambda fw, id_: fw.feedback(id_, "p3", "helpful", user_id="u"),
    "feedback, nobody's": lambda fw, id_: fw.feedback(id_, "p3", "harmful"),
    "answer_feedback": lambda fw, id_: fw.answer_feedback(id_, "helpful", answer="so", user_id="u"),
    "signal": lambda fw, id_: fw.signal(id_, "copied", user_id="u"),
    "correct": lambda fw, id_: fw.correct(id_, "p3", user_id="u"),
    "missing": lambda fw, id_: fw.missing(id_, "nothing on it", user_id="u"),
    "pin": lambda fw, _: fw.pin(QUERY, "p3"),
    "add": lambda fw, _: fw.add([Passage("new", "a text that was not there")]),
    "edit": lambda fw, _: fw.add([Passage("p4", PASSAGES[4].text + " and more")]),
    "remove": lambda fw, _: (fw.add([Passage("gone", "soon gone")]), fw.remove(["gone"])),
}


@pytest.mark.parametrize("name", CALLS)
def test_no_statement_of_a_call_reads_a_whole_table(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    connect = sqlite3.connect

    def watched(*arguments: Any, **more: Any) -> sqlite3.Connection:
        conn: sqlite3.Connection = connect(*arguments, **more)
        conn.set_trace_callback(said.append)
        return conn

    monkeypatch.setattr(sqlite3, "connect", watched)
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as fw:
        fw.add(PASSAGES)
        fw.refresh()
        found = fw.retrieve(QUERY, k=8, user_id="u", session_id="s")
        assert "p3" in [hit.passage_id for hit in found.hits]
        CALLS[name](fw, str(found.id))  # what is done once
        fw.retrieve(QUERY, k=1)
        said.clear()
        CALLS[name](fw, str(found.id))
        fw.retrieve("and one more", k=1)  # which catches up with it
        statements = list(dict.fromkeys(said))
    assert len(statements) > 5
    with closing(connect(tmp_path / "kb" / "flywheel.db")) as conn:
        scanned = {s: tables for s in statements if (tables := scans(conn, s) & GROWING)}
    assert scanned == {}


def scans(conn: sqlite3.Connection, statement: str) -> set[str]:
    """The tables that SQLite would read from end to end; by an index of present passages alone too."""
    if not re.match(r"\s*(SELECT|UPDATE|DELETE|INSERT)\b", statement):
        return set()
    steps = conn.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
    read = {m[1] for *_, step in steps if (m := re.match(r"SCAN (\w+)", step))}
    names = dict(re.findall(r"\b(?:FROM|JOIN) (\w+) (?:AS )?(\w+)\b", statement))
    return read | {table for table, alias in names.items() if alias in read}


def test_a_whole_table_that_is_read_is_found(tmp_path: Path) -> None:
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as fw:
        fw.add(PASSAGES)
    with closing(sqlite3.connect(tmp_path / "kb" / "flywheel.db")) as conn:
        assert "passages" in scans(conn, "SELECT title FROM passages p WHERE p.title = 'x'")
        assert "passages" not in scans(conn, "SELECT title FROM passages p WHERE p.pid = 1")
