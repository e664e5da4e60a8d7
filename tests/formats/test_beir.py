"""Published collections as they are: what is read, what is left out, and that all of it is counted."""

import gzip
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_flywheel import Flywheel, Passage
from rag_flywheel.errors import InputError
from rag_flywheel.formats.beir import Collection, read_beir
from rag_flywheel.formats.tally import LinesRead
from rag_flywheel.records import AddReport

HEAD = "query-id\tcorpus-id\tscore\n"


def write(folder: Path, corpus: Sequence[object], queries: Sequence[object], **qrels: str) -> Path:
    """A BEIR folder; a string in corpus and queries is a line as it stands."""
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines))
    for split, text in qrels.items():
        (folder / "qrels" / f"{split}.tsv").write_bytes(text.encode())
    return folder


def passage(id_: object, text: object = "some words", **more: object) -> dict[str, object]:
    return {"_id": id_, "title": "", "text": text, "metadata": {}, **more}


def query(id_: object, text: object = "a question") -> dict[str, object]:
    return {"_id": id_, "text": text, "metadata": {}}


TWO = [passage("d1"), passage("d2")]
ASKED = [query("q1"), query("q2")]


def lines_of(found: Collection, file: str) -> LinesRead:
    (lines,) = [lines for lines in found.lines if lines.file == file]
    assert lines.n_lines == lines.n_used + lines.n_header + sum(lines.left_out.values())
    return lines


@pytest.mark.parametrize(
    ("qrels", "n_header"),
    [
        (HEAD + "q1\td1\t1\nq2\td2\t2\n", 1),
        ("q1\td1\t1\nq2\td2\t2\n", 0),  # MS MARCO's own files
        ("q1\t0\td1\t1\nq2\t0\td2\t2\n", 0),
        ("q1 4.5 d1 1\nq2 0.5 d2 2\n", 0),  # TREC-COVID's rounds
        ("query_id\titeration\tdoc_id\trelevance\nq1\tQ0\td1\t1\nq2\tQ0\td2\t2\n", 1),
        ("q1  d1   1\n  q2 d2 2  \n", 0),
        ("qid pid label\nq1 d1 1\nq2 d2 2", 1),
        (HEAD + "q1\td1\t1.0\nq2\td2\t2.\n\n", 1),  # pandas
        ("\ufeff" + HEAD + "q1\td1\t1\r\nq2\td2\t2\r\n", 1),
        ("\ufeffq1\td1\t1\r\nq2\td2\t+2\r\n", 0),
        (HEAD + '"q1"\t"d1"\t1\nq2\td2\t"2"\n', 1),
        ("judgments\nq1\td1\t1\nq2\td2\t2\n", 1),
    ],
)
def test_qrels_as_they_are_written(tmp_path: Path, qrels: str, n_header: int) -> None:
    found = read_beir(write(tmp_path / "b", TWO, ASKED, test=qrels))
    assert found.splits["test"].qrels == {"q1": {"d1": 1}, "q2": {"d2": 2}}
    lines = lines_of(found, "qrels/test")
    assert (lines.n_used, lines.n_header) == (2, n_header)


def test_grades_below_zero_are_kept(tmp_path: Path) -> None:
    found = read_beir(write(tmp_path / "b", TWO, ASKED, test="q1 0 d1 -2\nq1 0 d2 3\n"))
    assert found.splits["test"].qrels == {"q1": {"d1": -2, "d2": 3}}


