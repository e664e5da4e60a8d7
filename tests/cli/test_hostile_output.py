"""What strangers wrote reaches no terminal as it is: every command is run on hostile ids and texts."""

import csv
import io
import json
import logging
import unicodedata
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import typer

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.bench.report import escape
from rag_flywheel.cli.app import app, main
from rag_flywheel.formats.printable import cell_as_written, harmless_cell, printable, printable_line
from rag_flywheel.formats.rows import RowsRead
from rag_flywheel.formats.table import read_table, table_text
from rag_flywheel.records import GoldenItem
from rag_flywheel.report.progress import Bars

BAD = "\x1b[2J\x1b]0;owned\x07\u202egpj.exe\u2066\x9b31m\r\x08\u2028\u200b"
ID = f"id{BAD}"
QUESTION = f"how do I open the settings {BAD}"


def commands() -> list[str]:
    """The names of all commands, those of groups with the group before them."""
    found = []
    for command in app.registered_commands:
        assert command.callback is not None
        found.append(command.name or command.callback.__name__.replace("_", "-"))
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            found.append(f"{group.name} {command.name}")
    return found


def run(*words: str) -> tuple[str, str, int]:
    """(standard output, standard error, exit code) of a command."""
    output, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(errors), pytest.raises(SystemExit) as done:
        main(list(words))
    return output.getvalue(), errors.getvalue(), int(done.value.code or 0)


def unsafe(text: str) -> set[str]:
    """The control and direction characters of a text, but newlines and tabs."""
    return {
        c
        for c in text
        if c not in "\n\t"
        and (unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} or 0x202A <= ord(c) <= 0x2069)
        and c not in "\u2010\u2013\u2014\u2018\u2019\u201c\u201d\u2022\u2026"
        and not 0x2030 <= ord(c) <= 0x205F
    }


@pytest.fixture
def kb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index of hostile passages, questions, votes, notes and known answers."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "kb"
    config = Config(encoder="fakes:word_encoder")
    with Flywheel.open(root, encoder=WordEncoder(), config=config) as fw:
        fw.add(
            [
                Passage(ID, f"open the settings {BAD}", f"Title {BAD}", {f"key{BAD}": BAD}),
                Passage(f"b{BAD}", f"kittens sleep {BAD}", f"Cats {BAD}"),
            ]
        )
        for user in ("ann", "bob", "cid"):
            shown = fw.retrieve(QUESTION, user_id=user)
            fw.answer(str(shown.id), f"Open them {BAD}")
            fw.feedback(shown.id, ID, "helpful" if user == "ann" else "harmful", user_id=user)
        fw.missing(shown.id, f"missing {BAD}", user_id="ann")
        fw.correct(shown.id, text=f"my own words {BAD}", user_id="ann")
        fw.pin(f"pinned {BAD}", ID)
        fw.refresh()
    return root


