"""The program of the page on Milvus, run as it stands but for the port."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from lite import MilvusLite

pytest.importorskip("milvus_lite", reason="needs the package milvus-lite: make test-engines")
pytest.importorskip("pymilvus", reason="needs the extra milvus: make test-engines")
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "milvus.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
ADDRESS = "http://127.0.0.1:19530"


def test_the_program_of_the_page_runs(
    server: MilvusLite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    every = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    (program,) = [body for kind, body in every if kind == "python"]
    (shown,) = [body for kind, body in every if kind == "text"]
    assert ADDRESS in program
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(program.replace(ADDRESS, server.uri), PAGE.name, "exec"), {})
    assert printed.getvalue().replace(server.uri, ADDRESS) == shown
