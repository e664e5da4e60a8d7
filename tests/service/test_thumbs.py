"""The script for pages: small, harmless, cacheable; the demo only where no key is needed."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

import rag_flywheel.service
from in_process import http_of
from rag_flywheel import Config, Flywheel, Passage

STATIC = Path(rag_flywheel.service.__file__).parent / "static"
SCRIPT = (STATIC / "thumbs.js").read_text(encoding="utf-8")
DEMO = ["/v1/thumbs-demo", "/v1/thumbs-demo.js"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Flywheel.open(tmp_path / "kb", config=Config(encoder="fakes:word_encoder")) as fw:
        fw.add([Passage("a", "words")])
    return tmp_path / "kb"


@pytest.fixture
def http(folder: Path) -> Iterator[TestClient]:
    with http_of(folder) as made:
        yield made


def test_it_is_at_most_3_kb() -> None:
    assert len(SCRIPT.encode()) <= 3_000


@pytest.mark.parametrize(
    "word",
    ["eval", "Function(", "cookie", "localStorage", "sessionStorage", "innerHTML", "document.write",
     "import ", "require(", "setTimeout(\"", "outerHTML", "insertAdjacentHTML"],
)  # fmt: skip
def test_it_has_no_dangerous_word(word: str) -> None:
    assert word not in SCRIPT


def test_it_names_no_other_host() -> None:
    assert re.findall(r"https?://", SCRIPT) == []


def test_it_is_served_to_every_page_and_kept_by_browsers(http: TestClient) -> None:
    first = http.get("/v1/thumbs.js", headers={"Origin": "https://elsewhere.example"})
    assert (first.status_code, first.text) == (200, SCRIPT)
    assert first.headers["content-type"] == "text/javascript; charset=utf-8"
    assert first.headers["cache-control"] == "public, max-age=3600"
    assert first.headers["cross-origin-resource-policy"] == "cross-origin"
    again = http.get("/v1/thumbs.js", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_demo_is_served_where_access_is_open(http: TestClient) -> None:
    page = http.get("/v1/thumbs-demo")
    assert "<form>" in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "<script>" not in page.text
    assert "thumbs" in http.get("/v1/thumbs-demo.js").text


@pytest.mark.parametrize("path", DEMO)
def test_the_demo_is_not_served_where_a_key_is_needed(folder: Path, path: str) -> None:
    with http_of(folder, open_access=False) as http:
        assert http.get(path).status_code == 404
        assert http.get("/v1/thumbs.js").status_code == 200
