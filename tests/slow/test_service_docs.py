"""The programs of the page on the service, run as they stand against a service."""

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rag_flywheel.cli.app import main
from served import Served, environment, free_port, served
from service_client import make_index

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "run-the-service.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
KINDS = ["python", "javascript", "bash"]


def blocks(kind: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8")
    return [body for found, body in BLOCK.findall(text) if found == kind]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    with served(make_index(tmp_path / "indexes" / "kb", passages=[])) as made:
        yield made


def run(kind: str, body: str, service: Served, folder: Path) -> str:
    """What a program of the page prints."""
    needed = {
        "python": sys.executable,
        "javascript": shutil.which("node"),
        "bash": shutil.which("bash"),
    }
    program = needed[kind]
    if program is None or (kind == "bash" and not shutil.which("curl")):
        pytest.skip(f"needs what runs {kind}: node, or bash with curl")
    file = folder / {"python": "a.py", "javascript": "a.mjs", "bash": "a.sh"}[kind]
    file.write_text(body, encoding="utf-8")
    words = [program, *(["-eu", "-o", "pipefail"] if kind == "bash" else []), str(file)]
    done = subprocess.run(
        words,
        env={**environment(), "SERVICE": service.url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def get(service: Served, path: str) -> Any:
    found = httpx.get(f"{service.url}/v1/{path}")
    assert found.status_code == 200
    return found.json()


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_asks_votes_and_refreshes(kind: str, service: Served, tmp_path: Path) -> None:
    body = blocks(kind)[0]
    printed = run(kind, body, service, tmp_path)
    assert "refresh" in printed or "promoted" in printed
    (vote,) = get(service, "votes")["items"]
    assert (vote["passage_id"], vote["verdict"]) == ("reset", "helpful")
    deadline = time.monotonic() + 60
    while get(service, "jobs")[0]["ended"] is None and time.monotonic() < deadline:
        time.sleep(0.1)
    assert get(service, "jobs")[0]["state"] == "done"
    assert get(service, "versions")[0]["live"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_has_some_ten_lines(kind: str) -> None:
    assert len([line for line in blocks(kind)[0].splitlines() if line.strip()]) <= 13


def test_a_server_gets_a_token_for_its_page(service: Served, tmp_path: Path) -> None:
    first, token = blocks("javascript")
    define = first[: first.index("const texts")]
    body = f'{define}const query = "a", user = "ann";\n{token}console.log(answer.feedback_token);'
    httpx.post(
        f"{service.url}/v1/passages", json={"passages": [{"id": "p", "text": "words"}]}
    ).raise_for_status()
    assert len(run("javascript", body, service, tmp_path).strip()) > 20


def test_the_commands_of_the_page_are_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_index(tmp_path / "indexes" / "kb")
    install, serve, others = blocks("sh")
    assert install.startswith("pip install")
    start = shlex.split(serve)
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "rag_flywheel", *start[1:], "--port", str(port)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                assert httpx.get(f"http://127.0.0.1:{port}/v1/status").json()["n_passages"] == 3
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
    finally:
        process.terminate()
        process.wait()
    add, again = (shlex.split(line) for line in others.splitlines())
    with pytest.raises(SystemExit) as end:
        main(add[1:])
    assert not end.value.code
    assert re.search(r"\bfw_\w+", capsys.readouterr().out)
    assert again[:2] == start[:2]


def test_the_problem_that_the_page_shows_is_answered(service: Served) -> None:
    (shown,) = blocks("json")
    found = httpx.post(f"{service.url}/v1/retrieve", json={"query": " "})
    assert found.json() == httpx.Response(200, text=shown).json()
    assert found.headers["content-type"] == "application/problem+json"
