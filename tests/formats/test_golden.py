"""Known answers in files: what may be in one, what is refused, and that an export says it all."""

import gzip
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import Vectors, WordEncoder
from known import QUERY, assert_same, corrected, imported, known, table
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.errors import ClosedError, InputError
from rag_flywheel.formats.beir import read_beir
from rag_flywheel.records import AddReport
from rag_flywheel.store.passages import query_digest


@pytest.fixture
def desk(fw: Flywheel, help_desk: list[Passage]) -> Flywheel:
    fw.add(help_desk)
    return fw


def beir(folder: Path, queries: str | bytes, qrels: str, *, packed: bool = False) -> Path:
    (folder / "qrels").mkdir(parents=True)
    data = queries.encode() if isinstance(queries, str) else queries
    if packed:
        (folder / "queries.jsonl.gz").write_bytes(gzip.compress(data, 1))
    else:
        (folder / "queries.jsonl").write_bytes(data)
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{qrels}")
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_a_beir_folder_is_read(desk: Flywheel, tmp_path: Path, packed: bool) -> None:
    lines = [{"_id": 7, "text": QUERY}, {"_id": "q", "text": "money"}, {"_id": "r", "text": " "}]
    text = "\n".join(map(json.dumps, lines))
    folder = beir(tmp_path / "b", text, "7\treset\t2\n\nq\trefund\t1\nq\tcats\t0\n", packed=packed)
    (folder / "qrels" / "dev.tsv").write_text("a\tb\tc\n7\tsecret\t1\n")
    assert desk.golden.add(folder) == AddReport(3, 0, 0)
    assert desk.golden.add(folder, split="dev") == AddReport(1, 0, 0)
    assert {q: a for q, (a, _) in known(desk).items()} == {
        QUERY: {"reset": 2, "secret": 1},
        "money": {"refund": 1, "cats": 0},
    }


HEAD = "query,passage_id,grade\n"
BAD_TABLES: dict[str, tuple[str | bytes, str]] = {
    "no header": ("money,refund,1\n", "line 1 is 'money,refund,1'; expected the header"),
    "nothing": ("", "line 1 is ''; expected the header"),
    "unknown column": ("query,passage_id,score\n", "expected the header query, passage_id"),
    "a column twice": ("query,query,passage_id\n", "expected the header query, passage_id"),
    "semicolons": ("query;passage_id\n", "expected the header query, passage_id"),
    "unknown passage": (
        f"{HEAD}q,reset,1\nq,nope,1\nq,no2,1\nq,no3,1\n",
        r"line 3 names the passage 'nope'.*\(further such lines: 2\). Nothing was added",
    ),
    "no passage": (f"{HEAD}q,,1\n", "line 2 names the passage ''; expected one of this index"),
    "empty query": (f"{HEAD},reset,1\n", "line 2: query is empty or blank"),
    "blank query": (f"{HEAD}q,reset,1\n  ,reset,1\n", "line 3: query is empty or blank"),
    "long query": (f"{HEAD}{'w ' * 6000},reset,1\n", "line 2: query has 12000 characters"),
    "grade word": (f"{HEAD}q,reset,good\n", "line 2 has the grade 'good'; expected a whole num"),
    "grade -1": (f"{HEAD}q,reset,-1\n", "has the grade '-1'"),
    "grade 1.5": (f"{HEAD}q,reset,1.5\n", "has the grade '1.5'"),
    "grade 101": (f"{HEAD}q,reset,101\n", "has the grade '101'.*from 0 .* to 100"),
    "grade of a thousand figures": (f"{HEAD}q,reset,{'9' * 1000}\n", "has the grade '9999"),
    "no grade": (f"{HEAD}q,reset,\n", "line 2 has the grade ''"),
    "two grades": (
        f"{HEAD}q,reset,1\nq,reset,2\n",
        "line 3 gives the grade 2 where .*line 2 gave 1",
    ),
    "too few cells": (f"{HEAD}q,reset\n", "line 2 has 2 columns; expected 3"),
    "too many cells": (f"{HEAD}to be, or not,reset,1\n", "line 2 has 4 columns; expected 3"),
    "open quote": (f'{HEAD}"q,reset,1\n', "line 2 cannot be taken apart"),
    "quote in a cell": (f'{HEAD}"q"x,reset,1\n', "line 2 cannot be taken apart"),
    "carriage return": (f"{HEAD}a\rb,reset,1\n", "cannot be taken apart"),
    "latin-1": (HEAD.encode() + "bücher,reset,1\n".encode("latin-1"), "line 2 is not UTF-8"),
    "utf-16": ("query,passage_id\n".encode("utf-16"), "line 1 has a NUL byte"),
    "NUL": (f"{HEAD}q\0,reset,1\n", "line 2 has a NUL byte; expected text in UTF-8"),
    "a line of 1 MB": (f"{HEAD}q,reset,1\n{'x' * 1_000_001}", "line 3 is longer than 1 MB"),
    "a cell of 200 kB": (f"{HEAD}{'x' * 200_000},reset,1\n", "line 2 cannot be taken apart"),
    "too many rows": (
        HEAD + "q,reset,1\n" * 100_001,
        "line 100002 is row 100001; expected at most 100000",
    ),
    "tenant": (
        "query,passage_id,tenant\nq,reset,acme\n",
        "tenant is 'acme'; expected JSON such as \"",
    ),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name == "too many rows"))
        for name in BAD_TABLES
    ],
)
def test_a_bad_table_says_what_is_wrong_and_adds_nothing(
    desk: Flywheel, tmp_path: Path, name: str
) -> None:
    text, words = BAD_TABLES[name]
    path = tmp_path / "known.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=words) as error:
        desk.golden.add(path)
    assert str(error.value).startswith(str(path))
    assert len(str(error.value)) < 600
    assert known(desk) == {}


