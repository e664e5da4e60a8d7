"""Imports from strangers: an InputError that names file and line, whatever is in them."""

import gzip
import os
from pathlib import Path

import pytest

from rag_flywheel.errors import InputError
from rag_flywheel.formats.beir import read_beir
from rag_flywheel.formats.documents import MOST_BYTES, read_paths
from rag_flywheel.formats.jsonl import read_jsonl

LINES = {
    "deep": b"[" * 200_000,
    "deep metadata": b'{"id": "x", "text": "t", "metadata": {"a": ' + b"[" * 200_000,
    "huge number": b'{"id": "x", "text": "t", "metadata": {"a": 1e400}}',
    "more digits than numbers have": b'{"id": "x", "text": "t", "metadata": {"a": %s}}'
    % (b"9" * 5000),
    "a number of 400 digits": b'{"id": "x", "text": "t", "metadata": {"a": %s}}' % (b"9" * 400),
    "not a number": b'{"id": "x", "text": "t", "metadata": {"a": NaN}}',
    "a key twice": b'{"id": "x", "id": "y", "text": "t"}',
    "half a surrogate pair": b'{"id": "x", "text": "\\ud800"}',
    "another kind of id": b'{"id": [1], "text": "t"}',
    "another kind of text": b'{"id": "x", "text": {"a": 1}}',
    "another kind of title": b'{"id": "x", "text": "t", "title": 3}',
    "nul bytes": b"\0\0\0",
    "an empty key": b'{"id": "x", "text": "t", "metadata": {"": 1}}',
    "no utf-8": b'{"id": "x", "text": "\xff"}',
    "nested metadata": b'{"id": "x", "text": "t", "metadata": {"a": %s1%s}}'
    % (b'{"b":' * 40, b"}" * 40),
}


@pytest.mark.parametrize("kind", sorted(LINES))
def test_a_hostile_line_is_named(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "kb.jsonl"
    file.write_bytes(b'{"id": "ok", "text": "fine"}\n' + LINES[kind] + b"\n")
    with pytest.raises(InputError) as caught:
        list(read_jsonl(file))
    assert f"{file}, line 2" in str(caught.value)


def test_lines_and_files_have_a_largest_size(tmp_path: Path) -> None:
    (tmp_path / "kb.jsonl").write_text('{"id": "ok", "text": "fine"}\n')
    os.truncate(tmp_path / "kb.jsonl", MOST_BYTES + 100)
    with pytest.raises(InputError, match=r"line 2 has more than \d+ bytes"):
        list(read_jsonl(tmp_path / "kb.jsonl"))
    (tmp_path / "a.md").touch()
    os.truncate(tmp_path / "a.md", MOST_BYTES + 1)
    with pytest.raises(InputError, match=r"a\.md cannot be read: .*bytes"):
        read_paths([tmp_path / "a.md"])


def beir(folder: Path) -> None:
    (folder / "qrels").mkdir()
    (folder / "corpus.jsonl").write_text('{"_id": "d", "text": "t"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "t"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")


def test_a_packed_bomb_is_not_unpacked(tmp_path: Path) -> None:
    beir(tmp_path)
    (tmp_path / "corpus.jsonl").unlink()
    lines = (b'{"_id": "%d", "text": "%s"}\n' % (n, b"t" * 2**20) for n in range(80))
    bomb = gzip.compress(b"".join(lines))
    (tmp_path / "corpus.jsonl.gz").write_bytes(bomb)
    with pytest.raises(InputError, match=r"corpus\.jsonl\.gz, line 64: .*200 times its size"):
        read_beir(tmp_path)


@pytest.mark.parametrize("cut", [4, 20, 40])
def test_a_packed_file_that_is_damaged_is_named(tmp_path: Path, cut: int) -> None:
    beir(tmp_path)
    data = gzip.compress((tmp_path / "corpus.jsonl").read_bytes())
    (tmp_path / "corpus.jsonl").unlink()
    (tmp_path / "corpus.jsonl.gz").write_bytes(data[:cut])
    with pytest.raises(InputError, match=r"corpus\.jsonl\.gz, line \d cannot be read"):
        read_beir(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("corpus.jsonl", b"[" * 200_000),
        ("queries.jsonl", b'{"_id": "q", "text": "\xff"}'),
        ("qrels/test.tsv", b"a\nq\td\t\xff"),
        ("qrels/test.tsv", b"a\nq\td\t" + b"9" * 5000),
        ("qrels/test.tsv", b"a\nq\t" + b"d" * 200_000 + b"\t1"),
    ],
)
def test_a_hostile_collection_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    beir(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=Path(name).name) as caught:
        read_beir(tmp_path)
    assert "line" in str(caught.value)
