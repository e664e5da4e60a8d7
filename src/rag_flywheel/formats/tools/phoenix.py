"""Reads spans and annotations of OpenInference, as Phoenix exports them and as OTLP JSON carries them.

Attributes are flat, "retrieval.documents.0.document.id", or nested. Positions of documents count from 0.
Annotations stand in files of their own, inside the attributes of the span, or in an EVALUATOR span that is
linked to the span.
"""

import base64
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rag_flywheel.formats.imported import Around, Foreign, LeftOut, Reading, Score
from rag_flywheel.formats.json_values import ReadBytes, ending_of, parsed, values_of
from rag_flywheel.formats.parquet import parquet_rows
from rag_flywheel.formats.tools.fields import (
    answer_of,
    hit_of,
    number_of,
    plain_keys,
    question_of,
    recorded_as,
    text_of,
    whole_of,
)
from rag_flywheel.formats.tools.shapes import is_of_another, table_rows
from rag_flywheel.records import ImportedRetrieval

_LISTS = ("data", "spans", "annotations")
_OTLP = (("resourceSpans", "scopeSpans"), ("resource_spans", "scope_spans"))
_DEEP = 30  # objects inside one another
_MOST = 10_000  # attributes of a span
_INLINE = ("annotations", "evaluations")
_RESULT = ("label", "score", "explanation")


def read_phoenix(path: Path, id_key: str | None = None, read: ReadBytes | None = None) -> Reading:
    """What a file says; id_key: the metadata key of the passage id. Raises InputError, OSError."""
    for row in _rows(path, read):
        if not isinstance(row, Mapping):
            yield Foreign("values that are no objects")
            continue
        spans = list(_of_otlp(row))
        for span in spans or [row]:
            yield from _row(span, id_key)


def _rows(path: Path, read: ReadBytes | None) -> Iterator[Any]:
    if ending_of(path) == ".parquet":
        yield from (row for _, row in parquet_rows(path, read))
    elif ending_of(path) in (".csv", ".tsv"):
        for cells in table_rows("phoenix", path, read):
            yield {name: parsed(cell) for name, cell in cells.items() if cell != ""}
    else:
        yield from (value for _, value in values_of(path, read, lists=_LISTS))