def test_blank_passages_and_queries_are_counted(tmp_path: Path) -> None:
    """FiQA has passages without a word; frames write null and NaN for them."""
    corpus = [
        passage("d1"),
        passage("blank", ""),
        passage("blanks", " \u3000"),
        passage("null", None, title=None),
        '{"_id": "nan", "title": NaN, "text": NaN}',
        passage("titled", None, title="Fees"),
        "",
        passage(None),
        passage(7, 42),
    ]
    queries = [query("q1"), query("q2", " "), query("q3", None), query(4)]
    qrels = HEAD + "q1\td1\t1\nq1\tblank\t1\nq2\td1\t1\nq3\td1\t1\n4\t7\t1\n"
    found = read_beir(write(tmp_path / "b", corpus, queries, test=qrels))
    assert found.passages == [
        Passage("d1", "some words"),
        Passage("titled", "Fees"),
        Passage("7", "42"),
    ]
    assert found.queries == {"q1": "a question", "4": "a question"}
    assert found.splits["test"].qrels == {"q1": {"d1": 1}, "4": {"7": 1}}
    assert lines_of(found, "corpus").left_out == {
        "neither text nor title": 4,
        "empty line": 1,
        "no id": 1,
    }
    assert lines_of(found, "queries").left_out == {"no text": 2}
    assert lines_of(found, "qrels/test").left_out == {
        "the passage is not there, or blank": 1,
        "the query is not there, or blank": 2,
    }
    assert lines_of(found, "corpus").sentences == [
        "corpus: left out 4 lines: neither text nor title (the first is line 2)",
        "corpus: left out 1 line: no id (the first is line 8)",
    ]


@pytest.mark.parametrize(
    ("corpus", "queries", "qrels", "message", "file"),
    [
        (
            [*TWO, passage("d1", "other")],
            ASKED,
            "q1\td1\t1\n",
            "has the _id 'd1' of line 1",
            "corpus",
        ),
        (TWO, [*ASKED, query("q2")], "q1\td1\t1\n", "has the _id 'q2' of line 2", "queries"),
        (TWO, ASKED, "q1\td1\t1\nq1\td1\t0\n", "gives the grade 0 where .*gave 1", "qrels/test"),
        (TWO, ASKED, "q1\td1\t1\nq1\td2\t0.5\n", "grade '0.5'", "qrels/test"),
        (TWO, ASKED, "q1\td1\t1\nq2\td2\tyes\n", "grade 'yes'", "qrels/test"),
        (TWO, ASKED, "q2\td2\tyes\nq1\td1\t1\n", "names a query, but has no grade", "qrels/test"),
        (TWO, ASKED, "q1\td1\t1\nq2\td2\n", "has 2 columns", "qrels/test"),
        ([*TWO, "{"], ASKED, "q1\td1\t1\n", "line 3 is no JSON", "corpus"),
        (
            [*TWO, passage(["d"])],
            ASKED,
            "q1\td1\t1\n",
            "expected a string or whole number",
            "corpus",
        ),
        ([*TWO, passage("d3", {"a": 1})], ASKED, "q1\td1\t1\n", "text is dict", "corpus"),
        (TWO, [*ASKED, '{"_id": "q3"}'], "q1\td1\t1\n", "has no _id and text", "queries"),
        ([*TWO, '{"_id": "x", "text": "\\ud800"}'], ASKED, "q1\td1\t1\n", "surrogate", "corpus"),
    ],
)
def test_what_is_refused_has_a_way_on(
    tmp_path: Path,
    corpus: Sequence[object],
    queries: Sequence[object],
    qrels: str,
    message: str,
    file: str,
) -> None:
    folder = write(tmp_path / "b", corpus, queries, test=qrels)
    with pytest.raises(InputError, match=f"{message}.*lenient=True, --lenient in a shell"):
        read_beir(folder)
    found = read_beir(folder, lenient=True)
    assert found.splits["test"].qrels == {"q1": {"d1": 1}}
    assert found.passages[0].text == "some words"  # the first of two
    assert sum(lines_of(found, file).left_out.values()) == 1


def test_a_judgment_that_comes_again_counts_once(tmp_path: Path) -> None:
    found = read_beir(write(tmp_path / "b", TWO, ASKED, test=HEAD + "q1\td1\t1\n" * 3))
    assert found.splits["test"].qrels == {"q1": {"d1": 1}}
    assert lines_of(found, "qrels/test").left_out == {"the same judgment again": 2}


