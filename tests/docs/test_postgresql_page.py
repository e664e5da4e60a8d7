"""The programs of the pages on PostgreSQL, and on many hosts that use it, run on the server of the tests.
A folder is the object store."""

import importlib.util
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from fakes import WordEncoder
from folders import PASSAGES
from on_postgres import url_of
from rag_flywheel import Config, Flywheel

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
EXAMPLE = "postgresql://ann@db.example.org/app?schema="


@pytest.fixture
def snippets() -> ModuleType:
    """The module that runs the other pages."""
    spec = importlib.util.spec_from_file_location(
        "snippets", Path(__file__).with_name("test_snippets.py")
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_page(snippets: ModuleType, page: str, instead: Mapping[str, str]) -> int:
    """Run what a page shows, and see that it prints what the page says; returns how many commands and
    programs there were. instead: {what the page has: what is there}."""
    printed, n_run = "", 0
    for kind, runs, body in snippets.blocks(PAGES / page):
        for shown, there in instead.items():
            body = body.replace(shown, there)
        if kind == "text":
            snippets.assert_shown(body, printed, "the page")
        elif kind == "python":
            printed = snippets.run_python(body, {}, "the page")
            n_run += 1
        elif runs and kind == "sh":
            for line in body.splitlines():
                snippets.run_here(shlex.split(line)[1:])
                n_run += 1
    return n_run


def urls(*names: str) -> dict[str, str]:
    """The URLs of schemas of these names, by those that a page has."""
    return {EXAMPLE + name: url_of(f"page_{name}") for name in names}


def prepare(folder: str) -> None:
    """An index to copy from, and a folder whose settings name an encoder of the tests."""
    Path(folder).mkdir(parents=True)
    settings = 'format_version = 1\nencoder = "fakes:word_encoder"\n'
    (Path(folder) / "flywheel.toml").write_text(settings)
    with Flywheel.open("indexes/old", encoder=WordEncoder()) as fw:
        fw.add(PASSAGES)
        fw.refresh()


def test_what_the_page_shows_runs(
    snippets: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare("indexes/kb")
    assert run_page(snippets, "postgresql.md", urls("kb", "desk")) == 3
    with Flywheel.open("indexes/back", encoder=WordEncoder()) as fw:
        assert fw.status().n_passages == len(PASSAGES)


def test_what_the_page_on_object_stores_shows_runs(
    snippets: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore", reason="needs the extra objects")
    monkeypatch.chdir(tmp_path)
    prepare("indexes/one")
    instead = {**urls("shared", "moved"), "s3://bucket": f"file://{tmp_path}/bucket"}
    assert run_page(snippets, "versions-in-an-object-store.md", instead) == 2
    with Flywheel.open("indexes/moved", encoder=WordEncoder()) as fw:
        found = fw.status()
        assert (found.n_passages, found.objects) == (
            len(PASSAGES),
            f"file://{tmp_path}/bucket/moved",
        )


def test_what_the_page_on_many_hosts_shows_runs(
    snippets: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("obstore", reason="needs the extra objects")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "desk.md").write_text("# Desk\n\nIt is open from 8 to 18.\n")
    with Flywheel.open("indexes/one", config=Config(encoder="fakes:word_encoder")):
        pass
    instead = {**urls("kb", "service"), "s3://bucket/kb": f"file://{tmp_path}/store"}
    assert run_page(snippets, "many-hosts.md", instead) == 6
    with Flywheel.open("indexes/kb") as fw:
        assert fw.status().version is not None
        assert fw.retrieve("when is the desk open?").hits
