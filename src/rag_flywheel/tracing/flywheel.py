"""Questions and votes as spans of OpenTelemetry; the only module that imports it.

Nothing is emitted until the application, or the service, sets a tracer provider. The attributes are those
of retriever, reranker and evaluator spans of OpenInference, and of OpenTelemetry's conventions for generative
AI.
"""

import inspect
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

from opentelemetry import context, propagate, trace
from opentelemetry.trace import Link, Span, SpanContext, StatusCode

from rag_flywheel.errors import FlywheelError
from rag_flywheel.flywheel import Flywheel
from rag_flywheel.records import Retrieval
from rag_flywheel.tracing.feedback import RECORDS, Arguments, Feedback

MOST_LINKED = 10_000  # retrievals whose spans are remembered, so that votes on them are linked
_KIND = "openinference.span.kind"
_KINDS = {"retrieve": "RETRIEVER", "retrieve_many": "RETRIEVER", "rerank": "RERANKER"}
_DOCUMENTS = {"RETRIEVER": "retrieval.documents", "RERANKER": "reranker.output_documents"}
_SCORES = {"helpful": 1.0, "harmful": 0.0}
_EVALUATION = "user_feedback"
T = TypeVar("T", bound=type[Flywheel])
Method = Callable[..., Any]


class Spans:
    """The spans of recent retrievals, by the ids of these; thread-safe."""

    def __init__(self, most: int = MOST_LINKED) -> None:
        self._most = most
        self._spans: OrderedDict[str, SpanContext] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, retrieval_id: str, span: SpanContext) -> None:
        """Remember the span of a retrieval, in place of the oldest one."""
        with self._lock:
            self._spans[retrieval_id] = span
            while len(self._spans) > self._most:
                self._spans.popitem(last=False)

    def of(self, retrieval_id: str | None) -> SpanContext | None:
        """The span of a retrieval, if it is remembered."""
        with self._lock:
            return None if retrieval_id is None else self._spans.get(retrieval_id)


def traced(cls: T) -> T:
    """The class, whose calls are spans from now on."""
    for name in _KINDS:
        setattr(cls, name, _retrieving(name, getattr(cls, name)))
    for name, recorded in RECORDS.items():
        setattr(cls, name, _capturing(recorded, getattr(cls, name)))
    return cls


@contextmanager
def request_context(headers: Mapping[str, str]) -> Iterator[None]:
    """Spans within are of the trace that a request names in `traceparent`."""
    token = context.attach(propagate.extract(headers))
    try:
        yield
    finally:
        context.detach(token)


def set_up_exporter(service: str) -> bool:
    """Export spans by OTLP, as the environment says, unless the application has set a provider already; False
    where opentelemetry-sdk or its exporter is missing."""
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return True
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        return False
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return True


def _name_of(fw: Flywheel) -> str:
    """The name that a service gave the index, or that of its folder."""
    return getattr(fw, "name", "") or fw._root.resolve().name


def _spans_of(fw: Flywheel) -> Spans:
    found: Spans = fw.__dict__.setdefault("_spans", Spans())
    return found


def _arguments(
    signature: inspect.Signature, fw: Flywheel, args: Any, named: Any
) -> Arguments | None:
    """The arguments of a call by name; None: there are too many or too few, as the call will say."""
    try:
        bound = signature.bind(fw, *args, **named)
    except TypeError:
        return None
    bound.apply_defaults()
    return bound.arguments


def _retrieving(source: str, method: Method) -> Method:
    signature, kind = inspect.signature(method), _KINDS[source]

    @wraps(method)
    def call(self: Flywheel, *args: Any, **named: Any) -> Any:
        with _span(f"{source} {_name_of(self)}") as span:
            found = method(self, *args, **named)
            if not span.is_recording():
                return found
            given = _arguments(signature, self, args, named) or {}
            span.set_attributes(
                {
                    _KIND: kind,
                    "gen_ai.operation.name": "retrieval",
                    "gen_ai.data_source.id": _name_of(self),
                    "gen_ai.retrieval.top_k": given.get("k", 0),
                }
            )
            answers: Sequence[Retrieval] = [found] if isinstance(found, Retrieval) else found
            for answer in answers:
                if answer.id is not None:
                    _spans_of(self).keep(answer.id, span.get_span_context())
            if isinstance(found, Retrieval):
                content = getattr(self, "trace_content", False)
                span.set_attributes(_of_answer(found, kind, content=content))
            return found

    return call


