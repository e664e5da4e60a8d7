"""Questions and votes as spans, exported to memory."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import _logs, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fakes import WordEncoder
from rag_flywheel import Candidate, Flywheel, Passage, UnknownIdError, Vote
from rag_flywheel.tracing import flywheel as tracing
from rag_flywheel.tracing.flywheel import Spans, TracedFlywheel
from service_client import client_of, make_index

HIDDEN = ("when are parcels sent", "invoices are paid", "because of monday", "user-ann")


@pytest.fixture(scope="module")
def provider() -> TracerProvider:
    made = TracerProvider()
    trace.set_tracer_provider(made)
    return made


@pytest.fixture
def exporter(provider: TracerProvider) -> Iterator[InMemorySpanExporter]:
    made = InMemorySpanExporter()
    processor = SimpleSpanProcessor(made)
    provider.add_span_processor(processor)
    yield made
    processor.shutdown()
    provider._active_span_processor._span_processors = ()


@pytest.fixture(scope="module")
def records() -> InMemoryLogRecordExporter:
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    _logs.set_logger_provider(provider)  # a process has one for good
    return exporter


@pytest.fixture
def logged(records: InMemoryLogRecordExporter) -> InMemoryLogRecordExporter:
    records.clear()
    return records


@pytest.fixture
def fw(tmp_path: Path, exporter: InMemorySpanExporter) -> Iterator[TracedFlywheel]:
    with TracedFlywheel.open(tmp_path / "kb", encoder=WordEncoder()) as opened:
        assert isinstance(opened, TracedFlywheel)
        opened.add(
            [
                Passage("pay", "invoices are paid by card"),
                Passage("send", "parcels are sent on monday"),
            ]
        )
        yield opened


def spans(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    found = list(exporter.get_finished_spans())
    exporter.clear()
    return found


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_question_is_a_retriever_span(fw: TracedFlywheel, exporter: InMemorySpanExporter) -> None:
    answer = fw.retrieve("when are parcels sent", 2, user_id="ann")
    (span,) = spans(exporter)
    found = attributes(span)
    assert span.name == "retrieve kb"
    assert found["openinference.span.kind"] == "RETRIEVER"
    assert found["gen_ai.operation.name"] == "retrieval"
    assert (found["gen_ai.data_source.id"], found["gen_ai.retrieval.top_k"]) == ("kb", 2)
    assert found["rag_flywheel.retrieval.id"] == answer.id
    for i, hit in enumerate(answer.hits):
        assert found[f"retrieval.documents.{i}.document.id"] == hit.passage_id
        assert found[f"retrieval.documents.{i}.document.score"] == pytest.approx(hit.score)
    documents = json.loads(found["gen_ai.retrieval.documents"])
    assert [each["id"] for each in documents] == [hit.passage_id for hit in answer.hits]


def test_a_vote_is_an_evaluator_span_with_one_link(
    fw: TracedFlywheel, exporter: InMemorySpanExporter
) -> None:
    answer = fw.retrieve("when are parcels sent")
    (asked,) = spans(exporter)
    fw.feedback(answer.id, "send", "helpful", user_id="ann", reason="because of monday")
    fw.feedback_many(
        [Vote(answer.id, "pay", "harmful", "bob"), Vote(answer.id, "send", "retract", "ann")]
    )
    fw.answer_feedback(answer.id, "harmful", user_id="ann")
    fw.adopted(answer.id, used=True)
    fw.signal(answer.id, "copied", passage_id="pay")
    fw.correct(answer.id, "pay")
    fw.missing(answer.id, "because of monday")
    fw.relevance(answer.id, {"pay": False, "send": True}, user_id="cem")
    found = spans(exporter)
    assert {span.name for span in found} == {"feedback kb"}
    assert asked.context is not None
    for span in found:
        (link,) = span.links
        assert link.context.span_id == asked.context.span_id
        assert attributes(span)["openinference.span.kind"] == "EVALUATOR"
        assert attributes(span)["rag_flywheel.retrieval.id"] == answer.id
    seen = [
        (a["rag_flywheel.feedback.kind"], a["annotations.0.annotation.label"],
         a.get("annotations.0.annotation.score"), a.get("rag_flywheel.passage.id"))
        for a in map(attributes, found)
    ]  # fmt: skip
    assert seen == [
        ("vote", "helpful", 1.0, "send"),
        ("vote", "harmful", 0.0, "pay"),
        ("vote", "retract", None, "send"),
        ("answer", "harmful", 0.0, None),
        ("adopted", "helpful", 1.0, None),
        ("copied", "copied", None, "pay"),
        ("correction", "helpful", 1.0, "pay"),
        ("missing", "harmful", 0.0, None),
        ("vote", "harmful", 0.0, "pay"),
        ("vote", "helpful", 1.0, "send"),
    ]
    assert [
        a for a in map(attributes, found) if a["annotations.0.annotation.name"] != "user_feedback"
    ] == []


def test_a_verdict_on_a_run_is_a_span_for_each_retrieval(
    fw: TracedFlywheel, exporter: InMemorySpanExporter
) -> None:
    asked = [fw.retrieve(query, run_id="run").id for query in ("parcels", "invoices")]
    of = {attributes(each)["rag_flywheel.retrieval.id"]: each.context for each in spans(exporter)}
    fw.answer_feedback(run="run", verdict="helpful")
    fw.feedback(run="run", passage_id="pay", verdict="helpful")
    fw.missing(run="run")
    found = spans(exporter)
    named = [attributes(each)["rag_flywheel.retrieval.id"] for each in found]
    assert named == [asked[1], asked[0], asked[1], asked[1]]
    assert [each.links[0].context for each in found] == [of[name] for name in named]


def test_what_people_write_is_in_no_span_unless_asked_for(
    fw: TracedFlywheel, exporter: InMemorySpanExporter
) -> None:
    def ask() -> str:
        answer = fw.retrieve("when are parcels sent", user_id="user-ann", session_id="s-user-ann")
        fw.feedback(answer.id, "send", "helpful", user_id="user-ann", reason="because of monday")
        fw.rerank("when are parcels sent", [Candidate("x", "invoices are paid by card", 1.0)])
        return repr([(span.name, attributes(span)) for span in spans(exporter)])

    assert not [each for each in HIDDEN if each in ask()]
    fw.trace_content = True
    assert [each for each in HIDDEN if each not in ask()] == ["user-ann"]


def test_an_application_s_own_candidates_are_a_reranker_span(
    fw: TracedFlywheel, exporter: InMemorySpanExporter
) -> None:
    answer = fw.rerank(
        "when are parcels sent", [Candidate("x", "some", 1.0), Candidate("y", "other", 0.5)], 1
    )
    fw.feedback(answer.id, "x", "helpful")
    reranked, judged = spans(exporter)
    found = attributes(reranked)
    assert (reranked.name, found["openinference.span.kind"]) == ("rerank kb", "RERANKER")
    assert found["reranker.output_documents.0.document.id"] == "x"
    assert found["gen_ai.retrieval.top_k"] == 1
    assert len(judged.links) == 1


def test_several_questions_are_one_span_that_votes_are_linked_to(
    fw: TracedFlywheel, exporter: InMemorySpanExporter
) -> None:
    answers = fw.retrieve_many(["when are parcels sent", "how are invoices paid"])
    fw.feedback(answers[1].id, "pay", "helpful")
    many, judged = spans(exporter)
    assert many.name == "retrieve_many kb" and many.context is not None
    assert [link.context.span_id for link in judged.links] == [many.context.span_id]


def test_an_error_is_named_without_its_words(
    fw: TracedFlywheel, exporter: InMemorySpanExporter
) -> None:
    with pytest.raises(ValueError, match="k is"):
        fw.retrieve("when are parcels sent", 0)
    (span,) = spans(exporter)
    assert (span.status.description, attributes(span)["error.type"]) == ("InputError", "InputError")
    assert span.events == ()
    with pytest.raises(UnknownIdError):
        fw.feedback("no such", "pay", "helpful")
    assert spans(exporter) == []  # nothing was recorded, so nothing was judged


def test_a_vote_on_a_forgotten_span_has_no_link(
    fw: TracedFlywheel, exporter: InMemorySpanExporter
) -> None:
    answer = fw.retrieve("when are parcels sent")
    fw.__dict__["_spans"] = Spans()  # as in another process
    fw.feedback(answer.id, "send", "helpful")
    _, judged = spans(exporter)
    assert judged.links == ()
    few = Spans(2)
    context = trace.INVALID_SPAN_CONTEXT
    for name in "abc":
        few.keep(name, context)
    assert [few.of(name) for name in (*"abc", None)] == [None, context, context, None]


def test_a_plain_flywheel_emits_nothing(tmp_path: Path, exporter: InMemorySpanExporter) -> None:
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder()) as plain:
        plain.add([Passage("pay", "invoices are paid by card")])
        plain.retrieve("invoices")
    assert spans(exporter) == []


def test_the_service_s_spans_are_in_the_trace_of_the_caller(
    tmp_path: Path, exporter: InMemorySpanExporter
) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with client_of(make_index(tmp_path / "kb"), trace=True) as client:
        sent = {"traceparent": parent}
        asked = client.post("/v1/retrieve", json={"query": "a new password"}, headers=sent).json()
        hit = asked["hits"][0]["passage_id"]
        vote = {"retrieval_id": asked["id"], "passage_id": hit, "verdict": "helpful"}
        assert client.post("/v1/feedback", json=vote).status_code == 200
    # newer releases of FastAPI emit a span for each request, which is then the parent of ours
    retrieved, judged = (s for s in spans(exporter) if s.name.endswith(" kb"))
    assert retrieved.name == "retrieve kb" and retrieved.context is not None
    assert f"{retrieved.context.trace_id:032x}" == parent.split("-")[1]
    assert retrieved.parent is not None
    assert [link.context.span_id for link in judged.links] == [retrieved.context.span_id]
    assert judged.context is not None and judged.context.trace_id != retrieved.context.trace_id


@pytest.mark.parametrize("traced", [True, False])
def test_an_error_of_the_service_is_in_no_log_of_the_framework(
    tmp_path: Path,
    exporter: InMemorySpanExporter,
    logged: InMemoryLogRecordExporter,
    monkeypatch: pytest.MonkeyPatch,
    traced: bool,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of user-ann")

    with client_of(make_index(tmp_path / "kb"), trace=traced) as client:
        monkeypatch.setattr(Flywheel, "_request", fails)
        sent = {"query": "a secret", "user_id": "user-ann"}
        assert client.post("/v1/retrieve", json=sent).status_code == 500
        assert client.post("/v1/retrieve", json={**sent, "k": "many"}).status_code == 422
    assert logged.get_finished_logs() == ()
    found = repr([(span.name, attributes(span), span.events) for span in spans(exporter)])
    assert "secret" not in found and "user-ann" not in found
    assert traced or found == "[]"


def test_a_service_without_tracing_loads_none_of_it() -> None:
    code = "import sys, rag_flywheel.service.app; print('rag_flywheel.tracing.flywheel' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert tracing.MOST_LINKED == 10_000
