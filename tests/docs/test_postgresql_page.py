"""The programs of the pages on PostgreSQL, and on many hosts that use it, run on the server of the tests."""

import importlib.util
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from fakes import WordEncoder
from folders import PASSAGES
from on_postgres import url_of
from rag_flywheel import Flywheel

HOSTS = Path(__file__).parents[2] / "docs" / "how-to" / "versions-in-an-object-store.md"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "postgresql.md"
EXAMPLE = "postgresql://ann@db.example.org/app?schema="


@pytest.fixture
def snippets() -> ModuleType:
    """The module that runs the other pages."""
    spec = importlib.util.spec_from_file_location(
        "snippets", PAGE.parents[2] / "tests/docs/test_snippets.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_the_page_shows_runs(
    snippets: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = {name: url_of(f"page_{name}") for name in ("kb", "desk")}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "indexes" / "kb").mkdir(parents=True)
    settings = 'format_version = 1\nencoder = "fakes:word_encoder"\n'
    (tmp_path / "indexes" / "kb" / "flywheel.toml").write_text(settings)
    with Flywheel.open("indexes/old", encoder=WordEncoder()) as fw:
        fw.add(PASSAGES)
        fw.refresh()
    printed, n_run = "", 0
    for kind, runs, body in snippets.blocks(PAGE):
        for name, url in urls.items():
            body = body.replace(EXAMPLE + name, url)
        if kind == "text":
            snippets.assert_shown(body, printed, "the page")
        elif kind == "python":
            printed = snippets.run_python(body, {}, "the page")
            n_run += 1
        elif runs and kind == "sh":
            for line in body.splitlines():
                snippets.run_here(shlex.split(line)[1:])
                n_run += 1
    assert n_run == 3
    with Flywheel.open("indexes/back", encoder=WordEncoder()) as fw:
        assert fw.status().n_passages == len(PASSAGES)


def test_what_the_page_on_many_hosts_shows_runs(
    snippets: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore", reason="needs the extra objects")
    urls = {name: url_of(f"page_{name}") for name in ("shared", "moved")}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "indexes" / "one").mkdir(parents=True)
    settings = 'format_version = 1\nencoder = "fakes:word_encoder"\n'
    (tmp_path / "indexes" / "one" / "flywheel.toml").write_text(settings)
    with Flywheel.open("indexes/old", encoder=WordEncoder()) as fw:
        fw.add(PASSAGES)
        fw.refresh()
    printed, n_run = "", 0
    for kind, runs, body in snippets.blocks(HOSTS):
        for name, url in urls.items():
            body = body.replace(EXAMPLE + name, url)
        body = body.replace("s3://bucket", f"file://{tmp_path}/bucket")
        if kind == "text":
            snippets.assert_shown(body, printed, "the page")
        elif kind == "python":
            printed = snippets.run_python(body, {}, "the page")
            n_run += 1
        elif runs and kind == "sh":
            snippets.run_here(shlex.split(body)[1:])
            n_run += 1
    assert n_run == 2
    with Flywheel.open("indexes/moved", encoder=WordEncoder()) as fw:
        found = fw.status()
        assert (found.n_passages, found.objects) == (
            len(PASSAGES),
            f"file://{tmp_path}/bucket/moved",
        )