def words_of(kb: Path) -> dict[str, list[list[str]]]:
    """For each command, arguments with which it prints what strangers wrote, or fails on it."""
    with Flywheel.open(kb) as fw:
        shown = fw.retrieve(QUESTION)
        item = fw.review.items()[0].id
        first = fw.versions()[0].id
    id_ = str(shown.id)
    (kb.parent / f"bad{BAD}.md").write_text(f"# A {BAD}\n\nWords {BAD}.\n")
    (kb.parent / f"broken{BAD}.pdf").write_text("no pdf")
    (kb.parent / "golden.csv").write_text(f'query,passage_id\n"q","no{BAD}"\n')
    (kb.parent / "votes.csv").write_text(
        f'query,passage_id,verdict,kind\n"{QUESTION}","{ID}",helpful,\n"q",no,"{BAD[:9]}",\n"q",,helpful,"{BAD[:9]}"\n',
        encoding="utf-8",
    )
    (kb.parent / "events.json").write_text(json.dumps({"action_name": BAD, "query_id": BAD}))
    score = {"id": BAD, "traceId": BAD, "name": BAD, "value": 1, "source": BAD, "dataType": BAD}
    (kb.parent / "scores.json").write_text(json.dumps([score, {**score, "dataType": "NUMERIC"}]))
    span = {
        "context": {"span_id": BAD},
        "span_kind": "RETRIEVER",
        "attributes": {"input.value": QUESTION},
    }
    note = {"span_id": BAD, "name": BAD, "annotator_kind": "HUMAN", "result": {"label": BAD}}
    (kb.parent / "spans.json").write_text(json.dumps([span, note]))
    return {
        "add": [["add", f"bad{BAD}.md", f"broken{BAD}.pdf"], ["add", f"gone{BAD}.md"], ["add", "."]],
        "retrieve": [
            ["retrieve", QUESTION],
            ["retrieve", QUESTION, "--explain"],
            ["retrieve", QUESTION, "--where", f"no{BAD}=1"],
            ["retrieve", QUESTION, "--where", f"no{BAD}"],
        ],
        "feedback": [["feedback", id_, ID, "helpful"], ["feedback", id_, f"no{BAD}", "helpful"],
                     ["feedback", id_, ID, BAD]],
        "refresh": [["refresh"], ["refresh", "--max-age", BAD]],
        "relevance": [["relevance", id_, "--yes", ID], ["relevance", BAD, "--yes", ID]],
        "answer-feedback": [["answer-feedback", id_, "helpful", "--cited", f"no{BAD}"]],
        "adopted": [["adopted", id_, "--used", "--why", BAD], ["adopted", BAD, "--used"]],
        "signal": [["signal", id_, "edited", BAD], ["signal", id_, BAD]],
        "correct": [["correct", id_, f"no{BAD}"], ["correct", id_, ID]],
        "missing": [["missing", id_, "--note", BAD], ["missing", BAD]],
        "remove": [["remove", f"no{BAD}"]],
        "status": [["status"]],
        "health": [["health"], ["health", "--max-age", BAD]],
        "gaps": [["gaps"]],
        "coverage": [["coverage"], ["coverage", "--tenant", BAD]],
        **{
            f"export {what}": [["export", what, "--to", f"out{BAD}"]] * 2
            for what in ("beir", "trec", "ubi")
        },
        **{
            f"export {what}": [
                *([["export", what, "--to", f"{what}{BAD}.csv"]] * 2),
                ["export", what, "--to", f"{what}.{BAD}"],
                ["export", what, "--to", f"{what}.csv", "--since", BAD],
            ]
            for what in ("votes", "judgments", "retrievals")
        },
        "export training-set": [
            ["export", "training-set", "pairs", "--to", f"set{BAD}"],
            ["export", "training-set", BAD, "--to", "set"],
            ["export", "training-set", "pairs", "--to", "set", "--format", BAD],
        ],
        "versions": [["versions"], ["versions", "--explain", first], ["versions", "--explain", BAD]],
        "change-encoder": [["change-encoder", f"no{BAD}:x"], ["change-encoder", BAD],
                           ["change-encoder", "--drop"]],
        "rollback": [["rollback", BAD]],
        "release": [["release"]],
        "verify": [["verify"]],
        "repair": [["repair"]],
        "backup": [["backup", f"copy{BAD}"], ["backup", f"bad{BAD}.md"]],
        "restore": [["restore", f"copy{BAD}"], ["restore", f"no{BAD}"]],
        "copy": [["copy", "kb", f"other{BAD}"], ["copy", f"no{BAD}", "x"],
                 ["copy", "kb", "postgresql://" + BAD, "--cache", f"new{BAD}"]],
        "join": [["join", "postgresql://" + BAD, "--index", f"new{BAD}"], ["join", BAD]],
        "log": [["log"]],
        "raters": [["raters", "--name", f"ann{BAD}"], ["raters"]],
        "mute": [["mute", BAD], ["mute", "--rater", BAD]],
        "forget": [["forget", BAD]],
        "opt-out": [["opt-out", BAD]],
        "audit": [["audit", "--region", BAD], ["audit", "--passages", "--reveal"]],
        "dp-counts": [["dp-counts", BAD], ["dp-counts", "votes", "--epsilon", "10"]],
        "demo": [["demo", "--cycles", BAD]],
        "bench": [["bench", f"no{BAD}"], ["bench", f"no{BAD}", "--out", f"a{BAD}.txt"]],
        "golden add": [["golden", "add", "golden.csv"], ["golden", "add", f"no{BAD}.csv"]],
        "golden pin": [["golden", "pin", QUESTION, f"no{BAD}"], ["golden", "pin", QUESTION, ID]],
        "golden unpin": [["golden", "unpin", QUESTION, f"no{BAD}"]],
        "golden list": [["golden", "list"]],
        "golden export": [["golden", "export", f"g{BAD}.csv"], ["golden", "export", f"g{BAD}.csv"]],
        "review next": [["review", "next"]],
        "review list": [["review", "list"]],
        "review accept": [["review", "accept", f"no{BAD}"], ["review", "accept", item]],
        "review reject": [["review", "reject", f"no{BAD}"], ["review", "reject", item]],
        "serve": [["serve", "--origin", BAD], ["serve", "--host", "0.0.0.0", "--port", "1"]],
        "mcp": [["mcp", "--http", BAD], ["mcp", "--http", "0.0.0.0:1"], ["mcp", "--tenant", BAD],
                ["mcp", "--service", BAD, "--key", BAD]],
        "keys add": [["keys", "add", BAD, "--scope", "read"], ["keys", "add", "n", "--scope", BAD],
                     ["keys", "add", ID, "--scope", "vote", "--tenant", BAD, "--only", BAD]],
        "keys list": [["keys", "list"]],
        "keys revoke": [["keys", "revoke", BAD]],
        "review undo": [["review", "undo", f"no{BAD}"], ["review", "undo"]],
        "import csv": [["import", "csv", "votes.csv"], ["import", "csv", f"no{BAD}.csv"]],
        "import ubi": [["import", "ubi", "events.json"], ["import", "ubi", f"bad{BAD}.md"]],
        "import langfuse": [["import", "langfuse", "scores.json"], ["import", "langfuse", f"bad{BAD}.md"],
                            ["import", "langfuse", "scores.json", "--score", f"{BAD}=1"],
                            ["import", "langfuse", "--live", "--since", BAD],
                            ["import", "langfuse", "--live", "--url", BAD]],
        "import phoenix": [["import", "phoenix", "spans.json"], ["import", "phoenix", f"bad{BAD}.md"],
                           ["import", "phoenix", "--live", "--until", BAD]],
        "import langsmith": [["import", "langsmith", "events.json"], ["import", "langsmith", f"no{BAD}"]],
        "import trec": [["import", "trec", f"bad{BAD}.md"], ["import", "trec", "votes.csv"]],
    }  # fmt: skip