GOOD = '{"_id": "q", "text": "money"}\n'
BLANK_LINES = b"".join([b" " * 900_000 + b"\n"] * 290)
BAD_FOLDERS: dict[str, tuple[str | bytes, str, str]] = {
    "no JSON": (GOOD + "{", "q\treset\t1\n", "queries.jsonl, line 2 is no JSON"),
    "deep": (GOOD + "[" * 500_000, "q\treset\t1\n", "queries.jsonl, line 2 is no JSON"),
    "a list": (GOOD + "[]", "q\treset\t1\n", "queries.jsonl, line 2 has no _id and text"),
    "no text": ('{"_id": "q"}', "q\treset\t1\n", "line 1 has no _id and text"),
    "text 3": ('{"_id": "q", "text": 3}', "q\treset\t1\n", "line 1: query is int; expected a str"),
    "blank": ('{"_id": "q", "text": ""}', "q\treset\t1\n", "line 1: query is empty or blank"),
    "half": ('{"_id": "q", "text": "\\ud83d"}', "q\treset\t1\n", "line 1: query has .* surrogate"),
    "id true": ('{"_id": true, "text": "q"}', "q\treset\t1\n", "line 1 has no _id and text"),
    "twice": (GOOD + GOOD, "q\treset\t1\n", "line 2 has the _id 'q' again"),
    "tenant": (
        '{"_id": "q", "text": "x", "metadata": {"tenant": []}}',
        "q\tcats\t1\n",
        "tenant is",
    ),
    "no query": (GOOD, "x\treset\t1\n", "test.tsv, line 2 names the query 'x'"),
    "no passage": (GOOD, "q\tnope\t1\n", "test.tsv, line 2 names the passage 'nope'"),
    "spaces": (GOOD, "q reset 1\n", "test.tsv, line 2 has 1 column; expected query id"),
    "five": (GOOD, "q\t0\treset\t1\t1\n", "test.tsv, line 2 has 5 columns"),
    "half a grade": (GOOD, "q\treset\t0.5\n", "test.tsv, line 2 has the grade '0.5'"),
    "a grade below 0": (GOOD, "q\treset\t-1\n", "test.tsv, line 2 has the grade '-1'"),
    "grade": (GOOD, "q\treset\tx\n", "test.tsv, line 2 has the grade 'x'"),
}


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_a_bad_folder_says_what_is_wrong_and_adds_nothing(
    desk: Flywheel, tmp_path: Path, name: str
) -> None:
    queries, qrels, words = BAD_FOLDERS[name]
    with pytest.raises(InputError, match=words):
        desk.golden.add(beir(tmp_path / "b", queries, qrels))
    assert known(desk) == {}