def _of_answer(found: Retrieval, kind: str, *, content: bool) -> dict[str, Any]:
    attributes: dict[str, Any] = {"rag_flywheel.answerable": found.answerable}
    if found.id is not None:
        attributes["rag_flywheel.retrieval.id"] = found.id
    if found.version is not None:
        attributes["rag_flywheel.version"] = found.version
    documents = [{"id": hit.passage_id, "score": hit.score} for hit in found.hits]
    attributes["gen_ai.retrieval.documents"] = json.dumps(documents)
    for i, hit in enumerate(found.hits):
        place = f"{_DOCUMENTS[kind]}.{i}.document"
        attributes[f"{place}.id"] = hit.passage_id
        attributes[f"{place}.score"] = hit.score
        if content:
            attributes[f"{place}.content"] = hit.text
    if content:
        attributes["input.value"] = attributes["gen_ai.retrieval.query.text"] = found.query
        if kind == "RERANKER":
            attributes["reranker.query"] = found.query
    return attributes


def _capturing(recorded: Callable[[Arguments], list[Feedback]], method: Method) -> Method:
    signature = inspect.signature(method)

    @wraps(method)
    def call(self: Flywheel, *args: Any, **named: Any) -> Any:
        found = method(self, *args, **named)
        given = _arguments(signature, self, args, named)
        if found and given is not None:
            for feedback in recorded(given):
                _emit(self, feedback)
        return found

    return call


def _emit(fw: Flywheel, feedback: Feedback) -> None:
    """An evaluator span, linked to the span of the retrieval that is judged."""
    judged = _spans_of(fw).of(feedback.retrieval_id)
    links = [] if judged is None else [Link(judged)]
    with _span(f"feedback {_name_of(fw)}", links) as span:
        if not span.is_recording():
            return
        label = feedback.verdict or feedback.kind
        attributes: dict[str, Any] = {
            _KIND: "EVALUATOR",
            "gen_ai.evaluation.name": _EVALUATION,
            "gen_ai.evaluation.score.label": label,
            "annotations.0.annotation.name": _EVALUATION,
            "annotations.0.annotation.label": label,
            "annotations.0.annotation.annotator_kind": "HUMAN",
            "rag_flywheel.feedback.kind": feedback.kind,
            "rag_flywheel.retrieval.id": feedback.retrieval_id or "",
        }
        if (score := _SCORES.get(feedback.verdict)) is not None:
            attributes["gen_ai.evaluation.score.value"] = score
            attributes["annotations.0.annotation.score"] = score
        if feedback.passage_id is not None:
            attributes["rag_flywheel.passage.id"] = feedback.passage_id
        if feedback.why and getattr(fw, "trace_content", False):
            attributes["gen_ai.evaluation.explanation"] = feedback.why
            attributes["annotations.0.annotation.explanation"] = feedback.why
        span.set_attributes(attributes)


@contextmanager
def _span(name: str, links: Sequence[Link] = ()) -> Iterator[Span]:
    """The current span; of an error it holds the name alone, since messages quote what users wrote."""
    with trace.get_tracer("rag_flywheel").start_as_current_span(
        name, links=links, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except FlywheelError as error:
            span.set_status(StatusCode.ERROR, type(error).__name__)
            span.set_attribute("error.type", type(error).__name__)
            raise


@traced
class TracedFlywheel(Flywheel):
    """A Flywheel whose questions and votes are spans of OpenTelemetry.

    trace_content: whether spans hold questions, texts and reasons; set it after opening.
    """

    trace_content = False
