"""Feedback that is fetched from the APIs of Langfuse, Phoenix and LangSmith, by their own clients.

Each has the same story: in March ann asked about a password, and the answer was good; bob asked about dogs,
and the first passage was bad; on a question of January feedback came in March.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tool_servers
from rag_flywheel import Flywheel, ImportReport
from rag_flywheel.cli.app import main
from rag_flywheel.errors import AccessError, ConfigError, InputError, ServiceError
from rag_flywheel.integrations.live.imports import LIVE_TOOLS, import_live
from tool_servers import Row, ToolServer, served

LIBRARIES = {"langfuse": "langfuse", "phoenix": "phoenix.client", "langsmith": "langsmith"}
KEYS = {
    "langfuse": {"LANGFUSE_PUBLIC_KEY": "pk-lf-1", "LANGFUSE_SECRET_KEY": "sk-lf-1"},
    "phoenix": {"PHOENIX_API_KEY": "px-1", "PHOENIX_PROJECT": "desk bot"},
    "langsmith": {"LANGSMITH_API_KEY": "ls-1", "LANGSMITH_PROJECT": "desk bot"},
}
ADDRESSES = {
    "langfuse": "LANGFUSE_BASE_URL",
    "phoenix": "PHOENIX_ENDPOINT",
    "langsmith": "LANGSMITH_ENDPOINT",
}
FIRST = {  # the paths of the two lists that each has
    "langfuse": ("/observations", "/scores"),
    "phoenix": ("/spans", "/span_annotations"),
    "langsmith": ("/runs/query", "/feedback"),
}
PROJECT = "11111111-2222-3333-4444-555555555555"
JANUARY, MARCH = "2026-01-05T09:00:00+00:00", "2026-03-05T09:00:00+00:00"


def hex_id(n: int, length: int = 16) -> str:
    return f"{n:0{length}x}"


def uuid_of(n: int) -> str:
    return f"0199a000-0000-7000-8000-{n:012d}"


DOCUMENTS = {
    "password": [("reset", "press reset for a new password"), ("mail", "write a mail")],
    "dogs": [("dogs", "dogs bark at every password"), ("cats", "cats sleep most of the day")],
    "old": [("cats", "cats sleep most of the day")],
}


def documents(question: str) -> list[Row]:
    return [
        {"id": id_, "page_content": text, "metadata": {}, "type": "Document"}
        for id_, text in DOCUMENTS[question]
    ]


# Langfuse


def observation(id_: str, trace: str, type_: str, at: str, parent: str | None, **more: Any) -> Row:
    return {
        "id": id_, "traceId": trace, "projectId": "p1", "startTime": at, "endTime": at, "type": type_,
        "parentObservationId": parent, "isRootObservation": parent is None, "name": type_.lower(),
        "level": "DEFAULT", "environment": "default", "bookmarked": False, "public": False, **more,
    }  # fmt: skip


def score(id_: str, at: str, kind: str, value: Any, subject: Row, **more: Any) -> Row:
    return {
        "id": id_, "projectId": "p1", "name": "user-feedback", "source": "API", "timestamp": at,
        "environment": "default", "createdAt": at, "updatedAt": at, "dataType": kind, "value": value,
        "subject": subject, "comment": None, "metadata": {}, "configId": None, "authorUserId": None,
        "queueId": None, **more,
    }  # fmt: skip


def langfuse_rows() -> dict[str, list[Row]]:
    texts = {key: json.dumps(documents(key)) for key in DOCUMENTS}  # the API gives strings
    return {
        "observations": [
            observation("root", "t-1", "CHAIN", MARCH, None, output="Press reset.", userId="ann"),
            observation("llm", "t-1", "GENERATION", MARCH, "root", output="Press reset."),
            observation("ret-1", "t-1", "RETRIEVER", MARCH, "root", input="forgot my password",
                        output=texts["password"], userId="ann"),
            observation("ret-2", "t-2", "RETRIEVER", MARCH, None, input="why do dogs bark?",
                        output=texts["dogs"], userId="bob"),
            observation("ret-0", "t-0", "RETRIEVER", JANUARY, "root-0", input="do cats sleep?",
                        output=texts["old"]),
            observation("root-0", "t-0", "CHAIN", JANUARY, None, output="Yes.", userId="kim"),
            observation("other", "t-9", "SPAN", MARCH, None, output="no retrieval"),
        ],
        "scores": [
            score("s-1", MARCH, "BOOLEAN", True, {"kind": "trace", "id": "t-1"}),
            score("s-2", MARCH, "NUMERIC", 0, {"kind": "observation", "id": "ret-2", "traceId": "t-2"},
                  name="relevance", metadata={"document_position": 0}, authorUserId="rev"),
            score("s-3", MARCH, "NUMERIC", 1, {"kind": "trace", "id": "t-0"}),
            score("s-4", MARCH, "CORRECTION", "Press reset twice.", {"kind": "trace", "id": "t-1"},
                  name="output", source="ANNOTATION"),
            score("s-5", MARCH, "CATEGORICAL", "yes", {"kind": "session", "id": "c-1"}),
            score("s-6", JANUARY, "BOOLEAN", True, {"kind": "trace", "id": "t-1"}),
            score("s-7", MARCH, "NUMERIC", 1, {"kind": "observation", "id": "ret-2", "traceId": "t-2"},
                  name="relevance", source="EVAL"),
        ],
    }  # fmt: skip


# Phoenix


def span(n: int, trace: int, kind: str, at: str, parent: int | None, attributes: Row) -> Row:
    return {
        "id": f"U3BhbjoxM{n}==", "name": kind.lower(), "span_kind": kind, "start_time": at,
        "context": {"trace_id": hex_id(trace, 32), "span_id": hex_id(n)}, "end_time": at,
        "parent_id": None if parent is None else hex_id(parent), "status_code": "OK",
        "status_message": "", "events": [],
        "attributes": {"openinference.span.kind": kind, **attributes},
    }  # fmt: skip


def retrieved(question: str, key: str) -> Row:
    shown = {
        f"retrieval.documents.{n}.document.{field}": value
        for n, (id_, text) in enumerate(DOCUMENTS[key])
        for field, value in (("id", id_), ("content", text))
    }
    return {"input.value": question, **shown}


def annotation(n: int, on: Row, result: Row, **more: Any) -> Row:
    return {
        "id": f"QW5ub3RhdGlvbjo{n}", "name": "user_feedback", "annotator_kind": "HUMAN", **on,
        "result": result, "metadata": {}, "identifier": "", "source": "APP", "user_id": "VXNlcjox",
        "created_at": MARCH, "updated_at": MARCH, **more,
    }  # fmt: skip


def phoenix_rows() -> dict[str, list[Row]]:
    return {
        "spans": [
            span(1, 1, "CHAIN", MARCH, None, {"output.value": "Press reset.", "user.id": "ann"}),
            span(2, 1, "RETRIEVER", MARCH, 1, retrieved("forgot my password", "password")),
            span(3, 2, "RETRIEVER", MARCH, None, retrieved("why do dogs bark?", "dogs")),
            span(4, 3, "RETRIEVER", JANUARY, None, retrieved("do cats sleep?", "old")),
        ],
        "span_annotations": [
            annotation(1, {"span_id": hex_id(3)}, {"label": "thumbs-down", "score": 0.0}),
            annotation(2, {"span_id": hex_id(4)}, {"score": 1.0}),
            annotation(3, {"span_id": hex_id(2)}, {"score": 1.0}, annotator_kind="CODE"),
        ],
        "trace_annotations": [
            annotation(4, {"trace_id": hex_id(1, 32)}, {"score": 1.0, "explanation": "great"})
        ],
    }


# LangSmith


def run(n: int, trace: int, type_: str, at: str, inputs: Row, outputs: Row, user: str) -> Row:
    return {
        "id": uuid_of(n), "run_type": type_, "start_time": at, "name": type_, "status": "success",
        "trace_id": uuid_of(trace), "parent_run_ids": [] if n == trace else [uuid_of(trace)],
        "inputs": inputs, "outputs": outputs, "extra": {}, "metadata": {"user_id": user},
        "thread_id": "c-1", "project_id": PROJECT,
    }  # fmt: skip


def feedback(n: int, on: int, trace: int, value: float, at: str = MARCH, **more: Any) -> Row:
    return {
        "id": uuid_of(900 + n), "created_at": at, "modified_at": at, "run_id": uuid_of(on),
        "trace_id": uuid_of(trace), "key": "user_score", "score": value, "value": None, "comment": None,
        "correction": None, "feedback_source": {"type": "api", "metadata": {}, "user_id": None},
        "session_id": PROJECT, **more,
    }  # fmt: skip


def langsmith_rows() -> dict[str, list[Row]]:
    return {
        "projects": [
            {"id": PROJECT, "name": "desk bot", "tenant_id": uuid_of(1), "reference_dataset_id": None}
        ],
        "runs": [
            run(1, 1, "CHAIN", MARCH, {"input": "x"}, {"output": "Press reset."}, "ann"),
            run(2, 1, "RETRIEVER", MARCH, {"query": "forgot my password"},
                {"documents": documents("password")}, "ann"),
            run(3, 3, "RETRIEVER", MARCH, {"query": "why do dogs bark?"},
                {"documents": documents("dogs")}, "bob"),
            run(4, 4, "CHAIN", JANUARY, {"input": "x"}, {"output": "Yes."}, "kim"),
            run(5, 4, "RETRIEVER", JANUARY, {"query": "do cats sleep?"},
                {"documents": documents("old")}, "kim"),
            run(6, 6, "CHAIN", MARCH, {"input": "x"}, {"output": "no retrieval"}, "ann"),
        ],
        "feedback": [
            feedback(1, 1, 1, 1.0),
            feedback(2, 3, 3, 0.0),
            feedback(3, 4, 4, 1.0),
            feedback(4, 1, 1, 1.0, at=JANUARY),
            feedback(5, 1, 1, 1.0, session_id=uuid_of(7)),  # of another project
        ],
    }  # fmt: skip


ROWS: dict[str, Callable[[], dict[str, list[Row]]]] = {
    "langfuse": langfuse_rows,
    "phoenix": phoenix_rows,
    "langsmith": langsmith_rows,
}
IDS = {  # of the retrievals of ann, bob and January
    "langfuse": ("ret-1", "ret-2", "ret-0"),
    "phoenix": (hex_id(2), hex_id(3), hex_id(4)),
    "langsmith": (uuid_of(2), uuid_of(3), uuid_of(5)),
}


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go; no settings of the tools, no long waits, none but the server's address."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.chdir(folder)
    for name in [*ADDRESSES.values(), *(name for keys in KEYS.values() for name in keys)]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANGSMITH_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    wait = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: wait(min(seconds, 0.01)))
    return folder


def forget_settings(tool: str) -> None:
    """LangSmith reads its environment variables once."""
    if tool == "langsmith":
        from langsmith.utils import get_env_var, get_tracer_project

        for cached in (get_env_var, get_tracer_project):
            cached.cache_clear()


@contextmanager
def asking(tool: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[ToolServer]:
    pytest.importorskip(LIBRARIES[tool], reason=f"{tool} is not installed: make test-integrations")
    for name, value in KEYS[tool].items():
        monkeypatch.setenv(name, value)
    with served(getattr(tool_servers, tool)) as server:
        server.rows = ROWS[tool]()
        monkeypatch.setenv(ADDRESSES[tool], server.url)
        forget_settings(tool)
        yield server
        forget_settings(tool)


@pytest.fixture(params=LIVE_TOOLS)
def tool(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def server(tool: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[ToolServer]:
    with asking(tool, monkeypatch) as found:
        yield found


def shown(fw: Flywheel) -> dict[str | None, list[str]]:
    return {r.external_id: [hit.passage_id for hit in r.hits] for r in fw.retrievals()}


def cast(fw: Flywheel) -> set[tuple[str | None, str | None, str, str]]:
    ids = {r.id: r.external_id for r in fw.retrievals()}
    return {(ids[v.retrieval_id], v.passage_id, v.kind, v.verdict) for v in fw.votes()}


def is_unchanged(fw: Flywheel, scratch: Path) -> bool:
    return not fw.retrievals() and not fw.votes() and not list(scratch.iterdir())


def bring(fw: Flywheel, tool: Any, **options: Any) -> ImportReport:
    return import_live(fw, tool, until="2026-06-01", **options)


def test_pages_come_in_as_retrievals_and_votes(
    tool: Any, server: ToolServer, desk: Flywheel, scratch: Path
) -> None:
    ann, bob, old = IDS[tool]
    report = bring(desk, tool)
    assert shown(desk) == {ann: ["reset", "mail"], bob: ["dogs", "cats"], old: ["cats"]}
    passage = "dogs" if tool == "langfuse" else None  # its score has the position of the document
    expected = {
        (ann, None, "answer", "helpful"),
        (bob, passage, "vote" if passage else "answer", "harmful"),
        (old, "cats", "vote", "helpful")  # on the retriever itself, which showed nothing else
        if tool == "phoenix"
        else (old, None, "answer", "helpful"),
    }
    if tool == "langfuse":
        expected.add((bob, None, "judge", "helpful"))
    assert {vote for vote in cast(desk) if vote[2] != "text"} == expected
    first = next(r for r in desk.retrievals() if r.external_id == ann)
    assert (first.query, first.answer) == ("forgot my password", "Press reset.")
    assert report.retrievals == 3
    assert list(scratch.iterdir()) == []
    assert len([path for path in server.paths() if path.endswith(FIRST[tool][0])]) > 1, "pages"


def test_twice_changes_nothing_and_dry_run_neither(
    tool: Any, server: ToolServer, desk: Flywheel, scratch: Path
) -> None:
    dry = bring(desk, tool, dry_run=True)
    assert dry.dry_run
    assert is_unchanged(desk, scratch)
    assert server.asked
    first = bring(desk, tool)
    assert (first.retrievals, first.votes) == (dry.retrievals, dry.votes)
    before = shown(desk), desk.votes()
    again = bring(desk, tool)
    assert (again.retrievals, again.votes, again.left_out) == (0, {}, first.left_out)
    assert (shown(desk), desk.votes()) == before


@pytest.mark.parametrize("tool", ["langfuse", "langsmith"])
def test_feedback_on_traces_from_before_the_period_brings_these_along(
    tool: Any, server: ToolServer, desk: Flywheel
) -> None:
    ann, bob, old = IDS[tool]
    report = bring(desk, tool, since="2026-02-01")
    assert set(shown(desk)) == {ann, bob, old}
    assert (old, None, "answer", "helpful") in cast(desk)
    late = next(r for r in desk.retrievals() if r.external_id == old)
    assert (late.at, late.answer) == ("2026-01-05T09:00:00Z", "Yes.")
    assert late.user == desk.hashed_user("kim")
    assert sum(report.votes.values()) == {"langfuse": 5, "langsmith": 3}[tool]


def test_the_period_of_phoenix_is_that_of_the_spans(
    desk: Flywheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with asking("phoenix", monkeypatch):
        report = bring(desk, "phoenix", since="2026-02-01T00:00Z")
        assert set(shown(desk)) == set(IDS["phoenix"][:2])
        assert report.votes == {"answer": 2}


def test_what_is_after_the_period_stays_out(tool: Any, server: ToolServer, desk: Flywheel) -> None:
    report = import_live(desk, tool, until="2026-02-01")
    assert set(shown(desk)) == set(IDS[tool][2:]) | (
        {IDS[tool][0]} if tool in ("langfuse", "langsmith") else set()
    )  # feedback of January on ann's question brings it along
    assert report.retrievals == len(shown(desk))


@pytest.mark.parametrize("status", [429, 500, 503, 0])
def test_a_failure_that_passes_is_no_failure(
    tool: Any, status: int, server: ToolServer, desk: Flywheel
) -> None:
    for path in FIRST[tool]:
        server.fail(path, status)
    assert bring(desk, tool).retrievals == 3
    paths = server.paths()
    assert all(sum(p.endswith(path) for p in paths) > 1 for path in FIRST[tool])


@pytest.mark.parametrize("status", [500, 429, 400, 0])
@pytest.mark.parametrize("part", [0, 1])
def test_a_failure_in_the_middle_imports_nothing(
    tool: Any, status: int, part: int, server: ToolServer, desk: Flywheel, scratch: Path
) -> None:
    path = FIRST[tool][part]
    server.fail(path, status, at=2 if (tool, part) != ("langsmith", 1) else 1, times=1000)
    with pytest.raises(ServiceError, match=r"Nothing was imported") as raised:
        bring(desk, tool)
    assert server.url in str(raised.value)
    assert is_unchanged(desk, scratch)
    server.fails.clear()
    assert bring(desk, tool).retrievals == 3


def test_an_answer_of_another_shape_is_an_error(
    tool: Any, server: ToolServer, desk: Flywheel, scratch: Path
) -> None:
    answer = server.answer
    for shape in (b"<html>sign in</html>", {"data": 7, "items": 7}, {"data": [7], "items": [7]}):

        def wrong(tool_: ToolServer, asked: Any, shape: Any = shape) -> Any:
            return (200, shape) if asked.path.endswith(FIRST[tool][0]) else answer(tool_, asked)

        server.answer = wrong
        with pytest.raises(ServiceError):
            bring(desk, tool)
        assert is_unchanged(desk, scratch)


def test_a_wrong_key_is_named_and_not_shown(
    tool: Any, server: ToolServer, desk: Flywheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = {"langfuse": "LANGFUSE_SECRET_KEY", "phoenix": "PHOENIX_API_KEY"}.get(
        tool, "LANGSMITH_API_KEY"
    )
    monkeypatch.setenv(key, "hidden-1")
    with pytest.raises(AccessError, match=key) as raised:
        bring(desk, tool)
    assert "hidden-1" not in str(raised.value)
    assert not desk.retrievals()


@pytest.mark.parametrize("tool", ["langfuse", "langsmith"])
def test_a_missing_key_is_named_before_anything_is_asked(
    tool: Any, server: ToolServer, desk: Flywheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in KEYS[tool]:
        if "KEY" in key:
            monkeypatch.setenv(key, " ")
    with pytest.raises(ConfigError, match=r"KEY is not set"):
        bring(desk, tool)
    assert not server.asked


def test_the_address_and_the_project_may_be_given(
    tool: Any, server: ToolServer, desk: Flywheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ADDRESSES[tool])
    project = next((name for name in KEYS[tool] if name.endswith("PROJECT")), None)
    if project is not None:
        monkeypatch.setenv(project, "other")
        forget_settings(tool)
        with pytest.raises(ServiceError, match=r"404|not found"):
            bring(desk, tool, url=server.url)
    named = {} if project is None else {"project": "desk bot"}
    assert bring(desk, tool, url=server.url, **named).retrievals == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"since": "soon"},
        {"since": "2026-03-01", "until": "2026-02-01"},
        {"since": 1e30},
        {"url": "desk.example"},
        {"tool": "ubi"},
        {"tool": "langfuse", "project": "desk bot"},
        {"project": 7},
    ],
)
def test_arguments_that_cannot_be_used(desk: Flywheel, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        import_live(desk, **{"tool": "phoenix", **wrong})


def test_a_client_that_is_not_installed_is_named(
    tool: Any, desk: Flywheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("rag_flywheel.integrations.live.imports.import_module", missing)
    with pytest.raises(ConfigError, match=rf"rag-flywheel\[{tool}\]"):
        bring(desk, tool)


def ended(*arguments: str) -> int:
    """What a command ends with."""
    with pytest.raises(SystemExit) as done:
        main(list(arguments))
    return int(done.value.code or 0)


def test_the_command(
    tool: Any,
    server: ToolServer,
    tmp_path: Path,
    desk: Flywheel,
    capsys: pytest.CaptureFixture[str],
) -> None:
    desk.close()
    index = ["--index", str(tmp_path / "kb")]
    period = ["--live", "--since", "2025-12-31", "--until", "2026-06-01T00:00Z"]
    assert ended("import", tool, *period, "--dry-run", *index) == 0
    assert "would import 3 retrievals" in capsys.readouterr().out
    assert ended("import", tool, *period, "--json", *index) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["retrievals"] == 3
    assert ("single documents" in err) == (tool == "phoenix")
    server.fail(FIRST[tool][0], 500, times=1000)
    assert ended("import", tool, *period, *index) == 1
    err = capsys.readouterr().err
    assert "Nothing was imported" in err
    assert "\x1b" not in err


@pytest.mark.parametrize(
    "given",
    [[], ["a.json", "--live"], ["a.json", "--since", "2026-01-01"], ["--url", "https://x"]],
)
def test_files_or_live(tool: Any, given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("import", tool, *given) == 2
    assert "live" in capsys.readouterr().err
