"""The command `add`: what it says, and its options."""

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from rag_flywheel.cli.app import main
from rag_flywheel.report import progress as module


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    index = tmp_path / "indexes" / "kb"
    index.mkdir(parents=True)
    (index / "flywheel.toml").write_text('format_version = 1\nencoder = "fakes:word_encoder"\n')
    docs = tmp_path / "docs"
    (docs / "drafts").mkdir(parents=True)
    (docs / "a.md").write_text("# A\n\nalpha")
    (docs / "b.rst").write_text("B\n=\n\nbravo\n")
    (docs / "drafts" / "c.md").write_text("# C\n\ncharlie")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def run(*words: str, code: int = 0) -> str:
    printed, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(printed), redirect_stderr(errors), pytest.raises(SystemExit) as done:
        main(["add", *words])
    assert (done.value.code or 0) == code, printed.getvalue() + errors.getvalue()
    return printed.getvalue() if not code else errors.getvalue()


def as_json(*words: str) -> Any:
    import json

    return json.loads(run(*words, "--json"))


def test_the_last_line_says_what_was_done_and_why_files_were_skipped(folder: Path) -> None:
    (folder / "docs" / "bad.txt").write_bytes(b"caf\xe9s")
    (folder / "docs" / "x.png").touch()
    said = run("docs", "--exclude", "drafts/").splitlines()
    assert said == [
        f"skipped {folder}/docs/bad.txt: it is not UTF-8 (it declares no other encoding; "
        "invalid continuation byte at byte 3)",
        "added 2, updated 0, unchanged 0, removed 0, skipped 3: 1 excluded by a pattern (drafts), "
        "1 .png, which is not read (x.png), 1 cannot be read (bad.txt)",
    ]


def test_programs_get_all_of_it(folder: Path) -> None:
    found = as_json("docs", "--include", "*.md")
    assert (found["added"], found["removed"], found["n_files"]) == (2, 0, 2)
    assert found["skipped"] == [
        {
            "path": f"{folder}/docs/b.rst",
            "reason": "no include pattern names it",
            "failed": False,
        }
    ]


def test_strict_refuses_and_a_dry_run_writes_nothing(folder: Path) -> None:
    (folder / "docs" / "bad.md").write_bytes(b"\0")
    assert "bad.md: it holds NUL bytes" in run("docs", "--strict", code=1)
    assert as_json("docs", "--dry-run")["added"] == 3
    assert as_json("docs")["added"] == 3


def test_a_dry_run_makes_no_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(
        "torch", reason="torch is not installed: a new index loads the default model"
    )
    assert as_json("docs", "--dry-run", "-i", "indexes/new")["added"] == 3
    assert [p.name for p in Path("indexes").iterdir()] == ["kb"]


def test_a_name_and_a_root(folder: Path) -> None:
    run("docs", "--name", "manual")
    assert as_json("docs/a.md")["unchanged"] == 1
    assert "stands for files below" in run(
        "docs/drafts", "--name", "manual", "--root", "docs/drafts", code=1
    )


def test_prune_and_lines_of_progress(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("docs")
    (folder / "docs" / "a.md").unlink()
    monkeypatch.setattr(module, "_FIRST_LINE_S", 0.0)
    monkeypatch.setattr(module, "_NEXT_LINE_S", 0.0)
    errors = io.StringIO()
    with redirect_stderr(errors), pytest.raises(SystemExit):
        main(["add", "docs", "--prune", "--json"])
    assert errors.getvalue() == "add files: 1 of 2\n"
    assert '"removed": 1' in capsys.readouterr().out