@pytest.mark.slow
def test_packed_files_are_read_within_bounds(desk: Flywheel, tmp_path: Path) -> None:
    bombs = {
        "long": (b"x" * 50_000_000, "line 1 is longer than 1 MB"),
        "high": (BLANK_LINES, "line 285 is beyond 256 MB, unpacked"),
    }
    for name, (data, words) in bombs.items():
        folder = beir(tmp_path / name, data, "q\treset\t1\n", packed=True)
        assert (folder / "queries.jsonl.gz").stat().st_size < 2_000_000
        with pytest.raises(InputError, match=words):
            desk.golden.add(folder)
    whole = gzip.compress(GOOD.encode() * 100)
    for damaged in (whole[:-9], b"no gzip at all", whole[:20] + b"\xff" * 20 + whole[40:]):
        (folder / "queries.jsonl.gz").write_bytes(damaged)
        with pytest.raises(InputError, match="is no whole gzip file"):
            desk.golden.add(folder)
    assert known(desk) == {}


def test_bad_places(desk: Flywheel, tmp_path: Path) -> None:
    (tmp_path / "known.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "queries.jsonl").write_text("")
    beir(tmp_path / "another", GOOD, "")
    (tmp_path / "another" / "qrels" / "test.tsv").rename(tmp_path / "another" / "qrels" / "dev.tsv")
    for place, words in {
        "gone": "no file or folder .*gone; expected a BEIR folder",
        "known.json": "is no folder, .csv or .tsv",
        "empty": "has no queries.jsonl or queries.jsonl.gz; expected a BEIR folder",
        "half": "qrels holds no .tsv file, but nothing; expected test.tsv",
        "another": "has no qrels/test.tsv; expected it: name another split, of dev, or all",
    }.items():
        with pytest.raises(InputError, match=words):
            desk.golden.add(tmp_path / place)
    for bad in (None, 3, "a\0b"):
        with pytest.raises(InputError, match=r"path is .*; expected the name"):
            desk.golden.add(bad)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"path is .*; expected the name"):
            desk.golden.export(bad)  # type: ignore[arg-type]
    for split in ("../dev", "", None):
        with pytest.raises(InputError, match=r"split is .*; expected a name such as test"):
            desk.golden.add(tmp_path / "half", split=split)  # type: ignore[arg-type]


NASTY = st.text(st.sampled_from("ab \t\r\n\"',;\\é👍\u2028\x85\ufeff#-=."), min_size=1, max_size=6)
IDS = st.lists(NASTY.filter(str.strip), min_size=2, max_size=3, unique=True)
TEXTS = st.lists(NASTY.filter(str.strip), min_size=1, max_size=6, unique_by=query_digest)


@settings(max_examples=8, deadline=None)
@given(ids=IDS, texts=TEXTS, data=st.data())
def test_what_was_exported_is_imported_as_the_same_items(
    ids: list[str], texts: list[str], data: st.DataObject
) -> None:
    passages = [Passage(id_, f"text {n}") for n, id_ in enumerate(ids)]
    pairs = st.tuples(st.sampled_from(texts), st.sampled_from(ids))
    rows = data.draw(st.dictionaries(pairs, st.integers(0, 3), min_size=1, max_size=12))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "queries.jsonl").write_text(
            "".join(json.dumps({"_id": str(n), "text": t}) + "\n" for n, t in enumerate(texts))
        )
        (folder / "qrels").mkdir()
        lines = ["query-id\tcorpus-id\tscore"] + [
            f'{texts.index(t)}\t"{p.replace(chr(34), chr(34) * 2)}"\t{g}'
            for (t, p), g in rows.items()
        ]
        (folder / "qrels" / "test.tsv").write_text("\n".join(lines), newline="")
        with Flywheel.open(folder / "kb", encoder=WordEncoder()) as fw:
            fw.add(passages)
            fw.golden.add(folder)
            items = fw.golden.items()
            answered = {text for (text, _), grade in rows.items() if grade}
            assert {i.query for i in items} <= answered
            assert bool(items) == bool(answered)
            for out in ("out", "out.csv", "out.tsv"):
                fw.golden.export(folder / out)
                assert_same(folder / f"kb-{out}", passages, folder / out, items)
                fw.golden.add(folder / out)  # into the same index: nothing new
                assert fw.golden.items() == items


