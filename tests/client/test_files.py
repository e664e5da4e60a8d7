"""Documents of the client's machine are cut and added by the service."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from in_process import async_client_of, client_of, http_of
from rag_flywheel import Config, Flywheel
from rag_flywheel.client import uploads
from rag_flywheel.errors import InputError

Served = Callable[[Path], AbstractContextManager[Any]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Flywheel.open(tmp_path / "kb", config=Config(encoder="fakes:word_encoder")):
        pass
    return tmp_path / "kb"


@pytest.fixture(params=[client_of, async_client_of], ids=["sync", "async"])
def client(request: pytest.FixtureRequest, folder: Path) -> Iterator[Any]:
    served: Served = request.param
    with served(folder) as made:
        yield made


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    made = tmp_path / "docs"
    for name, text in {
        "guide/a.md": "# Start\n\nOpen the settings.\n\n## Then\n\nPress reset.\n",
        "guide/ü b.md": "# Umlauts\n\nThey are in names.\n",
        "t.csv": "name,price\ntea,3\ncake,4\n",
        "notes.xyz": "not read",
        ".hidden.md": "# Hidden\n",
    }.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text, encoding="utf-8")
    return made


def test_files_become_the_passages_that_the_library_makes(
    client: Any, docs: Path, tmp_path: Path
) -> None:
    with Flywheel.open(tmp_path / "own", config=Config(encoder="fakes:word_encoder")) as fw:
        ours = fw.add_files(docs, root=docs, name="documents")
        theirs = client.add_files(docs)
        assert (theirs.passages, theirs.n_files) == (
            ours.passages,
            ours.n_files,
        ) and ours.n_files == 3
        assert {s.reason for s in theirs.skipped} == {s.reason for s in ours.skipped}
        assert client.passages() == sorted(fw.passages(), key=lambda p: p.id)
    assert client.add_files([docs / "guide", docs / "t.csv"]).passages.unchanged == 5


def test_what_a_file_has_no_longer_is_removed(client: Any, docs: Path) -> None:
    client.add_files(docs)
    (docs / "guide" / "a.md").write_text("# Start\n\nOpen the settings.\n")
    report = client.add_files(docs / "guide" / "a.md", root=docs)
    assert (report.passages.removed, report.passages.unchanged) == (1, 1)


def test_patterns_name_and_dry_run(client: Any, docs: Path) -> None:
    report = client.add_files(docs, include=["*.md"], exclude=["a.md"], name="manual", dry_run=True)
    assert (report.passages.added, report.n_files) == (1, 1)
    assert client.passages() == []
    client.add_files(docs, include=["*.csv"], name="manual", base_url="https://x.y/")
    assert [p.id for p in client.passages()] == ["manual:t.csv#row-1", "manual:t.csv#row-2"]


def test_many_files_go_in_parts_and_a_bad_one_is_skipped(
    client: Any, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_PART_FILES", 1)
    (docs / "bad.ipynb").write_text("{")
    told: list[tuple[str, int, int]] = []
    report = client.add_files(docs, progress=lambda *now: told.append(now))
    assert report.n_files == 3
    assert [(s.path, s.failed) for s in report.skipped if s.failed] == [("bad.ipynb", True)]
    assert told == [("add files", n, 4) for n in (1, 2, 3, 4)]
    with pytest.raises(InputError, match=r"bad\.ipynb"):
        client.add_files(docs, strict=True)


REFUSED: list[dict[str, Any]] = [
    {"prune": True}, {"splitter": lambda text, source: [text]}, {"name": "a/b"}, {"anchors": "x"},
    {"root": "/usr"}, {"chunk_tokens": 0}, {"include": "*.md"},
]  # fmt: skip


@pytest.mark.parametrize("named", REFUSED)
def test_what_cannot_be_done_is_refused(client: Any, docs: Path, named: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        client.add_files(docs, **named)
    assert client.passages() == []


def test_nothing_to_read_is_an_error(client: Any, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    for path in (tmp_path / "none", tmp_path / "missing", "", [], 7):
        with pytest.raises(InputError):
            client.add_files(path)


HOSTILE = [
    "../../evil.md",
    "/etc/evil.md",
    "..",
    "",
    "a/../../evil.md",
    "x" * 300 + ".md",
    ".",
]


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_no_name_of_a_file_leaves_the_folder_of_uploads(
    folder: Path, tmp_path: Path, name: str
) -> None:
    before = {p for p in tmp_path.rglob("*") if "kb" not in p.parts}
    with http_of(folder) as http:
        sent = http.post("/v1/documents", files=[("files", (name, b"# A\n\nText.\n"))])
        assert sent.status_code in (400, 422), sent.text
    after = {p for p in tmp_path.rglob("*") if "kb" not in p.parts}
    assert [p for p in after - before if p.suffix == ".md"] == []


@pytest.mark.parametrize("name", [*HOSTILE, "x.csv"], ids=repr)
def test_nor_do_files_of_known_answers(folder: Path, tmp_path: Path, name: str) -> None:
    with http_of(folder) as http:
        sent = http.post("/v1/golden/files", files=[("files", (name, b"query,passage_id\na,b\n"))])
        assert sent.status_code in (400, 422), sent.text
        assert str(tmp_path) not in sent.text


def test_nothing_of_an_upload_stays_on_the_disk(folder: Path, docs: Path, tmp_path: Path) -> None:
    with client_of(folder) as client:
        client.add_files(docs)
        with pytest.raises(InputError):
            client.add_files(docs / "guide" / "a.md", chunk_tokens=-1)
    left = [p for p in tmp_path.rglob("*.uploads/**/*") if p.is_file() and p.suffix != ".lock"]
    assert left == []


def test_two_files_of_one_name_and_none_are_refused(folder: Path) -> None:
    with http_of(folder) as http:
        twice = [("files", ("a.md", b"# A\n"))] * 2
        assert http.post("/v1/documents", files=twice).status_code == 422
        assert http.post("/v1/documents").status_code == 422
        assert http.post("/v1/documents", json={}).status_code == 422
