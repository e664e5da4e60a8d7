"""The command line, run as people and cron run it."""

import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from rag_flywheel.cli.app import main
from rag_flywheel.deploy.lock import refresh_lock
from rag_flywheel.records import AddReport

SUPPORT = Path(__file__).parents[1] / "support"


class Shell:
    """Runs commands on one index folder with the word encoder."""

    def __init__(self, folder: Path) -> None:
        self.index = folder / "kb"
        self.folder = folder
        self.index.mkdir()
        (self.index / "flywheel.toml").write_text(
            'format_version = 1\nencoder = "fakes:word_encoder"\n'
        )

    def run(self, *words: str, code: int = 0) -> str:
        """In this process: what it prints; `errors` is what went to standard error."""
        output, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(output), redirect_stderr(errors), pytest.raises(SystemExit) as done:
            main([*words, "--index", str(self.index)])
        self.errors = errors.getvalue()
        assert (done.value.code or 0) == code, output.getvalue() + self.errors
        return output.getvalue()

    def run_as_cron(self, *words: str) -> subprocess.CompletedProcess[str]:
        """In a process of its own, without a terminal."""
        path = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
        return subprocess.run(
            [sys.executable, "-m", "rag_flywheel", *words, "--index", str(self.index)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", code=code))


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return Shell(tmp_path)


def test_an_explored_hit_is_marked(shell: Shell) -> None:
    with (shell.index / "flywheel.toml").open("a", encoding="utf-8") as settings:
        settings.write("explore = 0.5\n")
    lines = [{"id": f"p{i}", "text": f"reset password number{i}"} for i in range(6)]
    (shell.folder / "kb.jsonl").write_text("\n".join(map(json.dumps, lines)))
    shell.run("add", "kb.jsonl")
    found = [shell.json("retrieve", "reset password", "-k", "2")["hits"] for _ in range(30)]
    assert {hits[0]["explored"] for hits in found} == {False}
    assert {hits[1]["explored"] for hits in found} == {False, True}
    printed = [shell.run("retrieve", "reset password", "-k", "2") for _ in range(30)]
    lasts = [text.splitlines()[2] for text in printed]
    assert 0 < sum(last.endswith("   explored") for last in lasts) < 30


def test_the_whole_loop(shell: Shell) -> None:
    lines = [
        {"id": "a", "text": "reset your password in settings", "metadata": {"lang": "en"}},
        {"id": "b", "text": "change the login password on the page", "metadata": {"year": 2021}},
    ]
    (shell.folder / "kb.jsonl").write_text("\n".join(map(json.dumps, lines)))
    added = shell.json("add", "kb.jsonl")
    assert added == {**asdict(AddReport(2, 0, 0)), "n_files": 1, "skipped": []}
    assert shell.json("add", "kb.jsonl")["unchanged"] == 2
    found = shell.json("retrieve", "password page", "--user", "ann")
    assert [h["passage_id"] for h in found["hits"]] == ["b", "a"]
    assert shell.json("feedback", found["id"], "a", "helpful", "--user", "ann") == {"kept": 1}
    after = shell.json("retrieve", "password page", "--no-record")
    scores = {h["passage_id"]: h["score"] for h in after["hits"]}
    assert scores["a"] > next(h["score"] for h in found["hits"] if h["passage_id"] == "a")
    assert after["id"] is None
    only = shell.json("retrieve", "password", "--where", "year>=2020", "--where", "year<2022")
    assert [h["passage_id"] for h in only["hits"]] == ["b"]
    report = shell.json("refresh")
    assert (report["outcome"], report["parameters"]) == ("promoted", "kept")
    n = int(report["scores"]["n_fitted"])  # one past query, unless it is held out
    assert n <= 1
    assert f"not fitted: {n} of the 64 past queries it takes" in report["reason"]
    assert shell.json("refresh")["outcome"] == "unchanged"
    assert shell.json("remove", "a") == {"removed": 1}
    assert shell.json("refresh", "--if-votes", "1")["outcome"] == "unchanged"
    assert shell.json("refresh")["outcome"] == "promoted"
    assert [v["live"] for v in shell.json("versions")] == [True, False]
    assert shell.json("rollback") == {"live": report["version"]}
    frozen_at = shell.json("status")["frozen_at"]
    assert f"up to event {frozen_at}, until `rag-flywheel release`" in shell.run("status")
    assert shell.json("status")["dense_search"] == "every passage"
    assert shell.json("release") == {"released": True}
    assert re.search(r"votes that count +all\b", shell.run("status"))
    assert shell.json("verify") == []
    assert "sound" in shell.run("verify")


@pytest.mark.slow
def test_refresh_logs_each_step_for_cron(shell: Shell) -> None:
    (shell.folder / "kb.jsonl").write_text('{"id": "a", "text": "one two"}\n')
    shell.run("add", "kb.jsonl")
    done = shell.run_as_cron("refresh")
    assert done.returncode == 0
    assert done.stdout.startswith("promoted: 1 passage;")
    assert len([line for line in done.stderr.splitlines() if " refresh: " in line]) >= 4
    assert "\x1b" not in done.stderr  # no progress bar where there is no terminal


def test_errors_are_one_line_and_no_traceback(shell: Shell) -> None:
    done = shell.run_as_cron("remove", "nobody")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no passage 'nobody' is in this index")
    assert len(done.stderr.splitlines()) == 1


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code in {0, None}
    assert capsys.readouterr().out == f"rag-flywheel {version('rag-flywheel')}\n"


def test_exit_codes(shell: Shell) -> None:
    shell.run("add", "missing.jsonl", code=1)
    assert shell.errors.startswith("error: no file or folder missing.jsonl; expected")
    shell.run("retrieve", "x", "-k", "0", code=2)
    shell.run("feedback", "r", "p", "perhaps", code=2)
    shell.run("feedback", "r", "p", "helpful", code=1)
    assert "no retrieval 'r' is recorded" in shell.errors
    shell.run("refresh", "--max-age", "soon", code=2)
    with refresh_lock(shell.index):
        shell.run("refresh", code=75)
    shell.run("refresh")
    (next((shell.index / "versions").iterdir()) / "parameters.json").write_text("{}")
    assert "parameters.json" in shell.run("verify", code=1)


def test_forget_opt_out_and_log(shell: Shell) -> None:
    (shell.folder / "kb.jsonl").write_text('{"id": "a", "text": "one two"}\n')
    shell.run("add", "kb.jsonl")
    shell.run("refresh")
    found = shell.json("retrieve", "two words", "--user", "ann")
    shell.run("feedback", found["id"], "a", "helpful", "--user", "ann")
    assert shell.json("opt-out", "ann") == {"opted out": True}
    assert shell.json("retrieve", "two words", "--user", "ann")["id"] is None
    assert shell.json("opt-out", "ann", "--undo") == {"opted out": False}
    report = shell.json("forget", "ann")
    assert (report["n_retrievals"], report["n_votes"]) == (1, 1)
    assert shell.json("versions")[0]["id"] == report["version"]
    assert "deleted: 0 retrievals, 0 votes of the user" in shell.run("forget", "ann")
    log = shell.json("log")
    assert {"at", "kind", "text"} == set(log[0])
    assert shell.json("log", "-n", "2") == log[:2]
    assert "a user with 1 retrieval " in shell.run("log")


def test_commands_other_than_add_make_no_folder(tmp_path: Path) -> None:
    errors = io.StringIO()
    with redirect_stderr(errors), pytest.raises(SystemExit) as done:
        main(["status", "--index", str(tmp_path / "no")])
    assert done.value.code == 1
    assert "holds no index; make one by adding passages" in errors.getvalue()
    assert not (tmp_path / "no").exists()


def test_explain_adds_up(shell: Shell) -> None:
    (shell.folder / "kb.jsonl").write_text('{"id": "a", "text": "one two"}\n')
    shell.run("add", "kb.jsonl")
    first, line, *_ = shell.run("retrieve", "--explain", "two").splitlines()
    words = line.replace("=", "").split()
    numbers = [float(w) for w in words if w.lstrip("+-")[:1].isdigit()]
    assert first.split()[:2] == ["1.", "a"]
    assert sum(numbers[1:]) == pytest.approx(numbers[0], abs=0.003)
    assert 0.0 < float(first.split()[2]) < 1.0
    assert words[3::2][:2] == ["dense", "bm25"]
    (found,) = shell.json("retrieve", "two", "--no-record")["hits"]
    terms = found["explanation"]["terms"]
    assert {"dense", "bm25"} <= set(terms)
    assert set(words[3::2]) <= {*terms, "intercept", "evidence"}


def test_a_refresh_with_nothing_to_embed_loads_no_model(shell: Shell) -> None:
    lines = '{"id": "a", "text": "one two"}\n{"id": "b", "text": "three"}\n'
    (shell.folder / "kb.jsonl").write_text(lines)
    shell.run("add", "kb.jsonl")
    shell.run("refresh")
    shell.run("remove", "b")
    toml = shell.index / "flywheel.toml"
    toml.write_text(toml.read_text().replace("fakes:word_encoder", "fakes:gone"))
    assert shell.json("refresh")["outcome"] == "promoted"
    shell.run("retrieve", "two", code=1)
    assert "encoder 'fakes:gone' cannot be made" in shell.errors
