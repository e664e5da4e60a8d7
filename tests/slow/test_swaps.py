"""Readers under forty versions that another process makes: nothing wrong, nothing left over.

What this finds on real passages is in benchmarks/results/swaps.json.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from made_collection import write_collection

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "speed" / "swaps.py"
ROUNDS = 40

pytestmark = [pytest.mark.slow, pytest.mark.alone]


@pytest.mark.parametrize("where", [[], ["--inside"]], ids=["another process", "the same process"])
def test_forty_swaps_under_four_readers(where: list[str], tmp_path: Path) -> None:
    collection, out = write_collection(tmp_path / "made"), tmp_path / "found.json"
    command = [sys.executable, str(PROGRAM), "--collection", str(collection), *where]
    command += ["--rounds", str(ROUNDS), "--most-s", "240", "--out", str(out)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    print(json.dumps(found, indent=1))
    assert (found["errors"], found["wrong_answers"]) == ([], {})
    assert found["rounds"] > 12  # all of them, unless the machine is very busy
    assert found["answers"] > 20 * found["rounds"]
    assert found["versions_that_answered_in_every_thread"] >= found["rounds"] / 2
    assert found["agrees_with_a_folder_opened_anew"]
    early, late, closed = (found[k] for k in ("after_round_10", "after_the_last", "after_close"))
    assert late["rss_trimmed_mb"] <= 1.05 * early["rss_trimmed_mb"]
    assert late["open_files"] <= early["open_files"] + 3  # a load under way has its own
    assert late["threads"] <= early["threads"] + 1
    assert late["files_in_folder"] <= 1.1 * early["files_in_folder"]  # ten versions are kept
    assert closed["threads"] <= early["threads"] - 4
