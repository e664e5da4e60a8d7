"""What a client sends: JSON, addresses, and passages in parts of bounded size."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any
from urllib.parse import quote

from rag_flywheel.checks import as_python, check_text, is_list
from rag_flywheel.errors import InputError, quoted
from rag_flywheel.records import AddReport, Passage

PART_BYTES, PART_ROWS = 2 * 2**20, 500  # that the service can add within the time of a call
PAGE_ROWS = 1_000
Named = dict[str, Any]


def as_json(value: object) -> bytes:
    """JSON of what a caller gave. Raises InputError for what JSON does not have."""
    try:
        return json.dumps(value, allow_nan=False, default=_plain).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"found {quoted(value)}; expected what JSON can hold: {error}") from None


def _plain(value: object) -> object:
    found = as_python(value)
    if found is value:
        raise TypeError(f"{type(value).__name__} is none of its types")
    return found


def in_path(name: str, value: object) -> str:
    """An id as a part of an address. Raises InputError for what is no id."""
    found = check_text(name, value)
    if not found:
        raise InputError(f"{name} is ''; expected an id")
    return quote(found, safe="").replace(".", "%2E")  # or ".." would be a folder above


def tenant_body(tenant: object, all_tenants: object = False) -> Named:
    """How a body names a tenant."""
    return {"tenant": as_python(tenant), "all_tenants": as_python(all_tenants)}


def tenant_query(tenant: object, all_tenants: object = False) -> Named:
    """How an address names a tenant. Raises InputError."""
    tenant, all_tenants = as_python(tenant), as_python(all_tenants)
    if tenant is not None and (isinstance(tenant, bool) or not isinstance(tenant, str | int)):
        raise InputError(f"tenant is {quoted(tenant)}; expected a string or a whole number")
    if not isinstance(all_tenants, bool):
        raise InputError(f"all_tenants is {quoted(all_tenants)}; expected True or False")
    named: Named = {} if tenant is None else {"tenant": json.dumps(tenant)}
    return {**named, "all_tenants": "true"} if all_tenants else named


def params_of(**given: Any) -> Named:
    """The parameters of an address that are not None."""
    return {name: value for name, value in given.items() if value is not None}


def recorded_id(retrieval_id: object) -> str:
    """The id of a recorded retrieval. Raises InputError."""
    if isinstance(retrieval_id, str):
        return retrieval_id
    from rag_flywheel.capture.votes import check_retrieval_id  # which takes 70 ms to load

    return check_retrieval_id(retrieval_id)


def retrieval_or_run(retrieval_id: object, run: object) -> Named:
    """How a body names what feedback is about. Raises InputError."""
    if run is None:
        return {"retrieval_id": recorded_id(retrieval_id)}
    return {"retrieval_id": retrieval_id, "run": run}


def listed(given: object) -> object:
    """One id, or a list, tuple or the like of them, as JSON has it."""
    return [listed(each) for each in given] if is_list(given) else as_python(given)  # type: ignore[attr-defined]


def ranked(k: object, where: Mapping[str, Any] | None, min_relevance: object) -> Named:
    """What every question says of its hits."""
    return {
        "k": as_python(k),
        "where": filter_json(where),
        "min_relevance": as_python(min_relevance),
    }


def passage_json(passage: Passage) -> Named:
    """A passage as the service takes it."""
    return {
        "id": passage.id,
        "text": passage.text,
        "title": passage.title,
        "metadata": passage.metadata,
    }


def parts_of(passages: Iterable[Passage]) -> Iterator[tuple[list[Passage], bytes]]:
    """Yield the passages some at a time, with their lines of JSON."""
    part: list[Passage] = []
    lines: list[bytes] = []
    size = 0
    for passage in passages:
        line = as_json(passage_json(passage)) + b"\n"
        if part and (len(part) == PART_ROWS or size + len(line) > PART_BYTES):
            yield part, b"".join(lines)
            part, lines, size = [], [], 0
        part.append(passage)
        lines.append(line)
        size += len(line)
    if part:
        yield part, b"".join(lines)


def summed(reports: Iterable[AddReport]) -> AddReport:
    """What several reports come to together."""
    total = AddReport(0, 0, 0)
    counts = [f.name for f in fields(AddReport) if f.name != "left_out"]
    for each in reports:
        total = replace(total, **{n: getattr(total, n) + getattr(each, n) for n in counts})
    return total


def filter_json(given: Mapping[str, Any] | None) -> Named | None:
    """A filter in the types of JSON. Raises InputError."""
    if given is None:
        return None
    from rag_flywheel.store.filters import plain_filter  # where few callers need it

    return dict(plain_filter(given))
