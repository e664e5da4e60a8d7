"""An audit finds what was planted in each field, says where, and shows it only when asked."""

import json
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from rag_flywheel import Candidate, Flywheel, InputError, Passage
from rag_flywheel.cli.app import main

MAIL = "eve.secret@example.org"


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder())


def used(root: Path) -> None:
    with opened(root) as fw:
        fw.add([Passage("reset", f"press reset or write to {MAIL}", "Desk", {"by": MAIL})])
        fw.add([Passage(f"of {MAIL}", "cats sleep")])
        asked = fw.retrieve(f"reset {MAIL}", user_id="ann", where={"by": {"ne": MAIL + "x"}})
        fw.answer(str(asked.id), f"write to {MAIL}")
        shown = asked.hits[0].passage_id
        fw.feedback(asked.id, shown, "helpful", reason=f"{MAIL} said so", user_id="ann")
        fw.adopted(asked.id, used=True, why=f"by {MAIL} of 8.8.8.8", user_id="ann")
        fw.missing(asked.id, f"where is {MAIL}?", user_id="ann")
        fw.pin(f"who is {MAIL}", shown)
        fw.rerank("reset", [Candidate(MAIL, f"a text of {MAIL}", 1.0, MAIL, {"by": [MAIL]})])


FIELDS = [
    "query", "answer", "reason", "why", "note", "known query", "filter", "id given to rerank",
    "title given to rerank", "text given to rerank", "metadata given to rerank", "id of a passage",
    "metadata of a passage",
]  # fmt: skip


def test_every_field_is_looked_through(tmp_path: Path) -> None:
    used(tmp_path / "kb")
    with opened(tmp_path / "kb") as fw:
        found = fw.audit()
        assert [f.field for f in found.findings if f.kind == "EMAIL"] == FIELDS
        assert [(f.field, f.n) for f in found.findings if f.kind == "IP"] == [("why", 1)]
        assert MAIL not in repr(found)
        more = fw.audit(passages=True, show=True)
        assert more.findings[-1].field == "text of a passage"
        assert {t for f in more.findings if f.kind == "EMAIL" for t in f.texts} == {
            MAIL,
            MAIL + "x",
        }
        query = next(f for f in found.findings if f.field == "query")
        asked = fw.retrieve("cats", user_id="ann")
        fw.retrieve(f"{MAIL} and bob@example.org")
        again = next(f for f in fw.audit().findings if f.field == "query")
        assert (again.n, len(again.records)) == (3, 2)
        assert again.records[0] == query.records[0] != asked.id
        with pytest.raises(InputError, match="a region"):
            fw.audit(regions=["Germany"])


def run(*words: str, capsys: Any) -> tuple[int, str]:
    with pytest.raises(SystemExit) as done:
        main(list(words))
    return int(done.value.code or 0), capsys.readouterr().out


def test_from_a_shell(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "kb"
    used(root)
    code, text = run("audit", "--index", str(root), capsys=capsys)
    assert (code, MAIL in text) == (1, False)
    assert "metadata given to rerank" in text and "found" in text
    code, text = run("audit", "--index", str(root), "--json", capsys=capsys)
    report = json.loads(text)
    assert (code, MAIL in text, len(report["findings"])) == (1, False, len(FIELDS) + 1)
    code, text = run(
        "audit", "--reveal", "--passages", "--index", str(root), "--json", capsys=capsys
    )
    assert code == 1 and MAIL in text
    with opened(tmp_path / "clean") as fw:
        fw.add([Passage("reset", f"press reset or write to {MAIL}")])
        fw.retrieve("reset", user_id="ann")
    assert run("audit", "--index", str(tmp_path / "clean"), capsys=capsys) == (
        0,
        "looked through 3 texts: nothing found\n",
    )


def test_status_counts_what_a_mask_put_there(tmp_path: Path, capsys: Any) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw:
        fw.add([Passage("reset", "press reset")])
        fw.retrieve("reset [EMAIL] and [PERSON] of [US_PASSPORT] and [todo] and [TODO]")
    _, text = run("status", "--index", str(root), capsys=capsys)
    assert "EMAIL 1, PERSON 1, US_PASSPORT 1" in text