def test_what_is_exported_is_a_collection_to_measure_on(desk: Flywheel, tmp_path: Path) -> None:
    imported(desk, tmp_path, table({(QUERY, "reset"): 2, (QUERY, "cats"): 0}))
    assert desk.golden.export(tmp_path / "out") == 1
    desk.export.beir(tmp_path / "all")
    (tmp_path / "all" / "corpus.jsonl").rename(tmp_path / "out" / "corpus.jsonl")
    split = read_beir(tmp_path / "out").splits["test"]
    id_ = query_digest(QUERY).hex()
    assert (split.queries, split.qrels) == ({id_: QUERY}, {id_: {"cats": 0, "reset": 2}})
    desk.golden.export(tmp_path / "out.csv")
    expected = f"query,passage_id,grade\n{QUERY},cats,0\n{QUERY},reset,2\n"
    assert (tmp_path / "out.csv").read_text() == expected


def test_export_overwrites_nothing(desk: Flywheel, tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    for place, words in {
        "there.csv": "is there already; expected a new file",
        "full": "is not empty; expected a new or empty folder",
        "kb/known": "is in the index folder; expected a new folder outside it",
        "kb/known.csv": "is in the index folder; expected a file outside it",
    }.items():
        with pytest.raises(InputError, match=words):
            desk.golden.export(tmp_path / place)
    assert (tmp_path / "there.csv").read_text() == "mine"
    desk.add([Passage("a\0b", "some words")])
    corrected(desk, QUERY, "a\0b")
    for place in ("new", "new.csv"):
        with pytest.raises(InputError, match="has a NUL byte, which no file can hold"):
            desk.golden.export(tmp_path / place)
        assert not (tmp_path / place).exists()


def test_a_closed_index_has_no_golden_set(desk: Flywheel, tmp_path: Path) -> None:
    golden = desk.golden
    desk.close()
    for call in (golden.items, lambda: golden.add(tmp_path), lambda: golden.export(tmp_path / "x")):
        with pytest.raises(ClosedError):
            call()


def test_tenants_are_kept_apart(tmp_path: Path, help_desk: list[Passage]) -> None:
    config = Config(encoder="", tenant_key="lang", tenant_required=False)
    with Flywheel.open(tmp_path / "t", encoder=WordEncoder(), config=config) as fw:
        fw.add(help_desk)
        for lang, passage in (("en", "secret"), ("de", "cats")):
            shown = fw.retrieve(QUERY, k=10, where={"lang": lang})
            fw.correct(shown.id, passage, user_id="ann")
        found = {i.tenant: i.answers for i in fw.golden.items()}
        assert found == {'"en"': {"secret": 1}, '"de"': {"cats": 1}}
        before = fw.golden.items()
        for name in ("out", "out.csv", "out.tsv"):
            assert fw.golden.export(tmp_path / name) == 2
        assert_same(tmp_path / "copy", help_desk, tmp_path / "out", before)
        assert_same(tmp_path / "copy2", help_desk, tmp_path / "out.csv", before)
        assert_same(tmp_path / "copy3", help_desk, tmp_path / "out.tsv", before)


class AngleEncoder(WordEncoder):
    """A text is the direction, in the plane, of the number that it ends in."""

    def __init__(self) -> None:
        super().__init__(dim=2, name="angles")

    def _encode(self, texts: Sequence[str]) -> Vectors:
        angles = np.radians([float(text.split()[-1]) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_items_are_merged_until_none_are_near_duplicates(tmp_path: Path) -> None:
    # The typical cosine falls as items merge, so that near-duplicates may lie further apart: up to
    # 20.4 degrees among all five, 21.8 once 20.1 is merged, 25.9 once 64 is merged into 43.
    passages = [Passage(id_, f"{id_} to 0") for id_ in "pqrs"]
    rows = {("go 20", "p"): 1, ("go 20.1", "p"): 1, ("go 43", "q"): 1}
    rows |= {("go 64", "r"): 1, ("go 150", "s"): 1}
    with Flywheel.open(tmp_path / "kb", encoder=AngleEncoder()) as fw:
        fw.add(passages)
        imported(fw, tmp_path, table(rows))
        found = fw.golden.items()
        assert sorted(sorted(item.answers) for item in found) == [["p", "q", "r"], ["s"]]
        fw.golden.export(tmp_path / "out")
    with Flywheel.open(tmp_path / "copy", encoder=AngleEncoder()) as fw:
        fw.add(passages)
        fw.golden.add(tmp_path / "out")
        assert fw.golden.items() == found
