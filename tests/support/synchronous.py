"""Writes rag_flywheel/client/synchronous from rag_flywheel/client/asynchronous, run as a program.

The two clients differ in nothing but `await`; tests/client/test_synchronous.py checks that the files are
what this makes.
"""

import re
import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).parents[2] / "src" / "rag_flywheel" / "client"
RULES = (
    (r"\basync def\b", "def"),
    (r"\bawait ", ""),
    (r"\bimport asyncio\n", "import time\n"),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"\.aclose\b", ".close"),
    (r"__aenter__", "__enter__"),
    (r"__aexit__", "__exit__"),
    (r"\bAsync(Client|Connection|Golden|Review)\b", r"\1"),
    (r"client\.asynchronous\b", "client.synchronous"),
)
HEADER = "# Written by tests/support/synchronous.py from {name}: change that file.\n"


def synchronous(name: str) -> str:
    """The file of this name without asyncio."""
    text = (CLIENT / "asynchronous" / name).read_text(encoding="utf-8")
    for pattern, instead in RULES:
        text = re.sub(pattern, instead, text)
    text = HEADER.format(name=f"asynchronous/{name}") + text
    words = [sys.executable, "-m", "ruff"]
    at = ["--stdin-filename", str(CLIENT / "synchronous" / name), "-"]
    for command in (["check", "--select", "I", "--fix", "--quiet"], ["format", "--quiet"]):
        done = subprocess.run(
            [*words, *command, *at], input=text, capture_output=True, text=True, check=True
        )
        text = done.stdout
    return text


def names() -> list[str]:
    """The files that are written."""
    files = (CLIENT / "asynchronous").glob("*.py")
    return sorted(file.name for file in files if file.name != "__init__.py")


if __name__ == "__main__":
    for each in names():
        (CLIENT / "synchronous" / each).write_text(synchronous(each), encoding="utf-8")
