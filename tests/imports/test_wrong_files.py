"""A file that is no export of the tool is an error that says what it is; one with nothing new is none."""

import gzip
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from exported_samples import FILES, SAMPLES
from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, InputError, Passage
from rag_flywheel.cli.app import main
from rag_flywheel.records import Tool

TOOLS: tuple[Any, ...] = get_args(Tool)
ENDING = {
    "langfuse": "jsonl", "phoenix": "json", "langsmith": "jsonl", "ubi": "ndjson", "trec": "txt", "csv": "csv"
}  # fmt: skip
OF_ALL = [
    *((tool, name) for tool, names in FILES.items() for name in names),
    *(("langfuse", f"langfuse-api-{each}.json") for each in ("observations", "scores", "traces")),
]


@pytest.fixture
def fw(fw: Flywheel, help_desk: list[Passage]) -> Flywheel:
    fw.add(help_desk)
    return fw


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(("of", "name"), OF_ALL)
def test_the_files_of_every_other_tool_are_refused_with_the_command_to_use(
    fw: Flywheel, tmp_path: Path, of: str, name: str, packed: bool
) -> None:
    data = (SAMPLES / name).read_bytes()
    path = tmp_path / (name + ".gz" if packed else name)
    path.write_bytes(gzip.compress(data) if packed else data)
    hint = f"rag-flywheel import {of} {path}"
    for tool in TOOLS:
        if tool == of:
            continue
        with pytest.raises(InputError) as refused:
            fw.import_files(tool, path)
        said = str(refused.value)
        assert name in said and "expected" in said, said
        if name != "trec-topics.tsv":  # which any table of two columns may be
            assert hint in said, (tool, said)
    assert fw.retrievals() == []


@pytest.mark.parametrize("tool", TOOLS)
def test_one_wrong_file_among_right_ones_lets_nothing_in(
    fw: Flywheel, tmp_path: Path, tool: Any
) -> None:
    wrong = tmp_path / f"wrong.{ENDING[tool]}"
    wrong.write_bytes(
        (SAMPLES / ("ubi-events.json" if tool != "ubi" else "votes.csv")).read_bytes()
    )
    right = [SAMPLES / name for name in FILES[tool]]
    with pytest.raises(InputError, match=r"wrong\."):
        fw.import_files(tool, [*right, wrong])
    assert fw.retrievals() == []
    assert fw.import_files(tool, right).retrievals > 0
    again = fw.import_files(tool, right)
    assert (again.retrievals, sum(again.votes.values())) == (0, 0) and again.unchanged > 0


