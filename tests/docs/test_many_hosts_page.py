"""The programs of the page on many hosts run, with a folder as the object store."""

import importlib.util
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from on_postgres import url_of
from rag_flywheel import Config, Flywheel

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "many-hosts.md"
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
    pytest.importorskip("obstore", reason="needs the extra objects")
    urls = {name: url_of(f"many_{name}") for name in ("kb", "service")}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "desk.md").write_text("# Desk\n\nIt is open from 8 to 18.\n")
    with Flywheel.open("indexes/one", config=Config(encoder="fakes:word_encoder")):
        pass
    n_run = 0
    for kind, runs, body in snippets.blocks(PAGE):
        for name, url in urls.items():
            body = body.replace(EXAMPLE + name, url)
        body = body.replace("s3://bucket/kb", f"file://{tmp_path}/store")
        if runs and kind == "sh":
            for line in body.splitlines():
                snippets.run_here(shlex.split(line)[1:])
                n_run += 1
    assert n_run == 6
    with Flywheel.open("indexes/kb") as fw:
        assert fw.status().version is not None
        assert fw.retrieve("when is the desk open?").hits
