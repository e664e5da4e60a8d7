"""Sample exports of each tool, written by hand after its documentation, are read as they are meant."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exported_samples import FILES, SAMPLES
from rag_flywheel import Flywheel, ImportReport, Passage
from rag_flywheel.store import wall_clock


@pytest.fixture
def fw(fw: Flywheel, help_desk: list[Passage]) -> Flywheel:
    fw.add(help_desk)
    return fw


def brought(fw: Flywheel, tool: Any, *names: str, **options: Any) -> ImportReport:
    return fw.import_files(tool, [SAMPLES / name for name in names or FILES[tool]], **options)


def shown(fw: Flywheel) -> dict[str | None, list[tuple[str, int]]]:
    """The hits with their ranks, by the id that the retrieval has in the tool."""
    return {r.external_id: [(h.passage_id, h.rank) for h in r.hits] for r in fw.retrievals()}


def cast(fw: Flywheel) -> list[tuple[str | None, str | None, str, str, str]]:
    """(id of the retrieval in the tool, passage, kind, verdict, time) of each vote, by their numbers."""
    ids = {r.id: r.external_id for r in fw.retrievals()}
    votes = reversed(fw.votes())
    return [(ids[v.retrieval_id], v.passage_id, v.kind, v.verdict, v.at) for v in votes]


def test_langfuse(fw: Flywheel) -> None:
    report = brought(fw, "langfuse")
    assert shown(fw) == {
        "obs-ret": [("reset", 1), ("secret", 2)],  # by metadata, and by the exact text
        "obs-ret-2": [("refund", 1)],
    }
    assert cast(fw) == [
        ("obs-ret", None, "answer", "helpful", "2026-03-01T09:05:00Z"),
        ("obs-ret", None, "judge", "harmful", "2026-03-01T09:06:00Z"),
        ("obs-ret-2", "refund", "vote", "harmful", "2026-03-01T10:05:00Z"),
    ]
    assert report.votes == {"vote": 1, "answer": 1, "text": 1, "judge": 1}
    (note,) = [item for item in fw.review.items() if not item.passage_id]
    assert note.text == "Open Settings and press Reset."  # a correction, whose value is 0
    assert report.left_out == {
        "passages shown that are not in the index": 1,
        "scores on a session or a run of a dataset, which name no retrieval": 1,
        "the score 'toxicity' is not known to be a verdict (name it: --score)": 1,
        "votes on a trace or run that no retrieval was inside of": 1,  # on the generation
        "votes whose retrieval is neither here nor in these files": 1,
    }
    first = next(r for r in fw.retrievals() if r.external_id == "obs-ret")
    assert (first.at, first.answer) == ("2026-03-01T09:00:00Z", "Open Settings.")
    assert first.user == fw.hashed_user("ann")
    answer = next(v for v in fw.votes() if v.kind == "answer")
    assert answer.user == fw.hashed_user("ann"), "feedback that names nobody is of who asked"
    assert next(v for v in fw.votes() if v.kind == "vote").user == fw.hashed_user("rev-7")


def test_langfuse_pages_of_the_api(fw: Flywheel) -> None:
    names = [
        "langfuse-api-scores.json",
        "langfuse-api-observations.json",
        "langfuse-api-traces.json",
    ]
    report = brought(fw, "langfuse", *names)
    assert shown(fw) == {"obs-api": [("cats", 1)]}
    assert cast(fw) == [("obs-api", None, "answer", "harmful", "2026-04-01T08:01:00Z")]
    assert report.left_out == {}
    (asked,) = fw.retrievals()
    assert (asked.user, asked.answer) == (fw.hashed_user("bob"), "Anywhere.")


@pytest.mark.parametrize("form", ["csv", "csv.gz", "jsonl.gz", "json", "pretty.json", "parquet"])
def test_langfuse_in_every_form(fw: Flywheel, tmp_path: Path, form: str) -> None:
    paths = [_converted(SAMPLES / name, tmp_path, form) for name in FILES["langfuse"]]
    report = fw.import_files("langfuse", paths)
    again = brought(fw, "langfuse")
    assert report.retrievals == 2 and sum(report.votes.values()) == 4
    assert again.retrievals == 0 and again.votes == {}, "the same in another form is the same"
    assert again.left_out == report.left_out


def _converted(path: Path, folder: Path, form: str) -> Path:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    new = folder / f"{path.stem}.{form}"
    columns = list(rows[0])
    if form.startswith("csv"):
        import csv
        import io

        text = io.StringIO()
        writer = csv.writer(text, quoting=csv.QUOTE_ALL)
        writer.writerow(
            [*columns, "author_user_id"] if "author_user_id" not in columns else columns
        )
        for row in rows:
            cells = {**row, "metadata": json.dumps(row.get("metadata"))}
            names = [*columns, *({"author_user_id"} - set(columns))]
            writer.writerow(["" if cells.get(n) is None else cells[n] for n in names])
        data = text.getvalue().encode()
    elif form == "parquet":
        pyarrow = pytest.importorskip("pyarrow", reason="reading Parquet takes pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        names = sorted({name for row in rows for name in row})
        table = {
            n: [json.dumps(r.get(n)) if n == "metadata" else r.get(n) for r in rows] for n in names
        }
        if "value" in table:
            table["value"] = [None if v is None else float(v) for v in table["value"]]
        parquet.write_table(pyarrow.table(table), new)
        return new
    elif form == "jsonl.gz":
        data = path.read_bytes()
    else:
        data = json.dumps(rows, indent=2 if "pretty" in form else None).encode()
    new.write_bytes(gzip.compress(data) if form.endswith("gz") else data)
    return new


def test_phoenix(fw: Flywheel) -> None:
    report = brought(fw, "phoenix")
    assert shown(fw) == {
        "5555666677778888": [("secret", 1), ("reset", 2)],  # nested; the second one by its text
        "9999aaaa9999aaaa": [("reset", 1)],  # what a reranker made of it
        "aaaa000000000001": [("refund", 1)],  # as of a data frame
        "aaaa000000000002": [("cats", 1), ("secret", 2)],  # flat, and not in order
        "0123456789abcdef": [("secret", 1)],  # OTLP
    }
    assert sorted(cast(fw), key=repr) == sorted(
        [
            (
                "0123456789abcdef",
                "secret",
                "judge",
                "helpful",
                "2026-05-01T12:11:41Z",
            ),  # a linked span
            ("5555666677778888", "secret", "vote", "harmful", "2026-05-01T12:00:00Z"),  # position 0
            ("5555666677778888", "reset", "judge", "helpful", "2026-05-01T12:00:00Z"),  # position 1
            ("5555666677778888", None, "answer", "helpful", "2026-05-01T12:05:00Z"),
            ("9999aaaa9999aaaa", None, "answer", "helpful", "2026-05-01T12:05:00Z"),
            ("aaaa000000000002", None, "answer", "helpful", "2026-05-01T12:10:00Z"),
            ("aaaa000000000002", None, "judge", "helpful", "2026-05-01T12:10:00Z"),
        ],
        key=repr,
    )
    assert report.left_out == {
        "scores that a program gave, and neither a person nor a language model": 1,
        "votes on passages that the retrieval did not show": 1,  # position 2 of two
    }
    asked = {r.external_id: r for r in fw.retrievals()}
    assert asked["5555666677778888"].user == fw.hashed_user("ann"), (
        "of the span that it is inside of"
    )
    assert asked["0123456789abcdef"].at == "2026-05-01T12:10:00Z"


def test_langsmith(fw: Flywheel) -> None:
    report = brought(fw, "langsmith")
    run = "0199a000-0000-7000-8000-00000000000"
    assert shown(fw) == {
        f"{run}2": [
            ("secret", 1),
            ("refund", 2),
            ("reset", 3),
        ],  # by metadata, title, and its own id
        f"{run}3": [("refund", 1)],  # by its text
    }
    assert cast(fw) == [
        (f"{run}2", None, "answer", "helpful", "2026-06-01T07:05:00Z"),  # on the root run
        (f"{run}2", None, "judge", "harmful", "2026-06-01T07:06:00Z"),
        (f"{run}3", "refund", "vote", "helpful", "2026-06-01T08:06:00Z"),
    ]
    assert report.votes["text"] == 1
    assert report.left_out == {"feedback without an id, a key or a run": 1}
    asked = {r.external_id: r for r in fw.retrievals()}
    assert asked[f"{run}2"].answer == "Press reset."
    assert asked[f"{run}3"].session is None, "session_id is the project there"
    assert asked[f"{run}2"].session is not None


def test_ubi(fw: Flywheel) -> None:
    report = brought(fw, "ubi")
    assert shown(fw) == {"q-1": [("secret", 1), ("reset", 3)], "q-2": [("cats", 1)]}
    assert cast(fw) == [
        ("q-2", "cats", "vote", "harmful", "2026-07-01T08:02:00Z"),  # by its position
        ("q-1", None, "copied", "helpful", "2026-07-01T10:00:07Z"),
        ("q-1", "reset", "vote", "helpful", "2026-07-01T10:00:09Z"),
    ]
    assert report.left_out == {
        "events of the action 'click', which says no verdict": 1,
        "events without a query_id": 1,
        "passages shown that are not in the index": 1,
        "queries without a query_id or a user_query": 1,
        "votes on passages that are not in the index": 1,
    }
    assert next(v for v in fw.votes() if v.passage_id == "reset").user == fw.hashed_user("ann")


def test_ubi_without_the_list_of_what_was_shown(fw: Flywheel, tmp_path: Path) -> None:
    def event(action: str, query: str, passage: str, ordinal: int) -> dict[str, Any]:
        about = {"object": {"object_id": passage}, "position": {"ordinal": ordinal}}
        return {
            "action_name": action,
            "query_id": query,
            "client_id": "c",
            "event_attributes": about,
        }

    queries = [
        {"query_id": q, "client_id": "c", "user_query": f"kittens {q}"} for q in ("q1", "q2")
    ]
    events = [
        event("impression", "q1", "cats", 2),
        event("impression", "q1", "reset", 1),
        event("thumbs_up", "q1", "cats", 2),
        event("impression", "q3", "cats", 1),
    ]
    paths = [tmp_path / "queries.json", tmp_path / "events.json"]
    for path, documents in zip(paths, (queries, events), strict=True):
        path.write_text(json.dumps(documents), encoding="utf-8")
    report = fw.import_files("ubi", paths)
    assert shown(fw) == {"q1": [("reset", 1), ("cats", 2)]}
    assert report.votes == {"vote": 1}
    assert report.left_out == {
        "retrievals of which nothing says what they showed": 1,
        "retrievals whose question is in none of the files": 1,
    }


def test_spans_without_documents_and_with_ids_in_base64(fw: Flywheel, tmp_path: Path) -> None:
    def span(trace: str, id_: str, *more: tuple[str, str]) -> dict[str, Any]:
        told = [("openinference.span.kind", "RETRIEVER"), ("input.value", "kittens"), *more]
        attributes = [{"key": k, "value": {"stringValue": v}} for k, v in told]
        return {"traceId": trace, "spanId": id_, "attributes": attributes}

    spans = [
        span(
            "AQEBAQEBAQEBAQEBAQEBAQ==",
            "CwsLCwsLCws=",
            ("retrieval.documents.0.document.id", "cats"),
        ),
        span("AQEBAQEBAQEBAQEBAQEBAQ==", "DAwMDAwMDAw="),  # its content was not captured
    ]
    notes = [
        {
            "trace_id": "01" * 16,
            "name": "thumbs",
            "annotator_kind": "HUMAN",
            "result": {"score": 1},
        },
        {
            "span_id": "0b" * 8,
            "document_position": 0,
            "name": "thumbs",
            "result": {"label": "down"},
        },
    ]
    paths = [tmp_path / "spans.json", tmp_path / "notes.json"]
    message = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
    for path, value in zip(paths, (message, notes), strict=True):
        path.write_text(json.dumps(value), encoding="utf-8")
    report = fw.import_files("phoenix", paths)
    assert shown(fw) == {"0b" * 8: [("cats", 1)]}
    assert report.votes == {"vote": 1, "answer": 1}
    assert report.left_out == {"retrievals of which nothing says what they showed": 1}


def test_trec(fw: Flywheel) -> None:
    report = brought(fw, "trec")
    found = {j.passage_id: (j.query, j.helpful, j.harmful) for j in fw.judgments()}
    assert found == {
        "refund": ("when are refunds paid?", 1.0, 0.0),
        "secret": ("when are refunds paid?", 0.0, 1.0),
        "cats": ("where do kittens sleep?", 1.0, 0.0),
        "reset": ("where do kittens sleep?", 0.0, 1.0),  # graded, but not in the run
    }
    assert report.left_out == {
        "passages shown that are not in the index": 1,
        "rows of runs whose question is in none of the files": 1,
    }


def test_tables(fw: Flywheel) -> None:
    report = brought(fw, "csv")
    assert report.votes == {"vote": 3}
    assert report.left_out == {
        "passages shown that are not in the index": 1,
        "rows without a verdict that is helpful, harmful or retract": 1,
        "votes on passages that are not in the index": 1,
    }
    said = {v.passage_id: (v.verdict, v.at, v.reason) for v in fw.votes()}
    assert said == {
        "reset": ("helpful", "2025-11-02T09:00:00Z", "it worked, at once"),
        "secret": ("harmful", "2025-11-02T09:00:05Z", "=not this"),
        "refund": ("helpful", "2025-11-02T12:00:00Z", None),
    }


@pytest.mark.parametrize("tool", FILES)
def test_a_dry_run_tells_the_same_and_writes_nothing(fw: Flywheel, tool: str) -> None:
    def state() -> list[Any]:
        with fw._database.reading() as conn:
            return list(conn.iterdump())

    before = state()
    dry = brought(fw, tool, dry_run=True)
    assert state() == before
    assert dry == replace(brought(fw, tool), dry_run=True)
    assert state() != before


@pytest.mark.parametrize("tool", FILES)
def test_the_order_of_the_files_does_not_matter_and_twice_is_once(
    fw: Flywheel,
    tool: str,
    tmp_path: Path,
    help_desk: list[Passage],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wall_clock, "now", lambda: 1_800_000_000.0)  # what has no time comes in now
    first = brought(fw, tool)
    state = (shown(fw), sorted(cast(fw), key=repr), fw.judgments())
    twice = brought(fw, tool, *FILES[tool][::-1])
    assert (twice.retrievals, dict(twice.votes), twice.extended) == (0, {}, 0)
    assert twice.left_out == first.left_out
    assert (shown(fw), sorted(cast(fw), key=repr), fw.judgments()) == state
    with Flywheel.open(tmp_path / "other", encoder=fw._slot.get()) as other:
        other.add(help_desk)
        brought(other, tool, *FILES[tool][::-1])
        assert (shown(other), sorted(cast(other), key=repr)) == state[:2]
    assert fw.verify() == []


def test_langfuse_scores_of_version_3_of_the_api(fw: Flywheel, tmp_path: Path) -> None:
    """What a score is on stands in its subject, and the value has the type of the score."""
    common = {"projectId": "p", "source": "API", "timestamp": "2026-04-02T08:00:00Z"}
    on_trace = {"kind": "trace", "id": "trace-api"}
    on_it = {"kind": "observation", "id": "obs-api", "traceId": "trace-api"}
    scores = [
        {"id": "a", "name": "thumbs", "dataType": "BOOLEAN", "value": True, "subject": on_trace},
        {"id": "b", "name": "helpful", "dataType": "CATEGORICAL", "value": "no", "subject": on_it},
        {"id": "c", "name": "output", "dataType": "CORRECTION", "value": "By day.", "subject": on_it},
        {"id": "d", "name": "output", "dataType": "CORRECTION", "value": "", "subject": on_it},
        {"id": "e", "name": "thumbs", "dataType": "BOOLEAN", "value": True,
         "subject": {"kind": "session", "id": "trace-api"}},
        {"id": "f", "name": "thumbs", "dataType": "BOOLEAN", "value": True, "subject": None},
    ]  # fmt: skip
    file = tmp_path / "scores.json"
    file.write_text(json.dumps({"data": [{**common, **score} for score in scores]}))
    report = fw.import_files("langfuse", [SAMPLES / "langfuse-api-observations.json", file])
    assert report.votes == {"vote": 1, "answer": 1, "text": 1}
    assert {(v.kind, v.verdict) for v in fw.votes()} >= {("answer", "helpful"), ("vote", "harmful")}
    assert report.left_out == {
        "corrections without a text": 1,
        "scores on a session or a run of a dataset, which name no retrieval": 2,
    }


def test_langsmith_runs_of_version_2_of_the_api(fw: Flywheel, tmp_path: Path) -> None:
    """Types are in capitals, metadata and thread beside `extra`, and parents a list alone."""
    runs = [
        {"id": "root", "run_type": "CHAIN", "start_time": "2026-04-02T08:00:00Z", "trace_id": "root",
         "parent_run_ids": [], "outputs": {"output": "By day."}},
        {"id": "ret", "run_type": "RETRIEVER", "start_time": "2026-04-02T08:00:01Z", "trace_id": "root",
         "parent_run_ids": ["root"], "inputs": {"query": "where do kittens sleep?"}, "extra": {},
         "outputs": {"documents": [{"id": "cats", "page_content": "x", "metadata": {}}]},
         "metadata": {"user_id": "ann"}, "thread_id": "c-7"},
        {"id": "f", "key": "user_score", "score": 1.0, "run_id": "root", "trace_id": "root",
         "created_at": "2026-04-02T09:00:00Z", "feedback_source": {"type": "api"}},
    ]  # fmt: skip
    file = tmp_path / "runs.json"
    file.write_text(json.dumps(runs))
    report = fw.import_files("langsmith", file)
    assert (report.retrievals, report.left_out) == (1, {})
    (retrieval,) = fw.retrievals()
    assert retrieval.answer == "By day."
    assert retrieval.user == fw.hashed_user("ann")
    assert retrieval.session is not None
    assert sum(report.votes.values()) == 1
