"""Fetches observations and scores of Langfuse: the extra `langfuse`.

Scores come first, so that of observations which are no retrievers only those of traces with scores are
kept: they say which retrievers a score is on, who asked, and what the answer was. Scores on traces from
before the period bring these traces along.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
from langfuse.api import LangfuseAPI
from langfuse.api.core.api_error import ApiError

from rag_flywheel.errors import ConfigError
from rag_flywheel.integrations.live.asked import Asked, Rows, failed

_HOST = "https://cloud.langfuse.com"
_KEYS = "LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"
_SCORES = 100  # a page; the most that the API gives
_OBSERVATIONS = 1000  # a page; the same
_WITH_TEXTS = 100  # a page of observations with their inputs and outputs, which may be long
_TEXTS = "core,basic,io"  # io: not given unless it is asked for
_RETRIES = {"max_retries": 5}
_WAITS_S = 1.0, 4.0


def fetch(asked: Asked, rows: Rows) -> None:
    """Write the observations and scores of a period. Raises ConfigError, AccessError, ServiceError."""
    url = asked.url or os.environ.get("LANGFUSE_BASE_URL") or os.environ.get("LANGFUSE_HOST")
    url = (url or _HOST).rstrip("/")
    public, secret = (os.environ.get(name, "").strip() for name in _KEYS)
    if not public or not secret:
        raise ConfigError(
            f"{' or '.join(_KEYS)} is not set; set both to the keys of a project at {url}"
        )
    with httpx.Client(timeout=60, follow_redirects=True) as http:
        api = LangfuseAPI(base_url=url, username=public, password=secret, httpx_client=http)
        try:
            _fetch(api, asked, rows)
        except ApiError as error:
            raise failed(
                "Langfuse", url, _said(error.body), error.status_code, " and ".join(_KEYS)
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise failed("Langfuse", url, _said(error), None, "") from None
        except ValueError as error:  # what its client cannot read
            raise failed(
                "Langfuse", url, f"with what its client cannot read: {error}", 200, ""
            ) from None


def _fetch(api: LangfuseAPI, asked: Asked, rows: Rows) -> None:
    scored, found = set[str](), set[str]()
    started = {"from_start_time": asked.since, "to_start_time": asked.until}
    for score in _all(
        api.scores.get_many,
        fields="details,subject,annotation",
        limit=_SCORES,
        from_timestamp=asked.since,
        to_timestamp=asked.until,
    ):
        rows.write(score)
        scored |= _trace_of(score)
    many = api.observations.get_many
    for retriever in _all(many, type="RETRIEVER", fields=_TEXTS, limit=_WITH_TEXTS, **started):
        rows.write(retriever)
        found |= scored & {retriever.get("trace_id")}
    if not scored:
        return
    for inner in _all(many, fields="core,basic", limit=_OBSERVATIONS, **started):
        if inner.get("trace_id") in scored and inner.get("type") != "RETRIEVER":
            rows.write(inner)
            found.add(inner["trace_id"])
    for root in _all(
        many, is_root_observation=True, fields=_TEXTS, limit=_WITH_TEXTS, **started
    ):  # with the answers
        if root.get("trace_id") in scored and root.get("type") != "RETRIEVER":
            rows.write(root)
    for trace in sorted(scored - found):
        for observation in _all(many, trace_id=trace, fields=_TEXTS, limit=_WITH_TEXTS):
            rows.write(observation)


def _all(ask: Callable[..., Any], **options: Any) -> Iterator[dict[str, Any]]:
    """Each row of each page, as far as it was given, with the names that the client gives its fields."""
    given = {name: value for name, value in options.items() if value is not None}
    cursor: str | None = None
    while True:
        page = _page(ask, **given, cursor=cursor, request_options=_RETRIES)
        yield from (row.model_dump(exclude_unset=True) for row in page.data)
        if not (page.meta.cursor and page.data) or page.meta.cursor == cursor:
            return
        cursor = page.meta.cursor


def _page(ask: Callable[..., Any], **given: Any) -> Any:
    """A page; its client asks again by itself where the server says so, but not when a connection ends."""
    for wait_s in _WAITS_S:
        try:
            return ask(**given)
        except httpx.TransportError:
            time.sleep(wait_s)
    return ask(**given)


def _trace_of(score: Mapping[str, Any]) -> set[str]:
    subject = score.get("subject") or {}
    trace = {"trace": subject.get("id"), "observation": subject.get("trace_id")}
    found = trace.get(str(subject.get("kind")))
    return {found} if isinstance(found, str) else set()


def _said(body: object) -> str:
    """What a body says, without its braces."""
    if isinstance(body, Mapping):
        return str(body.get("message") or body.get("error") or body)
    return str(body) or type(body).__name__
