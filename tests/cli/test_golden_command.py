"""The commands `correct`, `golden` and `review`."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from fakes import word_encoder
from known import QUERY, said
from rag_flywheel import Flywheel, Passage
from rag_flywheel.cli.app import main


class Shell:
    """Runs commands on one index folder with four passages."""

    def __init__(self, index: Path, passages: list[Passage]) -> None:
        index.mkdir()
        (index / "flywheel.toml").write_text('format_version = 1\nencoder = "fakes:word_encoder"\n')
        self.index = index
        with self.opened() as fw:
            fw.add(passages)

    def opened(self) -> Flywheel:
        return Flywheel.open(self.index, encoder=word_encoder())

    def run(self, *words: str, code: int = 0) -> str:
        output, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(output), redirect_stderr(errors), pytest.raises(SystemExit) as done:
            main([*words, "--index", str(self.index)])
        self.errors = errors.getvalue()
        assert (done.value.code or 0) == code, output.getvalue() + self.errors
        return output.getvalue()

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, help_desk: list[Passage]) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return Shell(tmp_path / "kb", help_desk)


def test_known_answers_in_and_out(shell: Shell, tmp_path: Path) -> None:
    assert shell.json("golden", "list") == []
    (tmp_path / "known.csv").write_text("query,passage_id,grade\nmoney back,refund,2\n")
    added = {"added": 1, "updated": 0, "unchanged": 0, "left_out": {}}
    assert shell.json("golden", "add", "known.csv") == added
    assert shell.run("golden", "add", "known.csv") == "added 0, updated 0, unchanged 1\n"
    found = shell.json("retrieve", QUERY, "-k", "1", "--user", "ann")
    assert shell.json("correct", found["id"], "cats", "--user", "ann") == {"kept": 1}
    items = {i["query"]: (i["answers"], i["sources"]) for i in shell.json("golden", "list")}
    assert items == {
        "money back": ({"refund": 2}, ["imported"]),
        QUERY: ({"cats": 1}, ["correction"]),
    }
    shown = shell.run("golden", "list")
    assert "refund (2)" in shown
    assert shown.endswith("2 queries with known answers\n")
    assert shell.json("golden", "export", "out") == {"exported": 2}
    assert shell.json("golden", "add", "out") == {
        "added": 1,
        "updated": 0,
        "unchanged": 1,
        "left_out": {},
    }
    assert (tmp_path / "out" / "qrels" / "test.tsv").exists()


def test_errors(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "known.csv").write_text("query,passage_id\nmoney,nope\n")
    shell.run("golden", "add", "known.csv", code=1)
    assert shell.errors.startswith("error: known.csv, line 2 names the passage 'nope'")
    shell.run("golden", "add", "known.csv", "--split", "a/b", code=1)
    shell.run("golden", "perhaps", code=2)
    shell.run("correct", "r", "reset", code=1)
    assert "no retrieval 'r' is recorded" in shell.errors
    shell.run("review", "accept", "x", code=1)
    assert "no item 'x' is in the review queue" in shell.errors
    shell.run("review", "undo", code=1)
    assert "no decision is left" in shell.errors


def test_review(shell: Shell) -> None:
    assert shell.json("review", "next") is None
    assert shell.run("review", "next") == "nothing to review\n"
    with shell.opened() as fw:
        said(fw, QUERY, "secret", "helpful", "ann", "bob")
        said(fw, QUERY, "secret", "harmful", "cid", "dan")
    item = shell.json("review", "next")
    assert (item["query"], item["passage_id"]) == (QUERY, "secret")
    assert (item["helpful"], item["harmful"]) == (2, 2)
    lines = shell.run("review", "next").splitlines()
    assert lines[0] == f"{item['id']}   2 users said helpful and 2 harmful"
    assert lines[-1] == f"does it answer? rag-flywheel review accept|reject {item['id']}"
    assert shell.json("review", "accept", item["id"], "--user", "rita") == {
        "accepted": item["id"],
        "passage": "secret",
    }
    assert shell.json("review", "next") is None
    (known,) = shell.json("golden", "list")
    assert (known["answers"], known["sources"]) == ({"secret": 1}, ["review"])
    assert shell.json("review", "undo") == {"undone": item["id"]}
    assert shell.run("review", "reject", item["id"]) == f"rejected: {item['id']}\n"
    assert shell.json("golden", "list") == []
    assert shell.json("review", "undo", item["id"]) == {"undone": item["id"]}
    assert shell.json("review", "next") == item


def test_pins(shell: Shell) -> None:
    assert shell.json("golden", "pin", QUERY, "cats") == {"pinned": 1}
    assert shell.run("golden", "pin", QUERY, "cats") == "pinned 0\n"
    assert shell.json("golden", "pin", QUERY, "cats", "--grade", "2") == {"pinned": 1}
    shown = shell.run("retrieve", QUERY, "-k", "1", "--explain")
    assert shown.startswith("  1. cats")
    assert "known answer of this question (pinned, grade 2)" in shown
    shown = shell.run("retrieve", f"{QUERY} please", "--explain")
    assert "known answer of a similar question (pinned, grade 2)" in shown
    best = shell.json("retrieve", QUERY)["hits"][0]
    assert best["passage_id"] == "cats"
    known = {"same": True, "sources": ["pinned"], "grade": 2}
    assert best["explanation"]["known"] == [known]
    assert [i["sources"] for i in shell.json("golden", "list")] == [["pinned"]]
    assert "pin: passage 'cats'" in shell.run("log")
    assert shell.run("golden", "unpin", QUERY, "cats") == "unpinned 1\n"
    assert shell.json("golden", "unpin", QUERY, "cats") == {"unpinned": 0}
    assert shell.json("retrieve", QUERY)["hits"][0]["passage_id"] == "reset"
    shell.run("golden", "pin", QUERY, "nope", code=1)
    assert shell.errors.startswith("error: no passage 'nope' is in the index")
    shell.run("golden", "pin", " ", "cats", code=1)
    shell.run("golden", "pin", QUERY, "cats", "--grade", "0", code=2)
    shell.run("golden", "pin", QUERY, "cats", "--tenant", "acme", code=1)
    assert "the index has no tenants" in shell.errors


def test_pins_of_tenants(shell: Shell) -> None:
    toml = shell.index / "flywheel.toml"
    toml.write_text(toml.read_text() + 'tenant_key = "team"\n')
    with shell.opened() as fw:
        fw.add([Passage("a", "kittens", metadata={"team": "acme"})])
        fw.add([Passage("b", "reset the password", metadata={"team": "acme"})])
        fw.add(
            [Passage("c", "kittens", metadata={"team": 7}), Passage("d", QUERY, "", {"team": 7})]
        )
    for tenant, passage in (("acme", "a"), ("7", "c")):
        assert shell.json("golden", "pin", QUERY, passage, "--tenant", tenant) == {"pinned": 1}
        found = shell.json("retrieve", QUERY, "--where", f"team={tenant}")
        assert found["hits"][0]["passage_id"] == passage
        assert shell.json("golden", "unpin", QUERY, passage, "--tenant", tenant) == {"unpinned": 1}
