"""The client without asyncio is what the one for asyncio says."""

import subprocess
import sys

import pytest

from synchronous import CLIENT, names, synchronous


@pytest.mark.parametrize("name", names())
def test_the_file_is_up_to_date(name: str) -> None:
    if subprocess.run([sys.executable, "-m", "ruff", "--version"], capture_output=True).returncode:
        pytest.skip("needs ruff")
    written = (CLIENT / "synchronous" / name).read_text(encoding="utf-8")
    assert written == synchronous(name), "run tests/support/synchronous.py"


def test_no_file_is_left_over() -> None:
    found = {f.name for f in (CLIENT / "synchronous").glob("*.py")} - {"__init__.py"}
    assert found == set(names())
