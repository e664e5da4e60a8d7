"""What docs/how-to/known-answers.md shows, run with the word encoder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TEXT = (TESTS.parent / "docs" / "how-to" / "known-answers.md").read_text(encoding="utf-8")


def run(folder: Path, *words: str) -> list[str]:
    index = folder / "indexes" / "kb"
    index.mkdir(parents=True)
    (index / "flywheel.toml").write_text('format_version = 1\nencoder = "fakes:word_encoder"\n')
    path = os.pathsep.join([str(TESTS / "support"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_the_commands(tmp_path: Path) -> None:
    (code,) = re.findall(r"```sh\n(.*?)```", TEXT, flags=re.DOTALL)
    command = f'rag-flywheel() {{ "{sys.executable}" -m rag_flywheel "$@"; }}\n'
    lines = run(tmp_path, "bash", "-e", "-c", command + code)
    assert lines[0] == "added 2, updated 0, unchanged 0, removed 0, skipped 0"
    assert lines[-2:] == ["exported 2", "added 0, updated 0, unchanged 2"]
    (said,) = re.findall(r"# says: (.*)\n", code)
    assert lines[-1] == said


@pytest.mark.slow
def test_the_program(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    assert run(tmp_path, sys.executable, "-c", code) == [
        "I forgot my password secret users named different passages as the answer",
        "I forgot my password {'secret': 1} ('review',)",
    ]