def _of_otlp(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The spans of a message of OTLP."""
    for resources, scopes in _OTLP:
        for resource in _list(row.get(resources)):
            for scope in _list(resource.get(scopes)):
                yield from _list(scope.get("spans"))


def _list(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _row(row: Mapping[str, Any], id_key: str | None) -> Reading:
    plain = plain_keys(row)
    spans = {"spanid", "context", "context.spanid"} & plain.keys()
    if is_of_another("phoenix", row):
        yield Foreign("rows that are no span and no annotation")
    elif {"annotatorkind", "result"} & plain.keys() and "attributes" not in plain:
        yield from _annotation(plain, {})
    elif spans or any(str(key).startswith("attributes.") for key in row):
        yield from _span(row, plain, id_key)
    else:
        yield Foreign("rows that are no span and no annotation")


def _span(row: Mapping[str, Any], plain: Mapping[str, Any], id_key: str | None) -> Reading:
    context = parsed(plain.get("context"))
    context = plain_keys(context) if isinstance(context, Mapping) else {}
    span = _id(context.get("spanid") or plain.get("context.spanid") or plain.get("spanid"))
    trace = _id(context.get("traceid") or plain.get("context.traceid") or plain.get("traceid"))
    if span is None:
        yield LeftOut("spans without an id")
        return
    parent = _id(plain.get("parentid") or plain.get("parentspanid"))
    attributes = _attributes(row, plain)
    kind = str(attributes.get("openinference.span.kind") or plain.get("spankind") or "").upper()
    user, session = text_of(attributes.get("user.id")), text_of(attributes.get("session.id"))
    outers = [outer for outer in (parent, trace) if outer is not None]
    if kind in ("RETRIEVER", "RERANKER"):
        yield from _retrieval(span, kind, attributes, outers, plain, (user, session), id_key)
    else:
        answer = answer_of(attributes.get("output.value")) if parent is None else None
        yield Around(span, outers[0] if outers else None, user, session, answer)
        if parent is None and trace is not None and (user or session or answer):
            yield Around(trace, None, user, session, answer)
    on = _linked(plain) if kind == "EVALUATOR" else span
    at = plain.get("endtime") or plain.get("endtimeunixnano")
    yield from _inline(attributes, on, trace, at)
    for each in _list(plain.get("documentevaluations")) + _list(plain.get("spanannotations")):
        yield from _annotation(plain_keys(each), {"spanid": span})


def _retrieval(
    span: str,
    kind: str,
    attributes: Mapping[str, Any],
    outers: list[str],
    plain: Mapping[str, Any],
    whose: tuple[str | None, str | None],
    id_key: str | None,
) -> Reading:
    reranker = kind == "RERANKER"
    prefix = "reranker.output_documents." if reranker else "retrieval.documents."
    asked = attributes.get("reranker.query") if reranker else None
    question = question_of(asked if asked is not None else attributes.get("input.value"))
    if question is None:
        yield LeftOut(f"{kind.lower()} spans without a question")
        return
    documents = _documents(attributes, prefix)
    yield ImportedRetrieval(
        span,
        question,
        [hit_of(document, id_key) for document in documents] or None,
        at=plain.get("starttime") or plain.get("starttimeunixnano"),
        user_id=whose[0],
        session_id=whose[1],
        inside=outers,
        recorded_as=recorded_as(documents),
    )


def _documents(attributes: Mapping[str, Any], prefix: str) -> list[Mapping[str, Any]]:
    """The documents in the order of their positions."""
    found: dict[int, dict[str, Any]] = defaultdict(dict)
    for name, value in attributes.items():
        if name.startswith(prefix):
            number, _, rest = name.removeprefix(prefix).partition(".")
            if number.isdecimal() and len(number) < 6:
                found[int(number)][rest.removeprefix("document.")] = value
    documents: list[Mapping[str, Any]] = []
    for place in sorted(found):
        document = found[place]
        metadata = document.get("metadata")
        if metadata is None:
            inside = {
                key.removeprefix("metadata."): value
                for key, value in document.items()
                if key.startswith("metadata.")
            }
            document = {**document, "metadata": inside} if inside else document
        documents.append(document)
    return documents


def _attributes(row: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a span by their flat names, whatever way they are written."""
    given = parsed(plain.get("attributes"))
    found: dict[str, Any] = {}
    if isinstance(given, list):  # OTLP: {"key", "value": {"stringValue": ...}} each
        given = {str(each.get("key")): _otlp_value(each.get("value"), 0) for each in _list(given)}
    if isinstance(given, Mapping):
        _flatten("", given, found, 0)
    for key, value in row.items():
        if str(key).startswith("attributes."):
            _flatten(str(key).removeprefix("attributes."), value, found, 0)
    return found


def _flatten(name: str, value: object, into: dict[str, Any], depth: int) -> None:
    if len(into) >= _MOST or depth > _DEEP:
        return
    items: list[tuple[object, Any]]
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        items = list(enumerate(value))
    else:
        into[name] = value
        return
    if name.endswith("metadata"):
        into[name] = value
        return
    for key, each in items:
        _flatten(f"{name}.{key}" if name else str(key), each, into, depth + 1)


def _otlp_value(value: object, depth: int) -> object:
    if not isinstance(value, Mapping) or depth > _DEEP:
        return value
    for kind, each in value.items():
        plain = str(kind).replace("_", "").casefold()
        if plain in ("stringvalue", "boolvalue"):
            return each
        if plain in ("intvalue", "doublevalue"):
            return number_of(each)
        if plain == "arrayvalue" and isinstance(each, Mapping):
            values = each.get("values")
            values = values if isinstance(values, list) else []
            return [_otlp_value(one, depth + 1) for one in values]
        if plain == "kvlistvalue" and isinstance(each, Mapping):
            pairs = _list(each.get("values"))
            return {str(p.get("key")): _otlp_value(p.get("value"), depth + 1) for p in pairs}
    return None


def _id(value: object) -> str | None:
    """The id of a span or trace in hexadecimal, as annotations name it; OTLP may have it in base64."""
    text = text_of(value)
    if text is None or len(text) not in (12, 24) or not text.endswith("="):
        return text
    try:
        return base64.b64decode(text, validate=True).hex()
    except ValueError:
        return text


def _linked(plain: Mapping[str, Any]) -> str | None:
    """The span that an evaluator judges: the one that it is linked to, if it is one."""
    links = [plain_keys(each) for each in _list(parsed(plain.get("links")))]
    ids = []
    for link in links:
        context = link.get("context")
        context = plain_keys(context) if isinstance(context, Mapping) else {}
        ids.append(_id(link.get("spanid") or context.get("spanid")))
    return ids[0] if len(ids) == 1 else None


def _inline(
    attributes: Mapping[str, Any], on: str | None, trace: str | None, at: object
) -> Reading:
    """The annotations in the attributes of a span: on it, or with a prefix on its trace."""
    found: dict[tuple[str, str, str], dict[str, Any]] = defaultdict(dict)
    for name, value in attributes.items():
        target, plain = "", name
        for prefix in ("trace.", "session."):
            if name.startswith(prefix):
                target, plain = prefix[:-1], name.removeprefix(prefix)
        kind, _, rest = plain.partition(".")
        number, _, field = rest.partition(".")
        if kind in _INLINE and number.isdecimal():
            found[target, kind, number][field.partition(".")[2] or field] = value
    for (target, kind, number), fields in found.items():
        if target == "session":
            yield LeftOut("annotations of sessions, which name no retrieval")
            continue
        judged = trace if target == "trace" else on
        if judged is None:
            yield LeftOut("annotations of evaluators that are linked to no span")
            continue
        given = {**plain_keys(fields), "result": {k: fields.get(k) for k in _RESULT}}
        given.setdefault("id", f"{judged}:{target}{kind}:{number}:{given.get('name')}:{on}")
        yield from _annotation({"endtime": at, **given}, {"spanid": judged})


def _annotation(given: Mapping[str, Any], of: Mapping[str, str]) -> Reading:
    """An annotation by its names without case and underscores; of: what it is on, where it does not say
    so."""
    row = {**of, **given}
    name, on = text_of(row.get("name")), text_of(row.get("spanid")) or text_of(row.get("traceid"))
    if name is None:
        yield LeftOut("annotations without a name")
        return
    if on is None:
        yield LeftOut("annotations of sessions, which name no retrieval")
        return
    result = parsed(row.get("result"))
    result = result if isinstance(result, Mapping) else row
    label, score = text_of(result.get("label")), number_of(result.get("score"))
    position = whole_of(row.get("documentposition"))
    if label is None and score is None:
        yield LeftOut("annotations without a label and without a score")
        return
    identifier = text_of(row.get("identifier")) or ""
    by = str(row.get("annotatorkind") or "HUMAN").upper()
    yield Score(
        text_of(row.get("id")) or f"{on}:{name}:{position}:{identifier}",
        on,
        name,
        label if score is None else score,
        by_model=by == "LLM",
        by_program=by == "CODE",
        rank=None if position is None else position + 1,
        author=text_of(row.get("userid")),
        at=row.get("updatedat") or row.get("createdat") or row.get("endtime"),
        comment=text_of(result.get("explanation")),
        label=label,
    )
