"""Tables are read as spreadsheets and data frames write them, and what is no table is refused by name."""

import csv
import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

from rag_flywheel import Flywheel, InputError, Passage

HEADER = ["query", "passage_id", "verdict", "user", "time"]
ROWS = [
    ["a new password; or two, \t please", "reset", "helpful", "ann", "2026-03-01T10:00:00+02:00"],
    ['he said "refund"\nand left', "refund", "harmful", "bob", "2026-03-02"],
]


@pytest.fixture
def fw(fw: Flywheel, help_desk: list[Passage]) -> Flywheel:
    fw.add(help_desk)
    return fw


def table(separator: str = ",", end: str = "\n", names: list[str] | None = None) -> str:
    def cells(row: list[str]) -> str:
        return separator.join('"' + cell.replace('"', '""') + '"' for cell in row)

    return end.join([separator.join(names or HEADER), *map(cells, ROWS), ""])


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("votes.csv", table()),
        ("votes.CSV", table()),
        ("votes.2026.Csv", table(";")),
        ("semicolons.csv", table(";", "\r\n")),
        ("tabs.csv", table("\t")),
        ("VOTES.TSV", table("\t")),
        ("commas.tsv", table(",")),
        ("mark.csv", "\ufeff" + table(";")),
        ("named.csv", "sep=;\r\n" + table(";", "\r\n")),
        ("named.csv", '"sep=\t"\n' + table("\t")),
        ("blank.csv", "\n \n" + table()),
        ("case.csv", table(names=["Query", "Passage_ID", " VERDICT", "User_Id ", "Time"])),
        ("words.csv", table(names=["Query", "Passage ID", "Verdict", "user-id", "Time"])),
        ("packed.csv.gz", table(";")),
        ("packed.CSV.GZ", table()),
    ],
)
def test_the_same_votes_however_the_table_is_written(
    fw: Flywheel, tmp_path: Path, name: str, data: str
) -> None:
    packed = name.lower().endswith(".gz")
    path = tmp_path / name
    path.write_bytes(gzip.compress(data.encode()) if packed else data.encode())
    report = fw.import_files("csv", path)
    assert (report.retrievals, dict(report.votes), dict(report.left_out)) == (2, {"vote": 2}, {})
    found = [(j.query, j.passage_id, j.helpful > 0) for j in fw.judgments()]
    assert found == [(ROWS[0][0], "reset", True), (ROWS[1][0], "refund", False)]


def test_columns_and_lines_that_a_spreadsheet_adds_are_not_read(
    fw: Flywheel, tmp_path: Path
) -> None:
    path = tmp_path / "votes.csv"
    path.write_text("query,passage_id,verdict,, \nhow,reset,helpful,,\n")
    assert fw.import_files("csv", path).votes == {"vote": 1}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("votes.xlsx", "PK", r"votes\.xlsx ends in '\.xlsx'; expected .* \.csv, \.tsv, \.jsonl"),
        ("votes.csv.bz2", "BZ", r"ends in '\.bz2'; expected"),
        ("votes", table(), r"ends in ''; expected"),
        ("votes.csv.txt", table(), r"ends in '\.txt'; expected"),
        ("binary.csv", "PK\3\4\0\0", r"is a ZIP archive.*; expected a table with query or"),
        ("empty.csv", "question;who\n", r"has the columns 'question', 'who'; expected query"),
        ("twice.csv", "query,verdict,user,user\n", r"line 1 names the column 'user' twice"),
        ("sep.csv", "sep=,\nquery,query,verdict\n", r"line 2 names the column 'query' twice"),
        (
            "two.csv",
            "query,verdict,user,User_ID\nhow,helpful,ann,bob\n",
            r"line 2 has the column 'user' twice, once as 'User_ID'; expected one of them",
        ),
        (
            "two.jsonl",
            json.dumps({"query": "how", "verdict": "helpful", "at": 1.8e9, "time": 1.7e9}),
            r"line 1 has the column 'time' twice, once as 'time'; expected one of them",
        ),
        ("cells.csv", "\nquery,verdict\nhow\n", r"line 3 has 1 column; expected 2"),
        ("cells.csv", 'sep=,\nquery,verdict\nhow,"x" y\n', r"line 3 cannot be taken apart"),
    ],
)
def test_what_is_no_table_is_refused_by_what_was_found(
    fw: Flywheel, tmp_path: Path, name: str, data: str, message: str
) -> None:
    path = tmp_path / name
    path.write_text(data)
    with pytest.raises(InputError, match=message):
        fw.import_files("csv", path)
    assert fw.status().n_retrievals == 0


def test_very_many_columns_take_no_longer_than_they_are(fw: Flywheel, tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    path.write_text(",".join(f"c{i}" for i in range(60_000)) + "\n", encoding="utf-8")
    began = time.process_time()
    with pytest.raises(InputError, match="has the columns 'c0', 'c1'"):
        fw.import_files("csv", path)
    assert time.process_time() - began < 5.0  # comparing each name with each took over a minute


@pytest.mark.parametrize("tool", ["csv", "phoenix"])
def test_parquet_whose_end_is_damaged_is_a_wrong_file(
    fw: Flywheel, tmp_path: Path, tool: Any
) -> None:
    pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    path = tmp_path / "votes.parquet"
    for data in (b"", bytes(100), b"\x7f" * 100, bytes(92) + (90).to_bytes(4, "little")):
        path.write_bytes(b"PAR1" + data + b"PAR1")
        with pytest.raises(InputError, match="export it anew"):
            fw.import_files(tool, path)


def test_a_folder_is_no_file(fw: Flywheel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; expected files: name those"):
        fw.import_files("langfuse", tmp_path)
    with pytest.raises(InputError, match=r"no file .*; expected a table with query"):
        fw.import_files("csv", tmp_path / "gone.csv")


@pytest.mark.parametrize("tool", ["langfuse", "langsmith", "phoenix"])
def test_the_tables_of_tools_are_known_by_their_ending_in_any_case(
    fw: Flywheel, tmp_path: Path, tool: str
) -> None:
    path = tmp_path / "rows.CSV"
    path.write_text("sep=;\nid;who\n1;ann\n")
    with pytest.raises(InputError, match="found rows with 'id', 'who'; expected"):
        fw.import_files(tool, path)  # type: ignore[arg-type]


def test_numbers_of_data_frames(fw: Flywheel, tmp_path: Path) -> None:
    """A column of whole numbers, of which some are missing, is one of numbers with a point."""
    path = tmp_path / "votes.jsonl"
    rows = [
        {"retrieval_id": 7.0, "query": "how", "passage_id": "reset", "verdict": 1.0, "user": 3.0},
        {"retrieval_id": 7, "query": "how", "passage_id": "refund", "verdict": 0.0, "user": 3},
        {"retrieval_id": 10**25, "query": "how", "passage_id": "reset", "verdict": 1},
        {"retrieval_id": 10**25 + 1, "query": "how", "passage_id": "reset", "verdict": 0},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    report = fw.import_files("csv", path)
    assert (report.retrievals, dict(report.votes)) == (3, {"vote": 4})
    fw.export.votes(tmp_path / "out.jsonl")
    users = {json.loads(line)["user"] for line in (tmp_path / "out.jsonl").read_text().splitlines()}
    assert len(users - {None}) == 1


def test_a_table_of_another_program_comes_in(fw: Flywheel, tmp_path: Path) -> None:
    """As Python's own csv module writes the dialect of Excel."""
    path = tmp_path / "votes.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, dialect="excel", delimiter=";").writerows([HEADER, *ROWS])
    assert fw.import_files("csv", path).votes == {"vote": 2}
