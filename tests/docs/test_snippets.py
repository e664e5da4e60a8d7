"""Every command and program in the README and the documentation, run page by page.

The blocks of a page run in order, in one folder, and its Python blocks share their names. The
pages for a first reader use the default model, all others the word encoder of the tests. A
`console` block is commands after `$ ` and what they print; a `text` block behind a `python` block
is what that prints. A block marked `no-run` is not run, and has to be listed here.
"""

import io
import logging
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest

import rag_flywheel
from rag_flywheel import Config
from rag_flywheel.cli.app import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_THE_MODEL = {"README.md", "docs/index.md", "docs/tutorial.md"}
OF_MANY_PROCESSES = {
    "docs/how-to/known-answers.md",
    "docs/how-to/backup.md",
    "docs/how-to/keys-and-limits.md",
}
NEED_TORCH = {  # a block opens another index, with the default model
    "docs/explanation/exploration.md",
    "docs/how-to/changing-documents.md",
    "docs/how-to/feedback.md",
    "docs/how-to/privacy-requests.md",
    "docs/how-to/voters.md",
    "docs/reference/filters.md",
}
NOT_RUN = {
    ("README.md", "make demo"),
    ("README.md", "pip install"),
    ("CONTRIBUTING.md", "git clone"),
    ("CONTRIBUTING.md", ".venv/bin/python -m pytest"),
    ("docs/index.md", "pip install"),
    ("docs/tutorial.md", "pip install"),
    ("docs/how-to/cron-and-systemd.md", "sudo"),
    ("docs/how-to/cron-and-systemd.md", "journalctl"),
    ("docs/how-to/dashboard.md", "make serve-demo"),
    ("docs/how-to/dashboard.md", "pip install"),
    ("docs/how-to/dashboard.md", "rag-flywheel keys add"),
    ("docs/how-to/import-feedback.md", "pip install"),
    ("docs/how-to/mcp.md", "pip install"),
    ("docs/how-to/milvus.md", "pip install"),
    ("docs/how-to/many-hosts.md", "rag-flywheel keys add"),
    ("docs/how-to/many-hosts.md", "export RAG_FLYWHEEL_SERVICE_STATE"),
    ("docs/how-to/many-hosts.md", "rag-flywheel add docs --index indexes/kb --dask"),
    ("docs/how-to/mcp.md", "rag-flywheel mcp"),
    ("docs/how-to/mcp.md", "rag-flywheel keys add"),
    ("docs/how-to/monitoring.md", "rag-flywheel keys add"),
    ("docs/how-to/postgresql.md", "pip install"),
    ("docs/how-to/versions-in-an-object-store.md", "pip install"),
    ("docs/how-to/run-it.md", "pip install"),
    ("docs/how-to/run-it.md", "rag-flywheel keys add"),
    ("docs/how-to/run-it.md", "sudo useradd"),
    ("docs/how-to/run-it.md", "podman build"),
    ("docs/how-to/backup.md", "0 3 * * *"),
    ("docs/how-to/training-sets.md", "from datasets import load_dataset"),
    ("docs/how-to/privacy-requests.md", "pip install"),
    ("docs/how-to/another-encoder.md", "from rag_flywheel import Flywheel\n\nfw = "),
    ("docs/how-to/change-encoder.md", "rag-flywheel change-encoder sentence-transformers:"),
    ("docs/how-to/embed-on-many-machines.md", "pip install"),
    ("docs/how-to/embed-on-many-machines.md", "from rag_flywheel"),
    ("docs/how-to/own-data-in-the-benchmark.md", "rag-flywheel bench"),
    ("docs/explanation/tuning.md", "rag-flywheel refresh --tune"),
    ("docs/notes/speed-notes.md", "RAG_FLYWHEEL_DATA="),
    ("docs/notes/speed-notes.md", "python benchmarks/"),
}
FRAMEWORK_PAGES: dict[str, str] = runpy.run_path(str(ROOT / "tests" / "environments.py"))[
    "FRAMEWORK_PAGES"
]
ELSEWHERE = {
    "docs/how-to/run-the-service.md",
    "docs/how-to/agents.md",
    "docs/how-to/mcp.md",
    "docs/how-to/milvus.md",
    "docs/how-to/postgresql.md",
    "docs/how-to/many-hosts.md",
    "docs/how-to/versions-in-an-object-store.md",
}
"""Pages whose programs are run elsewhere: tests/slow/test_service_docs.py runs those of the first against a
service, tests/integrations/test_pages.py those that need a framework, tests/engines/test_page.py that of
Milvus, and tests/docs/test_postgresql_page.py those of PostgreSQL and
of object stores."""
READ = {"json", "html"}
"""What is only read, not run."""
KINDS = {"python", "console", "sh", "text", "toml", "ini", "javascript", "bash"} | READ
BLOCK = re.compile(r"^```(\w*)( no-run)?\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
IDS = re.compile(r"\b(?:[0-9a-f]{23}|\d{8}T\d{6}Z-[0-9a-f]{5}|\w+-[0-9a-f]{16,})\b")
TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?Z?|\(\d+\.\d s\)")
DECIMAL = re.compile(r"-?\b\d+\.\d+\b")
TOLERANCE = (
    0.1  # of 1, or of a number above it: the default model differs a little between processors
)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[str, bool, str]]:
    """(kind, whether it runs, text) of each block."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(kind, not mark, body) for kind, mark, body in found]


def commands(body: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block with the output that is shown below it."""
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        n = next((i for i, line in enumerate(lines) if i and not line.startswith("> ")), len(lines))
        yield "\n".join([lines[0], *(x[2:] for x in lines[1:n])]), "\n".join(lines[n:])


