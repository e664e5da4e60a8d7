"""Fetches spans of Arize Phoenix with their annotations: the extra `phoenix`.

Its client says where the server is and how it is spoken to; since its `get_spans` keeps all that it fetches
in memory, and nothing in it reads the annotations of traces, the pages are asked for here. The REST API
gives no annotations of documents.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx
from phoenix.client.utils.config import (
    get_base_url,
    get_env_client_headers,
    get_env_project_name,
)

from rag_flywheel.errors import ConfigError
from rag_flywheel.integrations.live.asked import Asked, Rows, failed

_SPANS = 100  # a page, and the most ids that its client sends at once
_ANNOTATIONS = 1000  # a page
_ATTEMPTS = 6
_LONGEST_WAIT_S = 60.0
_AGAIN = (408, 429)
_KEYS = "PHOENIX_API_KEY"


def fetch(asked: Asked, rows: Rows) -> None:
    """Write the spans that started in a period, and the annotations of them and of their traces, whenever
    these were given. Raises ConfigError, AccessError, ServiceError."""
    try:
        url = httpx.URL(asked.url) if asked.url is not None else get_base_url()
        headers, project = get_env_client_headers(), asked.project or get_env_project_name()
    except (ValueError, httpx.InvalidURL) as error:
        raise ConfigError(f"{error}; expected the address of Phoenix") from None
    with httpx.Client(base_url=url, headers=headers, timeout=60, follow_redirects=True) as http:
        try:
            _fetch(http, f"v1/projects/{quote(project, safe='')}", asked, rows)
        except httpx.HTTPStatusError as error:
            answer = error.response
            text = f"{answer.text} (project {project})"
            raise failed("Phoenix", str(url), text, answer.status_code, _KEYS) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            problem = str(error) or type(error).__name__
            raise failed("Phoenix", str(url), problem, None, _KEYS) from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise failed(
                "Phoenix", str(url), f"with what is no page of spans: {error}", 200, _KEYS
            ) from None


def _fetch(http: httpx.Client, project: str, asked: Asked, rows: Rows) -> None:
    period = {"end_time": asked.until.isoformat()}
    if asked.since is not None:
        period["start_time"] = asked.since.isoformat()
    traces_asked = set[str]()
    for spans in _pages(http, f"{project}/spans", {**period, "limit": _SPANS}):
        for span in spans:
            rows.write(span)
        ids = [span["context"]["span_id"] for span in spans]
        traces = {span["context"]["trace_id"] for span in spans} - traces_asked
        traces_asked |= traces
        for path, name, of in (
            ("span_annotations", "span_ids", ids),
            ("trace_annotations", "trace_ids", sorted(traces)),
        ):
            if of:
                given = {name: of, "limit": _ANNOTATIONS}
                for annotations in _pages(http, f"{project}/{path}", given):
                    for annotation in annotations:
                        rows.write(annotation)


def _pages(
    http: httpx.Client, path: str, given: Mapping[str, Any]
) -> Iterator[Sequence[Mapping[str, Any]]]:
    cursor: str | None = None
    while True:
        params = {**given, **({"cursor": cursor} if cursor else {})}
        page = _answer(http, path, params).json()
        yield page["data"]
        before, cursor = cursor, page.get("next_cursor")
        if not cursor or not page["data"] or cursor == before:
            return


def _answer(http: httpx.Client, path: str, params: Mapping[str, Any]) -> httpx.Response:
    """The answer to a question, which is asked again where that may help."""
    for attempt in range(_ATTEMPTS):
        last = attempt == _ATTEMPTS - 1
        try:
            response = http.get(path, params=params, headers={"accept": "application/json"})
        except httpx.TransportError:
            if last:
                raise
            time.sleep(2.0**attempt / 2)
            continue
        if last or not (response.status_code in _AGAIN or response.status_code >= 500):
            break
        time.sleep(_wait_s(response, attempt))
    response.raise_for_status()
    return response


def _wait_s(response: httpx.Response, attempt: int) -> float:
    try:
        asked_for = float(response.headers.get("retry-after", ""))
    except ValueError:
        asked_for = 2.0**attempt / 2
    return min(max(asked_for, 0.0), _LONGEST_WAIT_S)
