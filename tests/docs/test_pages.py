"""The pages of the documentation: their links lead somewhere, and they name what the code has."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

import rag_flywheel

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "src" / "rag_flywheel"
GENERATED = {DOCS / "reference" / f"{name}.md" for name in ("command-line", "settings", "http-api")}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """A page without its code blocks."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Of the headings of a page, as mkdocs and GitHub make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", h.lower()).strip() for h in headings]
    return {re.sub(r"[\s-]+", "-", h) for h in plain}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        there = file in GENERATED or file.exists()
        if not there or (anchor and file not in GENERATED and anchor not in anchors(file)):
            wrong.append(target)
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    text = prose(page)
    named = re.findall(r"`((?:benchmarks|tests|docs)/[\w./*-]+)`", text)
    named += re.findall(r"(benchmarks/[\w/-]+\.py)", text)
    assert [n for n in named if not list(ROOT.glob(n))] == []
    modules = re.findall(r"`([a-z]+/\w+\.py)`", text)
    outside = ("tests/", "docs/")
    modules = [m for m in modules if not m.startswith(outside)]
    assert [m for m in modules if not (PACKAGE / m).exists()] == []


def test_the_architecture_page_names_every_file() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rooms = {
        re.split(r"[^\w/]", title)[0]: set(re.findall(r"`(\w+\.py)`", body))
        for title, body in re.findall(r"^### (.*?)$(.*?)(?=^##|\Z)", text, flags=re.M | re.S)
    }
    rooms[""] = rooms.pop("Ground") | rooms.pop("Above")
    files = [f for f in PACKAGE.rglob("*.py") if not f.name.startswith("__")]
    found: dict[str, set[str]] = {}
    for file in files:
        room = file.relative_to(PACKAGE).parent.as_posix()
        found.setdefault("" if room == "." else room, set()).add(file.name)
    assert rooms == found


def test_the_reference_has_every_public_name() -> None:
    text = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    assert [n for n in rag_flywheel.__all__ if f"`{n}`" not in text] == []


def test_every_setting_and_command_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocs")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(DOCS)
    import gen_pages

    meanings = gen_pages.setting_meanings()
    assert len(meanings) >= 11 and all(meanings.values())
    page = gen_pages.command_line_page()
    for command in ("add", "golden add", "review accept", "refresh", "answer-feedback"):
        assert f"`rag-flywheel {command}`" in page
    assert "75 another process" in page


def test_the_reference_has_every_environment_variable_and_extra() -> None:
    page = (DOCS / "reference" / "environment.md").read_text(encoding="utf-8")
    texts = [f.read_text(encoding="utf-8") for f in (*PACKAGE.rglob("*.py"), *DOCS.rglob("*.md"))]
    named = set(re.findall(r"\bRAG_FLYWHEEL_(?:[A-Z]+_)*[A-Z]+\b(?!_)", "\n".join(texts)))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert len(named) > 10
    assert [n for n in sorted(named | set(extras)) if f"`{n}`" not in page] == []


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150
