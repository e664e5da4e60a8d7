"""`health` and `status` on the command line: what they print, their exit codes, and `--read-only`."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from fakes import WordEncoder
from folders import PASSAGES, QUERY
from rag_flywheel import Config, Flywheel
from rag_flywheel.cli.app import main


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    config = Config(encoder="fakes:word_encoder")
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add(PASSAGES)
        fw.refresh()
    return tmp_path / "kb"


class Shell:
    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.capsys = root, capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """(exit code, standard output, standard error)."""
        with pytest.raises(SystemExit) as done:
            main([*words, "--index", str(self.root)])
        out, err = self.capsys.readouterr()
        return int(done.value.code or 0), out, err


@pytest.fixture
def shell(kb: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(kb, capsys)


def degrade(root: Path) -> None:
    (root / "versions" / "stray").touch()


def test_exit_codes_and_json(shell: Shell) -> None:
    code, out, _ = shell("health")
    assert (code, out.splitlines()[0]) == (0, f"ok: {shell.root}")
    degrade(shell.root)
    code, out, _ = shell("health")
    assert code == 1
    assert out.splitlines()[0] == f"degraded: {shell.root}"
    assert "degraded: older versions: versions/stray is no version folder" in out
    assert "to do: `rag-flywheel repair`" in out
    assert shell("health", "--allow-degraded")[0] == 0
    (shell.root / "CURRENT").unlink()
    code, out, _ = shell("health", "--json", "--allow-degraded")
    found = json.loads(out)
    assert (code, found["state"], found["version"]) == (2, "broken", None)
    for check in found["checks"]:
        assert check.keys() == {"name", "state", "found", "expected", "to_do"}
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert states["live version"] == "broken" and states["older versions"] == "degraded"


def test_the_age_of_the_last_refresh(shell: Shell) -> None:
    assert shell("health", "--max-age", "1d")[0] == 0
    assert shell("health", "--max-age", "0.001s")[0] == 1
    for bad in ("1 week", "5", "-1d", "1e9d", "٣d"):
        code, _, err = shell("health", "--max-age", bad)
        assert code == 2 and "is no duration" in err


def test_a_folder_that_is_none_is_broken_and_stays_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = Shell(tmp_path / "typo", capsys)("health")
    assert code == 2 and "is not there" in out
    assert not (tmp_path / "typo").exists()


def test_a_database_that_cannot_be_opened(shell: Shell) -> None:
    (shell.root / "flywheel.db").write_bytes(b"nothing" * 1000)
    code, out, _ = shell("health")
    assert code == 2 and "broken: database: " in out
    code, _, err = shell("status")
    assert code == 1 and "is not a sound SQLite file" in err


def test_status_shows_problems_first_and_fails_when_broken(shell: Shell) -> None:
    code, out, _ = shell("status")
    assert code == 0 and not out.startswith(("degraded", "broken"))
    degrade(shell.root)
    code, out, _ = shell("status")
    assert code == 0 and out.startswith("degraded: older versions: versions/stray is no version")
    (shell.root / "CURRENT").write_text("garbage")
    code, out, _ = shell("status")
    assert code == 1 and out.startswith("broken: live version: ")
    code, out, _ = shell("status", "--json")
    found = json.loads(out)
    assert (code, found["health"], found["version"]) == (1, "broken", None)
    assert any("CURRENT" in problem for problem in found["problems"])


def test_read_only(shell: Shell) -> None:
    def files() -> dict[str, tuple[int, bytes]]:
        found = [p for p in sorted(shell.root.rglob("*")) if p.is_file()]
        return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in found}

    before = files()
    code, out, _ = shell("retrieve", QUERY, "--read-only")
    assert code == 0 and "1. p2" in out
    assert "to vote" not in out and "not recorded" not in out
    for words in (["status"], ["versions"], ["log"], ["health"]):
        assert shell(*words, "--read-only")[0] == 0
    assert shell("health")[0] == 0
    assert files() == before


def test_failed_refreshes_are_in_the_log(shell: Shell) -> None:
    with closing(sqlite3.connect(shell.root / "flywheel.db")) as conn, conn:
        conn.execute("INSERT INTO attempts (at, state, pid) VALUES (2e9, 'begun', 1)")
        conn.execute(
            "INSERT INTO attempts (at, state, attempt, pid, error, reason, to_do) VALUES "
            "(2e9, 'failed', last_insert_rowid(), 1, 'X', 'the disk was full', 'free some')"
        )
    code, out, _ = shell("log")
    assert code == 0
    assert "a refresh failed: the disk was full; to do: free some" in " ".join(out.split())


def test_no_model_is_loaded(kb: Path) -> None:
    code = (
        "import sys\nfrom rag_flywheel.cli.app import main\n"
        f"try: main(['health', '--index', {str(kb)!r}])\nexcept SystemExit as done: print(done.code)\n"
        "print(sorted({n.split('.')[0] for n in sys.modules} & {'torch', 'transformers', 'faiss', "
        "'sentence_transformers', 'sklearn'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["0", "[]"]