def test_queries_that_are_passages_are_named(tmp_path: Path) -> None:
    """ArguAna: each query is a passage of the same id."""
    found = read_beir(
        write(tmp_path / "b", TWO, [query("d1"), query("q")], test="d1\td2\t1\nq\td1\t1\n")
    )
    assert found.splits["test"].own == {"d1"}


def test_a_quote_left_open_does_not_swallow_lines(tmp_path: Path) -> None:
    folder = write(tmp_path / "b", TWO, ASKED, test=HEAD + 'q1\td1\t1\nq2\t"d2\t1\nq1\td2\t1\n')
    with pytest.raises(InputError, match=r"test\.tsv, line 4 has 2 columns"):
        read_beir(folder)
    lines = lines_of(read_beir(folder, lenient=True), "qrels/test")
    assert lines.left_out == {"no query, passage and grade": 2}
    assert lines.first == {"no query, passage and grade": 3}


def test_what_is_there_instead_is_said(tmp_path: Path) -> None:
    (tmp_path / "cqadupstack" / "android").mkdir(parents=True)
    (tmp_path / "cqadupstack" / "android" / "corpus.jsonl").touch()
    with pytest.raises(InputError, match=r"no corpus\.jsonl.*: give one of the 1 in it, android"):
        read_beir(tmp_path / "cqadupstack")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "corpus.jsonl.zst").touch()
    with pytest.raises(InputError, match=r"unpack corpus\.jsonl\.zst, or pack it as \.gz"):
        read_beir(tmp_path / "packed")
    write(tmp_path / "flat", TWO, ASKED)
    (tmp_path / "flat" / "qrels" / "test.csv").touch()
    with pytest.raises(InputError, match=r"qrels holds no \.tsv file, but test\.csv; expected"):
        read_beir(tmp_path / "flat")


def test_packed_qrels_and_files_that_begin_with_a_point(tmp_path: Path) -> None:
    folder = write(tmp_path / "b", TWO, ASKED, train=HEAD + "q1\td1\t1\n")
    (folder / "qrels" / "test.tsv.gz").write_bytes(gzip.compress(b"q2\td2\t1\n"))
    (folder / "qrels" / "._train.tsv").write_bytes(b"\0\5\x16\7")  # written by macOS
    splits = read_beir(folder).splits
    assert {name: split.qrels for name, split in splits.items()} == {
        "train": {"q1": {"d1": 1}},
        "test": {"q2": {"d2": 1}},
    }


ODD_CORPUS = st.sampled_from(
    [
        *(passage(f"d{n}") for n in range(4)),
        *(passage(n, "text") for n in range(3)),
        passage("d9", ""),
        passage("d8", None, title="a title"),
        passage("d7", []),
        passage(None),
        passage(True),
        "",
        "  ",
        "{",
        "[]",
        "null",
        '{"_id": "d6"}',
        '{"_id": "nan", "text": NaN}',
    ]
)
ODD_QUERIES = st.sampled_from(
    [
        *(query(f"q{n}") for n in range(4)),
        query(5),
        query("q8", None),
        query("q9", " "),
        "",
        "x",
        "3",
    ]
)
IDS = st.sampled_from(["q0", "q1", "q2", "5", "q8", "nobody", "a b", ""])
GRADES = st.sampled_from(["0", "1", "2", "1.0", "-1", "0.5", "", "x", " 1 "])
ROWS = st.one_of(
    st.tuples(IDS, st.sampled_from(["d0", "d1", "0", "d9", "gone"]), GRADES).map("\t".join),
    st.tuples(IDS, st.just("0"), st.sampled_from(["d0", "d1"]), GRADES).map("\t".join),
    st.sampled_from(["", "   ", "\t\t", "q0 d0 1", "q0\td0", "q0\t0\td0\t1\t2", "q0\t'd0'\t1"]),
)


