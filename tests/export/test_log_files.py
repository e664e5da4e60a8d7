"""Votes, judgments and retrievals as rows: the same as the library returns, of one moment, whole or not."""

import csv
import io
import json
import os
import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exported import EXPORTS, jsonl, table
from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.errors import ClosedError, ConfigError, InputError, StorageError
from rag_flywheel.formats import row_files
from rag_flywheel.formats.printable import cell_as_written
from rag_flywheel.formats.row_files import Column, write_rows

HOSTILE = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "'=1",
    "''@x",
    "＝1",
    "plain",
    "a,b",
    'say "x"',
]


@pytest.fixture
def voted(fw: Flywheel, help_desk: list[Passage]) -> Flywheel:
    """Every kind of feedback there is."""
    fw.add([*help_desk, Passage("=cmd", "an id that begins like a formula")])
    for n, user in enumerate(("ann", "bob", None)):
        shown = fw.retrieve(
            f"=password {n}", user_id=user, session_id=f"s{n}", where={"lang": "en"}
        )
        assert shown.id is not None
        fw.answer(shown.id, "@an answer\nof two lines")
        fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id=user, reason="=1+1")
        fw.feedback(shown.id, shown.hits[1].passage_id, "harmful", user_id=user)
        fw.answer_feedback(shown.id, "harmful", user_id=user)
        fw.signal(shown.id, "copied", passage_id=shown.hits[0].passage_id, user_id=user)
        fw.correct(shown.id, "refund", user_id=user)
        fw.feedback(shown.id, shown.hits[1].passage_id, "retract", user_id=user)
    return fw


def as_json(record: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(asdict(record)))  # type: ignore[call-overload]
    return found


def test_rows_are_what_the_library_returns_the_oldest_first(
    voted: Flywheel, tmp_path: Path
) -> None:
    report = voted.export.votes(tmp_path / "votes.jsonl")
    found = jsonl(tmp_path / "votes.jsonl")
    sessions = {r.id: r.session for r in voted.retrievals()}
    assert {v["session"] for v in found} == set(sessions.values())
    assert all(v.pop("session") == sessions[v["retrieval_id"]] for v in found)
    shares = [v.pop("shares") for v in found]
    times = [v["at"] for v in found]
    assert times == sorted(times) and len(set(times)) == len(times)  # to the microsecond
    assert [to_the_second(v) for v in found] == [as_json(v) for v in reversed(voted.votes(100))]
    for vote, parts in zip(found, shares, strict=True):
        if vote["kind"] in {"vote", "correction"}:
            assert parts is None
        else:
            assert set(parts) <= {h.passage_id for h in voted.retrieval(vote["retrieval_id"]).hits}
            assert parts and 0 <= sum(parts.values()) <= 1
    assert (report.written, report.left_out) == ({"votes": len(found)}, {})
    voted.export.retrievals(tmp_path / "retrievals.jsonl")
    found = [to_the_second(r) for r in jsonl(tmp_path / "retrievals.jsonl")]
    assert found == [as_json(r) for r in reversed(voted.retrievals(100))]
    voted.export.judgments(tmp_path / "judgments.jsonl")
    assert jsonl(tmp_path / "judgments.jsonl") == [as_json(j) for j in voted.judgments()]


def to_the_second(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"at": f"{row['at'][:19]}Z"}


@pytest.mark.parametrize("what", ["votes", "judgments", "retrievals"])
def test_a_table_holds_the_same_as_lines_of_json(
    voted: Flywheel, what: str, tmp_path: Path
) -> None:
    for ending in (".jsonl", ".csv"):
        getattr(voted.export, what)(tmp_path / f"{what}{ending}")
    cells = table(tmp_path / f"{what}.csv")
    expected = jsonl(tmp_path / f"{what}.jsonl")
    assert len(cells) == len(expected) > 2
    for row, values in zip(cells, expected, strict=True):
        assert row == {name: as_cell(value) for name, value in values.items()}