def run_bash(script: str) -> str:
    support, package = ROOT / "tests" / "support", Path(rag_flywheel.__file__).parents[1]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(support), str(package)]),
    }
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}"
    return done.stdout


def run_here(words: list[str]) -> str:
    """A `rag-flywheel` command in this process, which has the model's libraries loaded."""
    log = logging.getLogger("rag_flywheel")
    handlers, level = list(log.handlers), log.level
    printed = io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            main(words)
    except SystemExit as end:
        assert not end.code, f"{words}: {end.code}\n{printed.getvalue()}"
    finally:
        log.handlers[:], log.level = handlers, level
    return printed.getvalue()


def run_command(command: str) -> str:
    words = shlex.split(re.sub(r"\s#.*", "", command))
    if words[0] == "rag-flywheel" and not re.search(r"[|<>$&;]", command):
        return run_here(words[1:])
    return run_bash(command)


def run_python(body: str, names: dict[str, Any], where: str) -> str:
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(compile(body, where, "exec"), names)
    return printed.getvalue()


def lines_of(text: str) -> list[str]:
    """The lines without what differs from run to run: ids, times, the size of the folder."""
    text = IDS.sub("ID", TIME.sub("TIME", text))
    text = re.sub(r"(bytes on disk +)\d+", r"\1N", text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def assert_shown(expected: str, printed: str, where: str) -> None:
    """That what is shown was printed; a line "..." stands for any lines."""
    wanted, found = lines_of(expected), lines_of(printed)
    if "..." in wanted:
        cut = wanted.index("...")
        n_after = len(wanted) - cut - 1
        assert len(found) >= cut + n_after, f"{where}: shown\n{expected}\nprinted\n{printed}"
        found = found[:cut] + found[len(found) - n_after :]
        del wanted[cut]
    for line, other in zip_longest(wanted, found, fillvalue=""):
        same = DECIMAL.sub("N", line) == DECIMAL.sub("N", other)
        both = zip(DECIMAL.findall(line), DECIMAL.findall(other), strict=False)
        near = all(abs(float(a) - float(b)) <= TOLERANCE * max(1.0, float(b)) for a, b in both)
        assert same and near, f"{where}: shown {line!r}, printed {other!r}\n{printed}"


def run_page(page: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    ids: dict[str, str] = {}  # those of the page, and those of this run
    printed = None
    for kind, runs, body in blocks(page):
        shown_before, printed = printed, None
        if not runs:
            continue
        if kind == "python":
            printed = run_python(body, names, name_of(page))
        elif kind == "sh":
            run_bash(body)
        elif kind == "text" and shown_before is not None:
            assert_shown(body, shown_before, name_of(page))
        elif kind == "toml":
            settings = tomllib.loads(body)
            assert settings.pop("format_version", 1) == 1
            Config(**settings)
        elif kind == "console":
            for command, output in commands(body):
                found = run_command(IDS.sub(lambda m: ids.get(m[0], m[0]), command))
                if output.strip():
                    assert_shown(output, found, f"{name_of(page)}: {command}")
                    ids.update(zip(IDS.findall(output), IDS.findall(found), strict=False))


def marks_of(page: Path) -> list[pytest.MarkDecorator]:
    if name_of(page) in WITH_THE_MODEL:
        return [pytest.mark.model]
    return [pytest.mark.slow] if name_of(page) in OF_MANY_PROCESSES else []


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(p, marks=marks_of(p))
        for p in PAGES
        if name_of(p) not in ELSEWHERE
        and any(runs and kind not in READ | {"text"} for kind, runs, _ in blocks(p))
    ],
    ids=name_of,
)
def test_what_a_page_shows_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sqlite3 " in page.read_text(encoding="utf-8") and shutil.which("sqlite3") is None:
        pytest.skip("needs the program sqlite3")
    if (framework := FRAMEWORK_PAGES.get(name_of(page))) is not None:
        pytest.importorskip(
            framework, reason=f"{framework} is not installed: make test-integrations"
        )
    if name_of(page) in NEED_TORCH:
        pytest.importorskip(
            "torch", reason="torch is not installed: the page loads the default model"
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("RAG_FLYWHEEL_INDEX", raising=False)
    if name_of(page) not in WITH_THE_MODEL:
        folder = tmp_path / "indexes" / "kb"
        folder.mkdir(parents=True)
        text = 'format_version = 1\nencoder = "fakes:word_encoder"\n'
        (folder / "flywheel.toml").write_text(text)
    run_page(page)


def test_every_block_is_of_a_kind_that_is_run_or_only_read() -> None:
    found = {(name_of(p), kind) for p in PAGES for kind, _, _ in blocks(p)}
    assert [(page, kind) for page, kind in sorted(found) if kind not in KINDS] == []


def test_only_these_blocks_are_not_run() -> None:
    marked = [(name_of(p), body) for p in PAGES for _, runs, body in blocks(p) if not runs]
    listed = {(page, begin) for page, begin in NOT_RUN}
    used = set()
    for page, body in marked:
        match = [(at, begin) for at, begin in listed if at == page and body.startswith(begin)]
        assert match, f"{page} has a block that is not run and not listed:\n{body}"
        used.update(match)
    assert listed - used == set()
