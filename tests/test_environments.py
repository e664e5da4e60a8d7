"""What `make test-environments` does before it runs tests, without installing anything."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("environments.py")


def test_a_python_that_is_not_there_is_skipped_visibly(tmp_path: Path) -> None:
    env = {**os.environ, "PYENV_ROOT": str(tmp_path), "PATH": str(tmp_path)}
    command = [sys.executable, str(PROGRAM), "3.12", "lowest"]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")] == [
        "SKIPPED 3.12: no Python 3.12 under pyenv or on the path",
        "SKIPPED lowest: no Python 3.11 under pyenv or on the path",
    ]
    assert done.stdout.splitlines()[-1] == "3.12: skipped, lowest: skipped"


def test_every_requirement_has_a_lowest_version() -> None:
    code = "import environments as e; print(*map(e.lowest, e.requirements().values()), sep='\\n')"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROGRAM.parent)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert {line.split("==")[0] for line in lines} > {"torch", "numpy", "pytest", "docutils"}


def test_frameworks_and_engines_are_declared_and_their_pages_are_there() -> None:
    found = runpy.run_path(str(PROGRAM))
    declared = found["declared_by"](found["FRAMEWORKS"], (found["INTEGRATIONS"],))
    assert set(declared) > {"langchain-core", "langchain-tests", "llama-index-core", "haystack-ai"}
    assert set(found["declared_by"](("milvus", "pgvector"), (found["ENGINES"],))) > {
        "pymilvus",
        "milvus-lite",
    }
    for name, (_, pages) in found["OWN"].items():
        assert name == found["POSTGRES"] or (PROGRAM.parent / name).is_dir()
        for page in pages:
            assert (PROGRAM.parents[1] / page).is_file(), page