def png() -> bytes:
    def part(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0\0")
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", pixels) + part(b"IEND", b"")


def archive(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as found:
        found.writestr("export.jsonl", data)


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "blank": (lambda p: p.write_bytes(b" \n\t\n"), "is empty"),
    "nothing, packed": (lambda p: p.write_bytes(gzip.compress(b"")), "is empty"),
    "picture": (lambda p: p.write_bytes(png()), "a picture"),
    "picture, packed": (lambda p: p.write_bytes(gzip.compress(png())), "a picture"),
    "pdf": (lambda p: p.write_bytes(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj"), "a PDF"),
    "zip": (lambda p: archive(p, (SAMPLES / "votes.csv").read_bytes()), "ZIP archive"),
    "packed twice": (lambda p: p.write_bytes(gzip.compress(gzip.compress(b"[]"))), "gzip twice"),
    "parquet by another name": (lambda p: p.write_bytes(b"PAR1\x15\x04PAR1"), "is Parquet under"),
    "page": (lambda p: p.write_text("<!doctype html>\n<title>Sign in</title>\n"), "expected"),
    "prose": (lambda p: p.write_text("Dear all,\nhere is the export.\n"), "expected"),
    "other objects": (lambda p: p.write_text('{"name": "a", "size": 3}\n'), "expected"),
    "saved views": (
        lambda p: p.write_text(
            '{"id": "1", "type": "dashboard", "attributes": {"title": "a"}, "version": 1}'
        ),
        "expected",
    ),
    "a schema": (lambda p: p.write_text('{"name": "a", "dataType": "STRING"}'), "expected"),
    "answers of a model": (lambda p: p.write_text('{"id": "1", "output": "yes"}'), "expected"),
    "requests of a client": (
        lambda p: p.write_text('{"post": [{"run_type": "llm", "id": "1"}], "patch": []}'),
        "expected",
    ),
    "a search": (
        lambda p: p.write_text(
            '{"ext": {"ubi": {"query_id": "q", "user_query": "a"}}, "query": {}}'
        ),
        "expected",
    ),
    "an empty object": (lambda p: p.write_text("{}"), "expected"),
    "numbers": (lambda p: p.write_text("[1, 2, 3]"), "expected"),
    "null": (lambda p: p.write_text("null"), "expected"),
    "an error of an API": (lambda p: p.write_text('{"message": "Unauthorized"}'), "expected"),
    "another table": (lambda p: p.write_text("name,size\na,3\nb,4\n"), "expected"),
}


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_export_of_any_tool(
    fw: Flywheel, tmp_path: Path, tool: Any, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words = WRONG[kind]
    for ending in {ENDING[tool], "csv", "json"}:
        path = tmp_path / f"wrong.{ending}"
        make(path)
        for dry_run in (True, False):
            with pytest.raises(InputError) as refused:
                fw.import_files(tool, path, dry_run=dry_run)
            said = str(refused.value)
            assert str(path) in said and words in said and len(said) < 1_500, said
    assert fw.retrievals() == []


RIGHT: dict[str, list[tuple[str, str]]] = {
    "langfuse": [
        ("a.json", "[]"), ("a.json", '{"data": [], "meta": {"page": 1}}'),
        ("a.csv", "id,type,trace_id,start_time,input,output\n"),
        ("a.jsonl", '{"id": "s", "traceId": "t", "type": "SPAN", "startTime": "2026-01-01T00:00:00Z"}'),
    ],
    "phoenix": [("a.json", "[]"), ("a.json", '{"data": [], "next_cursor": null}')],
    "langsmith": [("a.json", '{"runs": []}'), ("a.csv", "id,run_type,inputs,outputs\n")],
    "ubi": [("a.json", "[]"), ("a.json", '{"took": 3, "hits": {"total": 0, "hits": []}}')],
    "trec": [],
    "csv": [("a.csv", "query,passage_id,verdict\n"), ("a.jsonl", "[]")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("tool", "name", "text"), [(t, n, text) for t, files in RIGHT.items() for n, text in files]
)
def test_a_right_file_of_nothing_is_none(
    fw: Flywheel, tmp_path: Path, tool: Any, name: str, text: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    report = fw.import_files(tool, path)
    assert (report.retrievals, report.votes, report.unchanged) == (0, {}, 0)


def test_parquet_of_another_tool(fw: Flywheel, tmp_path: Path) -> None:
    tool: Any
    pa = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    from pyarrow import parquet

    lines = (SAMPLES / "langsmith-runs.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    columns = {key: [json.dumps(row.get(key)) for row in rows] for key in rows[0]}
    path = tmp_path / "some.parquet"
    parquet.write_table(pa.table(columns), path)
    for tool in ("langfuse", "phoenix", "csv", "ubi", "trec"):
        with pytest.raises(InputError):
            fw.import_files(tool, path)
    with pytest.raises(InputError, match="rag-flywheel import langsmith"):
        fw.import_files("langfuse", path)


@pytest.mark.parametrize("tool", TOOLS)
def test_an_empty_file_beside_others_says_nothing(fw: Flywheel, tmp_path: Path, tool: Any) -> None:
    own = [SAMPLES / name for name in FILES[tool]]
    alone = fw.import_files(tool, own, dry_run=True)
    (tmp_path / f"of-a-quiet-day.{ENDING[tool]}").write_text("\n")
    quiet = [*tmp_path.glob("of-a-quiet-day.*")]
    for files in ([*quiet, *own], [*own, *quiet]):
        assert fw.import_files(tool, files, dry_run=True) == alone


def test_questions_of_trec_alone_bring_nothing(fw: Flywheel) -> None:
    with pytest.raises(InputError, match=r"questions alone; expected a run or qrels"):
        fw.import_files("trec", SAMPLES / "trec-topics.tsv")


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, passage = tmp_path / "kb", Passage("reset", "press reset for a new password")
    with Flywheel.open(
        root, encoder=WordEncoder(), config=Config(encoder="fakes:word_encoder")
    ) as fw:
        fw.add([passage])
    for name, code in (("langsmith-runs.jsonl", 1), ("langfuse-scores.jsonl", 0)):
        for more in ([], ["--dry-run"], ["--json"]):
            with pytest.raises(SystemExit) as done:
                main(["import", "langfuse", str(SAMPLES / name), *more, "--index", str(root)])
            assert done.value.code == code, (name, more)
            said = capsys.readouterr()
            assert ("rag-flywheel import langsmith" in said.err + said.out) == bool(code)
