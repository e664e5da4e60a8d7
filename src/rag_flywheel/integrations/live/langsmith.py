"""Fetches runs and feedback of LangSmith: the extra `langsmith`.

Feedback comes first, so that of the other runs only the roots of traces with feedback are kept, which hold
the answers. Feedback on traces from before the period brings their runs along.
"""

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from langsmith import APIError, APIStatusError, Client, Langsmith
from langsmith.utils import LangSmithError, LangSmithNotFoundError, get_tracer_project

from rag_flywheel.errors import ConfigError, FlywheelError
from rag_flywheel.integrations.live.asked import Asked, Rows, failed

_KEY = "LANGSMITH_API_KEY"
_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)  # or the API takes only the last day
_PAGE = 100
_RETRIES = 5
_FIELDS = [
    "ID",
    "RUN_TYPE",
    "START_TIME",
    "EXTRA",
    "METADATA",
    "INPUTS",
    "OUTPUTS",
    "PARENT_RUN_IDS",
    "TRACE_ID",
    "THREAD_ID",
    "DOTTED_ORDER",
]


def fetch(asked: Asked, rows: Rows) -> None:
    """Write the runs and feedback of a period. Raises ConfigError, AccessError, ServiceError."""
    with warnings.catch_warnings():  # a missing key is an error here
        warnings.simplefilter("ignore")
        client = Client(api_url=asked.url, auto_batch_tracing=False)
    url = client.api_url
    if not client.api_key:
        raise ConfigError(f"{_KEY} is not set; set it to a key of a workspace at {url}")
    try:
        _fetch(client, asked, rows)
    except APIStatusError as error:
        raise failed("LangSmith", url, str(error.body or error), error.status_code, _KEY) from None
    except APIError as error:
        raise failed("LangSmith", url, str(error), None, _KEY) from None
    except FlywheelError:
        raise
    except (LangSmithError, OSError) as error:  # OSError: what requests raises
        raise failed("LangSmith", url, str(error), _status_of(error), _KEY) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        problem = f"with what its client cannot read: {error}"
        raise failed("LangSmith", url, problem, 200, _KEY) from None


def _fetch(client: Client, asked: Asked, rows: Rows) -> None:
    name = asked.project or get_tracer_project()
    project = str(client.read_project(project_name=name).id)
    scored, found = set[str](), set[str]()
    for feedback in client.list_feedback(**_of_feedback(project, asked)):
        row = feedback.model_dump()
        at = row.get("created_at")
        if at is not None and not _within(at, asked):
            continue
        rows.write(row)
        if row.get("trace_id") is not None:
            scored.add(str(row["trace_id"]))
    with Langsmith(
        api_key=client.api_key,
        tenant_id=client.workspace_id,
        base_url=client.api_url.rstrip("/").removesuffix("/v1").removesuffix("/api"),
        max_retries=_RETRIES,
    ) as api:
        period = {"min_start_time": asked.since or _BEGINNING, "max_start_time": asked.until}
        for run in _runs(api, project, run_type="RETRIEVER", **period):
            rows.write(run)
            found |= scored & {run.get("trace_id")}
        if not scored:
            return
        for root in _runs(api, project, is_root=True, **period):
            if root.get("trace_id") in scored and root.get("run_type") != "RETRIEVER":
                rows.write(root)
                found.add(root["trace_id"])
        for trace in sorted(scored - found):
            for run in _runs(api, project, trace_id=trace, min_start_time=_BEGINNING):
                rows.write(run)


def _of_feedback(project: str, asked: Asked) -> dict[str, Any]:
    given = {"session": project, "max_created_at": asked.until.isoformat()}
    if asked.since is not None:
        given["min_created_at"] = asked.since.isoformat()
    return given


def _within(at: datetime, asked: Asked) -> bool:
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return at < asked.until and (asked.since is None or at >= asked.since)


def _runs(api: Langsmith, project: str, **asked: Any) -> Iterator[dict[str, Any]]:
    pages = api.runs.query(project_ids=[project], selects=_FIELDS, page_size=_PAGE, **asked)
    for run in pages:
        yield run.to_dict(mode="python")


def _status_of(error: Exception) -> int | None:
    """The status of an answer that its client took for an error; 404 for a project that is not there."""
    if isinstance(error, LangSmithNotFoundError):
        return 404
    inner: BaseException | None = error
    while inner is not None:
        status = getattr(getattr(inner, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        inner = inner.__cause__ or inner.__context__
    return None
