"""What the README shows, run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.mark.model
def test_the_example_runs_and_answers(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["1", "reset"], ["2", "secret"]]
    assert lines[-1].startswith("3 passages; ")
    assert "of the 64 past queries it takes" in lines[-1]
    assert (tmp_path / "indexes" / "kb" / "CURRENT").exists()


def test_every_file_the_readme_points_to_is_there() -> (
    None
):  # of all pages: tests/docs/test_pages.py
    root = Path(__file__).parents[2]
    targets = re.findall(r"\]\(([^)#]+)\)", README) + re.findall(r"`(benchmarks/[\w/.]+)`", README)
    assert len(targets) >= 4
    assert [t for t in targets if not (root / t).exists()] == []