@settings(max_examples=150, deadline=None)
@given(
    corpus=st.lists(ODD_CORPUS, max_size=12),
    queries=st.lists(ODD_QUERIES, max_size=8),
    rows=st.lists(ROWS, max_size=15),
    header=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_every_line_is_used_or_counted(
    corpus: list[object], queries: list[object], rows: list[str], header: bool, end: str
) -> None:
    with tempfile.TemporaryDirectory() as name:
        lines = [*([HEAD.strip()] if header else []), *rows]
        text = "".join(line + end for line in lines)
        found = read_beir(write(Path(name) / "b", corpus, queries, test=text), lenient=True)
    counts = {file: lines_of(found, file) for file in ("corpus", "queries", "qrels/test")}
    assert counts["corpus"].n_lines == len(corpus)
    assert counts["corpus"].n_used == len(found.passages)
    assert counts["queries"].n_lines == len(queries)
    assert counts["queries"].n_used == len(found.queries)
    assert counts["qrels/test"].n_lines == len(lines)
    qrels = found.splits["test"].qrels
    assert counts["qrels/test"].n_used == sum(map(len, qrels.values()))
    assert counts["qrels/test"].n_header <= 1
    assert set(qrels) <= set(found.queries)
    ids = Counter(p.id for p in found.passages)
    assert max(ids.values(), default=1) == 1
    assert {p for graded in qrels.values() for p in graded} <= set(ids)


@pytest.fixture
def desk(fw: Flywheel, help_desk: list[Passage]) -> Flywheel:
    fw.add(help_desk)
    return fw


@pytest.mark.parametrize(
    "qrels",
    [
        "q1\treset\t1\n",
        "q1\t0\treset\t1\n",
        "q1 0 reset 1\n",
        "\ufeff" + HEAD + "q1\treset\t1.0\r\n",
    ],
)
def test_known_answers_are_read_from_the_same_qrels(
    desk: Flywheel, tmp_path: Path, qrels: str
) -> None:
    folder = write(tmp_path / "b", [], [query("q1", "I forgot my password")], test=qrels)
    assert desk.golden.add(folder) == AddReport(1, 0, 0)


def test_known_answers_that_cannot_be_used_are_counted_when_asked_to(
    desk: Flywheel, tmp_path: Path
) -> None:
    queries = [
        query("q1", "I forgot my password"),
        query("q2", " "),
        query("q1"),
        query("q3", "pay"),
    ]
    qrels = "q1\treset\t1\nq2\treset\t1\nq3\tgone\t1\nq4\treset\t1\nq3\trefund\tx\nq3\trefund\t2\n"
    folder = write(tmp_path / "b", [], queries, test=qrels, dev="q3\tcats\t0\n")
    with pytest.raises(InputError, match=r"further such lines: 3.*Nothing was added; .*--lenient"):
        desk.golden.add(folder)
    left_out = {
        "no usable object": 2,  # the blank query, and the id that came before
        "no query, passage and grade": 1,
        "the query is not there, or blank": 2,
        "the passage is not in the index": 1,
    }
    assert desk.golden.add(folder, lenient=True) == AddReport(2, 0, 0, left_out=left_out)
    assert desk.golden.add(folder, split="all", lenient=True) == AddReport(
        1, 0, 2, left_out=left_out
    )


def test_a_whole_export_is_read_back(desk: Flywheel, tmp_path: Path) -> None:
    for n in range(30):
        found = desk.retrieve(f"question number {n} of money", user_id=f"u{n}")
        desk.feedback(found.id, found.hits[0].passage_id, "helpful", user_id=f"u{n}")
    report = desk.export.beir(tmp_path / "out")
    n_added = desk.golden.add(tmp_path / "out", split="all").added
    assert n_added == report.written["judgments"] == 30
    found_ = read_beir(tmp_path / "out")
    assert not [lines for lines in found_.lines if lines.left_out]
    assert sum(lines.n_used for lines in found_.lines) == report.written["passages"] + 2 * 30
