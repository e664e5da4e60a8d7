"""Files become passages: what is cut, what it is called, what an edit touches."""

from pathlib import Path

import pytest

from rag_flywheel import FlywheelError
from rag_flywheel.formats.documents import read_paths
from rag_flywheel.formats.jsonl import read_jsonl
from rag_flywheel.formats.markdown import cut

GUIDE = """Intro before any heading.

# Install

Run the installer.

```sh
# not a heading
make
```

## On Linux

Use the package.

# Use

Press the button.
"""


def test_sections_have_headings_and_ids() -> None:
    found = cut(GUIDE, "docs/guide.md", markdown=True)
    assert [(p.id, p.title) for p in found] == [
        ("docs/guide.md#top", ""),
        ("docs/guide.md#install", "Install"),
        ("docs/guide.md#on-linux", "Install > On Linux"),
        ("docs/guide.md#use", "Use"),
    ]
    assert "# not a heading" in found[1].text
    assert found[2].metadata == {
        "source": "docs/guide.md",
        "line": 14,
        "last_line": 14,
        "anchor": "on-linux",
        "headings": "Install > On Linux",
    }


def test_an_edit_touches_only_its_section() -> None:
    before = {p.id: (p.title, p.text) for p in cut(GUIDE, "g.md", markdown=True)}
    longer = GUIDE.replace("Run the installer.", "Run the installer. " * 200)
    after = {p.id: (p.title, p.text) for p in cut(longer, "g.md", markdown=True)}
    same = {i for i in before if after.get(i) == before[i]}
    assert same == set(before) - {"g.md#install"}
    assert sum(i.startswith("g.md#install.") for i in after) > 1


def test_folders_are_read_at_any_depth_and_hidden_files_left_out(tmp_path: Path) -> None:
    (tmp_path / "kb" / "deep").mkdir(parents=True)
    (tmp_path / "kb" / ".git").mkdir()
    (tmp_path / "kb" / "deep" / "a.md").write_text("# T\n\nbody")
    (tmp_path / "kb" / ".git" / "b.md").write_text("hidden")
    (tmp_path / "kb" / "c.txt").write_text("\ufeffplain", encoding="utf-8")
    batch = read_paths([tmp_path / "kb"])
    assert {p.id: p.text for p in batch.passages} == {
        "kb/deep/a.md#t": "body",
        "kb/c.txt#top": "plain",
    }
    assert batch.sources == {"kb/deep/a.md", "kb/c.txt"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is no JSON"),
        ("[]", "line 2 is list; expected an object"),
        ('{"id": "x"}', "line 2 has no 'text'"),
        ('{"id": "x", "text": "t", "txet": 1}', "unknown key 'txet'"),
        ('{"id": "x", "text": "t", "metadata": []}', None),
        ('{"id": "x", "text": "t", "metadata": [1]}', "metadata is list"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, message: str | None) -> None:
    file = tmp_path / "kb.jsonl"
    file.write_text('{"id": "ok", "text": "fine"}\n' + line + "\n")
    if message is None:
        assert len(list(read_jsonl(file))) == 2
        return
    with pytest.raises(FlywheelError, match=message) as caught:
        list(read_jsonl(file))
    assert str(file) in str(caught.value)


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.exe").write_bytes(b"MZ")
    (tmp_path / "latin.txt").write_bytes("é".encode("latin-1"))
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("a.exe", r"is \.exe; expected"),
        ("latin.txt", "is not UTF-8"),
        ("empty", "holds no file that is read"),
        ("gone", "no file or folder"),
    ):
        with pytest.raises(FlywheelError, match=message):
            read_paths([tmp_path / name])


def test_lines_of_a_beir_corpus_are_passages(tmp_path: Path) -> None:
    file = tmp_path / "corpus.jsonl"
    file.write_text(
        '{"_id": "a", "title": "", "text": "one", "metadata": {"n": 1}}\n'
        '{"_id": "b", "title": "only a title", "text": ""}\n'
    )
    found = list(read_jsonl(file))
    assert [(p.id, p.text, p.title, dict(p.metadata)) for p in found] == [
        ("a", "one", "", {"n": 1}),
        ("b", "only a title", "", {}),
    ]
    file.write_text('{"_id": "a", "id": "b", "text": "one"}\n')
    with pytest.raises(FlywheelError, match="unknown key '_id'"):
        list(read_jsonl(file))