def as_cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize("what", ["votes", "judgments", "retrievals"])
def test_parquet_holds_the_same_as_lines_of_json(
    voted: Flywheel, what: str, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra parquet")
    for ending in (".jsonl", ".parquet"):
        getattr(voted.export, what)(tmp_path / f"{what}{ending}")
    found = parquet.read_table(tmp_path / f"{what}.parquet").to_pylist()
    expected = jsonl(tmp_path / f"{what}.jsonl")
    assert len(found) == len(expected) > 2
    for row, values in zip(found, expected, strict=True):
        for name in {"where", "hits", "shares"} & row.keys():
            row[name] = None if row[name] is None else json.loads(row[name])
        if "at" in row:
            row["at"] = row["at"].isoformat(timespec="microseconds").replace("+00:00", "Z")
        assert row == values


def test_without_pyarrow_it_says_what_to_install(
    voted: Flywheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_files, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'rag-flywheel\[parquet\]'"):
        voted.export.votes(tmp_path / "votes.parquet")
    with pytest.raises(ConfigError, match="pyarrow is not installed"):
        voted.export.training_set("pairs", tmp_path / "set", file_format="parquet")
    assert not (tmp_path / "votes.parquet").exists() and not (tmp_path / "set").exists()


@given(st.lists(st.one_of(st.text(), st.sampled_from(HOSTILE)), min_size=1, max_size=5))
def test_any_text_comes_back_from_a_cell_that_no_spreadsheet_runs(texts: list[str]) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"cells-{os.getpid()}.csv"
    try:
        write_rows(
            path, [Column("a", "text"), Column("b", "number")], [{"a": t, "b": -1.5} for t in texts]
        )
        with path.open(encoding="utf-8", newline="") as file:
            found = list(csv.reader(file, strict=True))[1:]
    finally:
        path.unlink(missing_ok=True)
    found = [row for row in found if row]
    assert [cell_as_written(row[0]) for row in found] == texts
    assert not any(row[0][:1] in {"=", "+", "-", "@", "\t", "\r", "\n"} for row in found)
    assert {row[1] for row in found} == {"-1.5"}  # a number is no formula


def test_only_what_was_in_the_time_and_of_the_tenant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(encoder="", tenant_key="team")
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add([Passage(f"{t}-1", "some words", metadata={"team": t}) for t in ("a", "b")])
        for team in ("a", "b"):
            shown = fw.retrieve("some words", tenant=team, user_id="ann")
            fw.feedback(shown.id, f"{team}-1", "helpful", user_id="ann", tenant=team)
        with closing(sqlite3.connect(tmp_path / "kb" / "flywheel.db")) as conn, conn:
            for table_ in ("votes", "retrievals"):
                conn.execute(f"UPDATE {table_} SET at = 1767225600 + rid * 86400")  # 2026-01-01
        counts = {
            (tenant, since, until): fw.export.votes(
                tmp_path / "v.jsonl", since=since, until=until, tenant=tenant, overwrite=True,
                all_tenants=tenant is None,
            ).written["votes"]
            for tenant in ("a", "b", None)
            for since in (None, "2026-01-02", "2026-01-02T00:00:01Z", "2026-01-03")
            for until in (None, "2026-01-03", "2026-01-03T01:00+01:00", "2027-01-01")
            if not (since == "2026-01-03" and until and until < "2027")
        }  # fmt: skip
        assert counts[None, None, None] == 2 and counts["a", None, None] == 1
        assert counts[None, "2026-01-02", None] == 2
        assert counts[None, "2026-01-02T00:00:01Z", None] == 1
        assert counts[None, None, "2026-01-03"] == counts[None, None, "2026-01-03T01:00+01:00"] == 1
        assert counts["a", "2026-01-03", None] == 0 and counts["b", "2026-01-03", None] == 1
        judged = fw.export.judgments(tmp_path / "j.jsonl", all_tenants=True, since="2026-01-03")
        assert judged.written == {"judgments": 1}
        shown = fw.export.retrievals(tmp_path / "r.jsonl", all_tenants=True, until="2026-01-03")
        assert shown.written == {"retrievals": 1}
        for since, until, words in (
            ("yesterday", None, "since is 'yesterday'; expected a day or time"),
            (7, None, "since is 7"),
            ("2026-01-02", "2026-01-02", "which is not before until"),
        ):
            with pytest.raises(InputError, match=words):
                fw.export.votes(tmp_path / "w.csv", since=since, until=until, all_tenants=True)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="no tenant is named"):
            fw.export.votes(tmp_path / "w.csv")


def test_it_takes_no_files_place_unless_asked(voted: Flywheel, tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_text("mine")
    for to, words in (
        (path, "votes.csv is there already"),
        (tmp_path / "kb" / "v.csv", "is in the index folder"),
        (tmp_path / "votes.xml", r"ends in '.xml'; expected one of .jsonl, .csv, .parquet"),
        (tmp_path, "expected one of .jsonl"),
        (7, "to is 7; expected the name of a new file"),
    ):
        with pytest.raises(InputError, match=words):
            voted.export.votes(to)  # type: ignore[arg-type]
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="is no file"):
        voted.export.votes(tmp_path / "folder.csv", overwrite=True)
    with pytest.raises(InputError, match="is in the index folder"):
        voted.export.votes(tmp_path / "kb" / "flywheel.db.csv", overwrite=True)
    assert path.read_text() == "mine"
    voted.export.votes(path, overwrite=True)
    assert path.read_text().startswith("number,at,")
    assert path.stat().st_mode & 0o777 == 0o600
    voted.export.votes(tmp_path / "new" / "deep" / "votes.csv")
    voted.close()
    with pytest.raises(ClosedError):
        voted.export.votes(tmp_path / "late.csv")


def test_one_that_fails_in_the_middle_leaves_nothing(
    voted: Flywheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old.csv").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with closing(sqlite3.connect(tmp_path / "kb" / "flywheel.db")) as conn, conn:
        conn.execute("UPDATE retrievals SET hits = 'broken' WHERE rid = 3")
        for table_ in ("votes", "answer_votes"):
            last = f"(SELECT max(seq) FROM {table_} WHERE verdict = 'harmful')"
            conn.execute(f"UPDATE {table_} SET trust = 'much' WHERE seq = {last}")
    for name in EXPORTS.keys() - {"dpo"}:  # which has no correction to read here
        with pytest.raises(StorageError):
            EXPORTS[name](voted, tmp_path / "new")
    with pytest.raises(StorageError):
        voted.export.votes(tmp_path / "old.csv", overwrite=True)
    assert (tmp_path / "old.csv").read_text() == "mine"
    left = [p for p in sorted(tmp_path.rglob("*")) if p not in before and "kb" not in p.parts]
    assert left == [tmp_path / "new"] and list(left[0].iterdir()) == []


@pytest.mark.parametrize("name", ["votes.jsonl", "retrievals.csv", "ubi", "labeled-pairs", "beir"])
def test_what_is_written_while_others_write_is_of_one_moment(
    voted: Flywheel, name: str, tmp_path: Path
) -> None:
    """Votes and edits come in from another connection between any two rows."""
    (tmp_path / "quiet").mkdir()
    (tmp_path / "busy").mkdir()
    quiet = EXPORTS[name](voted, tmp_path / "quiet")
    told = 0

    def write_meanwhile(*_: object) -> None:
        nonlocal told
        told += 1
        with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as other:
            shown = other.retrieve(f"another question {told}", user_id=f"u{told}")
            other.feedback(shown.id, "reset", "helpful", user_id=f"u{told}")
            other.remove(["cats"]) if told == 1 else None

    call = {
        "votes.jsonl": lambda to: voted.export.votes(to / name, progress=write_meanwhile),
        "retrievals.csv": lambda to: voted.export.retrievals(to / name, progress=write_meanwhile),
        "ubi": lambda to: voted.export.ubi(to / name, progress=write_meanwhile),
        "beir": lambda to: voted.export.beir(to / name, progress=write_meanwhile),
        "labeled-pairs": lambda to: voted.export.training_set(
            "labeled-pairs", to / f"{name}-jsonl", unreviewed=True, progress=write_meanwhile
        ),
    }[name]
    busy = call(tmp_path / "busy")
    assert told >= 1 and (busy.written, busy.left_out) == (quiet.written, quiet.left_out)
    assert contents(tmp_path / "busy") == contents(tmp_path / "quiet")


def contents(folder: Path) -> dict[str, bytes]:
    """What is in every file, but for the time of the export."""
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {
        name: b"".join(
            line
            for line in io.BytesIO(path.read_bytes())
            if not line.startswith((b"Exported ", b' "created"'))
        )
        for name, path in found.items()
    }


def test_a_callable_is_told_how_far_it_is(voted: Flywheel, tmp_path: Path) -> None:
    told = list[tuple[str, int, int]]()
    voted.export.votes(tmp_path / "v.csv", progress=lambda *each: told.append(each))
    n = len(voted.votes(100))
    assert told == [("writing votes", 0, n), ("writing votes", n, n)]


def test_an_index_that_is_open_to_be_read_only_is_exported(voted: Flywheel, tmp_path: Path) -> None:
    (tmp_path / "as owner").mkdir()
    (tmp_path / "to read").mkdir()
    for write in EXPORTS.values():
        write(voted, tmp_path / "as owner")
    voted.close()
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), read_only=True) as fw:
        for write in EXPORTS.values():
            write(fw, tmp_path / "to read")
    owner, reader = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file() and path.name != "manifest.json"  # which has the time
        }
        for name in ("as owner", "to read")
    )
    assert len(owner) > len(EXPORTS)
    assert reader == owner
