"""The APIs of Langfuse, Phoenix and LangSmith on loopback, in the shape of each, with rows of a test."""

import base64
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Row = dict[str, Any]
Answer = tuple[int, Any]
PAGE = 2
"""The most rows of a page, whatever is asked for, so that a few rows are several pages."""


@dataclass
class Asked:
    """A request, and the answer to it."""

    path: str
    query: dict[str, list[str]]
    body: Any
    headers: dict[str, str]

    def one(self, name: str) -> str | None:
        return self.query[name][0] if name in self.query else None


@dataclass
class ToolServer:
    """Rows by their kind, what was asked, and failures: at the n-th request to a path, this status.

    status: 0 cuts the connection. times: how often in a row.
    """

    answer: Callable[["ToolServer", Asked], Answer]
    rows: dict[str, list[Row]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    fails: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    url: str = ""

    def fail(self, path: str, status: int, *, at: int = 1, times: int = 1) -> None:
        """Fail from the `at`-th request on whose path ends with `path`."""
        self.fails[path] = (status, at, times)

    def handled(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        for path, (status, at, times) in self.fails.items():
            n = sum(each.path.endswith(path) for each in self.asked)
            if asked.path.endswith(path) and at <= n < at + times:
                return status, {"message": "no \x1b[31m luck", "detail": "no luck"}
        return self.answer(self, asked)

    def paths(self) -> list[str]:
        return [each.path for each in self.asked]


@contextmanager
def served(answer: Callable[[ToolServer, Asked], Answer]) -> Iterator[ToolServer]:
    """A server on loopback until the block ends."""
    tool = ToolServer(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, found = tool.handled(Asked(parts.path, parse_qs(parts.query), body, headers))
            if not status:
                self.close_connection = True
                return
            data = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            if status == 429:
                self.send_header("retry-after", "1")
            self.end_headers()
            self.wfile.write(data)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    tool.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield tool
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def moment(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def within(row: Row, key: str, since: str | None, until: str | None) -> bool:
    at = moment(row[key])
    return (since is None or at >= moment(since)) and (until is None or at < moment(until))


def page(rows: Sequence[Row], cursor: str | None) -> tuple[list[Row], str | None]:
    """A page from an opaque cursor on, and the next cursor."""
    start = int(base64.b64decode(cursor)) if cursor else 0
    rest = start + PAGE
    following = base64.b64encode(str(rest).encode()).decode() if rest < len(rows) else None
    return list(rows[start:rest]), following


def langfuse(tool: ToolServer, asked: Asked) -> Answer:
    """`/api/public/v2/observations` and `/api/public/v3/scores`."""
    keys = base64.b64encode(b"pk-lf-1:sk-lf-1").decode()
    if asked.headers.get("authorization") != f"Basic {keys}":
        return 401, {"message": "Invalid credentials. Confirm that you've configured the host."}
    fields = (asked.one("fields") or "core,basic").split(",")
    if asked.path == "/api/public/v2/observations":
        since, until = asked.one("fromStartTime"), asked.one("toStartTime")
        wanted = {"type": asked.one("type"), "traceId": asked.one("traceId")}
        rows = [
            row if "io" in fields else {k: v for k, v in row.items() if k not in ("input", "output")}
            for row in tool.rows["observations"]
            if within(row, "startTime", since, until)
            and all(value is None or row[key] == value for key, value in wanted.items())
            and (asked.one("isRootObservation") is None or row["isRootObservation"])
        ]  # fmt: skip
        if int(asked.one("limit") or 50) > 1000:
            return 400, {"message": "limit"}
    elif asked.path == "/api/public/v3/scores":
        since, until = asked.one("fromTimestamp"), asked.one("toTimestamp")
        groups = {
            "details": ("comment", "metadata", "configId"),
            "subject": ("subject",),
            "annotation": ("authorUserId", "queueId"),
        }
        hidden = {k for group, keys_ in groups.items() if group not in fields for k in keys_}
        rows = [
            {key: value for key, value in row.items() if key not in hidden}
            for row in tool.rows["scores"]
            if within(row, "timestamp", since, until)
        ]
        if int(asked.one("limit") or 50) > 100:
            return 400, {"message": "limit"}
    else:
        return 404, {"message": "no route"}
    found, cursor = page(rows, asked.one("cursor"))
    meta = {} if cursor is None else {"cursor": cursor}  # absent on the last page
    return 200, {
        "data": found,
        "meta": {"limit": PAGE, **meta} if "scores" in asked.path else meta,
    }


def phoenix(tool: ToolServer, asked: Asked) -> Answer:
    """`/v1/projects/desk%20bot/spans` and the annotations of spans and of traces."""
    if asked.headers.get("authorization") != "Bearer px-1":
        return 401, "Invalid token"
    before, _, kind = asked.path.rpartition("/")
    if before != "/v1/projects/desk%20bot" or kind not in tool.rows:
        return 404, {"detail": "Project not found"}
    if kind == "spans":
        since, until = asked.one("start_time"), asked.one("end_time")
        rows = [row for row in tool.rows[kind] if within(row, "start_time", since, until)]
    else:
        name = kind.removesuffix("_annotations") + "_id"
        rows = [row for row in tool.rows[kind] if row[name] in asked.query[f"{name}s"]]
    found, cursor = page(rows, asked.one("cursor"))
    return 200, {"data": found, "next_cursor": cursor}


def langsmith(tool: ToolServer, asked: Asked) -> Answer:
    """`/sessions`, `/feedback` and `/api/v2/runs/query`, with and without `/api/v1` before them."""
    if asked.headers.get("x-api-key") != "ls-1":
        return 401, {"detail": "Invalid token"}
    path = asked.path.removeprefix("/api/v1")
    if path == "/info":
        return 200, {"version": "0.16.3"}
    if path == "/sessions":
        named = [row for row in tool.rows["projects"] if row["name"] == asked.one("name")]
        return 200, named
    if path == "/feedback":
        start, limit = int(asked.one("offset") or 0), int(asked.one("limit") or 100)
        feedback = [
            row for row in tool.rows["feedback"] if row["session_id"] == asked.one("session")
        ]
        return 200, feedback[start : start + limit]
    if path != "/api/v2/runs/query":
        return 404, {"detail": "no route"}
    body = asked.body
    if "min_start_time" not in body or not body.get("project_ids"):
        return 400, {"detail": "it would be a day"}
    selected = {name.casefold() for name in body["selects"]}
    rows = [
        {key: value for key, value in row.items() if key in selected}
        for row in tool.rows["runs"]
        if within(row, "start_time", body["min_start_time"], body.get("max_start_time"))
        and body.get("run_type") in (None, row["run_type"])
        and body.get("trace_id") in (None, row["trace_id"])
        and (not body.get("is_root") or not row["parent_run_ids"])
    ]
    found, cursor = page(rows, body.get("cursor"))
    return 200, {"items": found, "next_cursor": cursor}
