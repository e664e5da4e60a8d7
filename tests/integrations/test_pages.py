"""The programs of the pages on agents and MCP, run as they stand, and the settings of a host."""

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
IDS = re.compile(r"\b[0-9a-f]{23}\b")


def blocks(name: str) -> list[tuple[str, str]]:
    return BLOCK.findall((PAGES / name).read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index with a fake encoder where the pages have theirs."""
    monkeypatch.chdir(tmp_path)
    config = Config(encoder="fakes:word_encoder")
    Flywheel.open(tmp_path / "indexes" / "kb", encoder=WordEncoder(), config=config).close()
    return tmp_path / "indexes" / "kb"


@pytest.fixture(autouse=True)
def loop() -> Iterator[None]:
    """An event loop that is closed: `run_sync` of Pydantic-AI leaves its own open."""
    own = asyncio.new_event_loop()
    asyncio.set_event_loop(own)
    yield
    own.close()
    asyncio.set_event_loop(None)


@pytest.mark.parametrize(
    ("page", "needs"), [("agents.md", ["pydantic_ai", "agents", "dspy"]), ("mcp.md", ["mcp"])]
)
def test_the_programs_of_a_page_run(
    page: str, needs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in needs:
        pytest.importorskip(name, reason=f"{name} is not installed")
    names: dict[str, object] = {"__name__": "__main__"}
    printed = None
    for kind, body in blocks(page):
        if kind == "python":
            capsys.readouterr()
            exec(compile(body, page, "exec"), names)
            printed = capsys.readouterr().out
        elif kind == "text":
            assert printed is not None
            assert IDS.sub("ID", printed) == IDS.sub("ID", body)
    fw = names.get("fw")
    assert isinstance(fw, Flywheel)
    fw.close()


def test_the_first_vote_takes_five_lines_at_most() -> None:
    (_, body), *_ = blocks("agents.md")
    lines = body.splitlines()
    while any(line.startswith("fw.add(") for line in lines):  # what the index holds is another page
        begin = next(i for i, line in enumerate(lines) if line.startswith("fw.add("))
        end = next(i for i, line in enumerate(lines) if i > begin and line == ")")
        del lines[begin : end + 1]
    work = [line for line in lines if line and not line.startswith(("from ", "import "))]
    assert "give_feedback" in work[-1] and len(work) <= 5


def test_what_a_host_is_told_to_run_works(folder: Path) -> None:
    pytest.importorskip("mcp", reason="the extra `mcp` is not installed")
    from mcp import Client
    from mcp.client.stdio import StdioServerParameters, stdio_client

    from served import environment

    with Flywheel.open(folder) as fw:
        fw.add([Passage("hours", "The desk is open from 8 to 18.")])
    first = next(body for kind, body in blocks("mcp.md") if kind == "json")
    (server,) = json.loads(first)["mcpServers"].values()
    words = [str(folder) if word == "/srv/indexes/kb" else word for word in server["args"]]
    assert words != server["args"]
    assert server["command"] == "rag-flywheel"
    own = ["-m", "rag_flywheel", *words]
    given = StdioServerParameters(command=sys.executable, args=own, env=environment())

    async def run() -> list[str]:
        with Path("errors").open("w+") as errors:
            async with Client(stdio_client(given, errlog=errors)) as client:
                found = await client.call_tool("search_knowledge", {"query": "open desk"})
                return [hit["passage_id"] for hit in found.structured_content["hits"]]

    assert asyncio.run(run()) == ["hours"]