def test_no_command_prints_what_a_terminal_would_obey(kb: Path) -> None:
    tried = words_of(kb)
    assert set(tried) >= set(commands()), "say what is tried on a new command"
    for name, lines in tried.items():
        for words in lines:
            where = [] if name in {"demo", "bench"} else ["--index", str(kb)]
            output, errors, code = run(*words, *where)
            assert unsafe(output + errors) == set(), words
            assert output or errors, words
            assert code in {0, 1, 2, 3}, (words, errors)
    shown, _, _ = run("retrieve", QUESTION, "--index", str(kb))
    assert r"id\x1b[2J" in shown
    assert r"\u202e" in shown


def test_json_is_exact(kb: Path) -> None:
    output, _, _ = run("retrieve", QUESTION, "--json", "--index", str(kb))
    assert unsafe(output) == set()
    hits = json.loads(output)["hits"]
    assert {hit["passage_id"] for hit in hits} == {ID, f"b{BAD}"}
    _, errors, _ = run("remove", f"no{BAD}", "--json", "--index", str(kb))
    assert unsafe(errors) == set()
    assert set(json.loads(errors)["error"]) == {"type", "message"}


def test_warnings_logs_and_progress_are_escaped(
    kb: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def status(_: Flywheel) -> object:
        logging.getLogger("rag_flywheel").warning("logged %s", BAD)
        warnings.warn(f"warned {BAD}", RuntimeWarning, stacklevel=1)
        return ["done"]

    monkeypatch.setattr(Flywheel, "verify", status)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        _, errors, _ = run("verify", "--index", str(kb))
    assert unsafe(errors) == set()
    assert [line.split()[:2] for line in errors.splitlines()] == [
        ["warning:", "logged"],
        ["warning:", "warned"],
    ]
    bars = Bars()
    bars._next_line = 0.0
    bars(f"step {BAD}", 1, 2)
    assert unsafe(capsys.readouterr().err) == set()


def test_pages_show_escapes() -> None:
    assert unsafe(escape(f"<b>{BAD}")) == set()
    assert escape("<b>\x1b") == r"&lt;b&gt;\x1b"


def test_words_of_all_scripts_stay_as_they_are() -> None:
    for text in ("naïve Straße", "می\u200cخواهم", "👩\u200d👧", "日本語", "שלום", "a\tb\nc"):
        assert printable(text) == text
    assert printable_line("a\tb\nc") == r"a\tb\nc"


@pytest.mark.parametrize(
    "start", ["=", "+", "-", "@", "\t", "\r", "＝", "'", "'=", "''=", "'a", "a="]
)
def test_cells_are_harmless_and_read_back_the_same(start: str, tmp_path: Path) -> None:
    query, passage = f"{start}1+cmd|' /C calc'!A0", f"{start}id"
    item = GoldenItem(query, b"", b"", None, {passage: 1}, {1: 1}, ("pinned",))
    for ending, separator in ((".csv", ","), (".tsv", "\t")):
        path = tmp_path / f"golden{ending}"
        path.write_text(table_text([item], separator), newline="")
        with path.open(newline="") as file:
            cells = list(csv.reader(file, delimiter=separator))[1]
        assert all(cell[0] not in "=+-@\t\r\n＝＋－＠" for cell in cells)
        (row,) = read_table(path, 10_000, RowsRead())
        assert (row.query, row.passage_id) == (query, passage)
    assert cell_as_written(harmless_cell(query)) == query


def test_every_command_is_named_by_the_app() -> None:
    assert isinstance(app, typer.Typer)
    assert {"add", "bench", "review list"} <= set(commands())
