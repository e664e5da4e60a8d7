"""`refresh --tune`, as people and cron run it."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rag_flywheel.cli.app import main
from tuned import ASKED

pytestmark = pytest.mark.slow  # torch alone takes seconds to load

SUPPORT = Path(__file__).parents[1] / "support"
COMMAND = """
import sys
import teachable
from rag_flywheel.cli import main
from rag_flywheel.improve import teach
teach.RATE = teachable.RATE
main()
"""


def with_encoder(root: Path, spec: str, more: str = "") -> Path:
    (root / "flywheel.toml").write_text(f'format_version = 1\nencoder = "{spec}"\n{more}')
    return root


def run(root: Path, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    """The JSON that a command prints, or what it says on standard error."""
    with pytest.raises(SystemExit) as done:
        main([*words, "--index", str(root), *([] if code else ["--json"])])
    said = capsys.readouterr()
    assert (done.value.code or 0) == code, said
    return said.err if code else json.loads(said.out)


@pytest.mark.slow
def test_it_tunes_when_asked_and_says_so(voted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_encoder(voted, "teachable:TeachableEncoder")
    report = run(voted, capsys, "refresh")
    assert (report["outcome"], report["encoder"]) == ("promoted", "kept")
    report = run(voted, capsys, "refresh", "--tune")
    assert (report["outcome"], report["encoder"]) == ("promoted", "new")
    assert "encoder tuned, taught by" in report["reason"]
    assert report["scores"]["tuning_steps"] > 0
    again = run(voted, capsys, "refresh", "--tune")
    assert (again["outcome"], again["encoder"]) == ("unchanged", "kept")
    story = run(voted, capsys, "versions", "--explain", report["version"])
    assert any(s.startswith("encoder of queries tuned: ") for s in story["sentences"])
    assert any(e["text"].startswith("tuned encoder of ") for e in run(voted, capsys, "log"))
    assert run(voted, capsys, "verify") == []
    found = run(voted, capsys, "retrieve", "thing90 ripe", "--no-record")
    assert found["hits"][0]["passage_id"] == "fruit90"


@pytest.mark.slow
def test_one_that_cannot_be_tuned_is_an_error_in_one_line(
    voted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_encoder(voted, "fakes:word_encoder")
    said = run(voted, capsys, "refresh", "--tune", code=1)
    (line,) = (each for each in said.splitlines() if "error" in each)
    assert line.startswith("error: encoder 'words' cannot be tuned")
    assert run(voted, capsys, "refresh")["outcome"] == "promoted"


def test_settings_that_say_nothing_sensible_are_an_error(
    voted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_encoder(voted, "fakes:word_encoder", 'tune = "sometimes"\n')
    assert "expected 'auto' or 'off'" in run(voted, capsys, "refresh", code=1)


@pytest.mark.slow
def test_how_far_it_is_is_shown_on_a_terminal(voted: Path) -> None:
    with_encoder(voted, "teachable:TeachableEncoder")
    path = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, "refresh", "--tune", "--index", str(voted)],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "TERM": "xterm", "COLUMNS": "120"},
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65_536):
                shown += part
        except OSError:  # the other end is closed
            pass
        assert process.stdout is not None
        said = process.stdout.read()
        assert process.wait(60) == 0, shown.decode()
    os.close(ours)
    assert said.startswith("promoted: 240 passages")
    assert "tuning the query encoder" in shown.decode()
    n = 2 * -(-int(said.split("taught by ")[1].split()[0]) // 64)
    assert f"{n}/{n}" in shown.decode()
    assert f"taught by {len(ASKED)}" not in said  # some judge, and some say when to stop


@pytest.mark.slow
def test_cron_gets_lines_and_no_bars(voted: Path) -> None:
    with_encoder(voted, "teachable:TeachableEncoder")
    path = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "refresh", "--tune", "--index", str(voted)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "encoder tuned" in done.stdout
    assert any("refresh: encoder tuned, taught by" in line for line in done.stderr.splitlines())
    assert "\x1b" not in done.stderr
