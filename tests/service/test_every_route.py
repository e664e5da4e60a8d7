"""Every route is tried with every key: what each may do follows from the scope that the route declares.

A route that is not in the table below fails: say there what it needs, and how it is called.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

import access
from access import QUERY, SECRET, Served
from rag_flywheel.service.calls import Needs
from rag_flywheel.service.cursors import cursor
from rag_flywheel.service.routes.browser import needs_voter
from rag_flywheel.store.service.keys import SCOPES

BROWSER = "browser"  # any key that may vote, a public one too
API = ("/v1", "/ubi_")
OPEN = {
    ("GET", "/v1/openapi.json"),
    ("HEAD", "/v1/openapi.json"),
    ("GET", "/v1/thumbs.js"),
    ("GET", "/v1/thumbs-demo"),
    ("GET", "/v1/thumbs-demo.js"),
}
"""What needs no key."""


@dataclass(frozen=True)
class Entry:
    """What a route needs, and a call of it that concerns tenant a where it can.

    scope: None: no key. whole_index: no key of a tenant. body, query: of the call; `{name}` in the values and
    in the path are ids of tenant a. starts_job: an allowed call is sent with a body that is refused.
    files: are sent instead of a body.
    """

    scope: str | None
    body: Any = None
    query: str = ""
    whole_index: bool = False
    starts_job: bool = False
    files: list[tuple[str, tuple[str, bytes]]] | None = None
    path: dict[str, str] = field(default_factory=dict)


def _vote(**more: Any) -> dict[str, Any]:
    return {"retrieval_id": "{retrieval}", "tenant": "a", "user_id": "eve", **more}


ASK = {"query": QUERY, "tenant": "a"}
OF_A = "tenant=a"
PASSAGE = {"passage_id": "a-reset"}
ROUTES: dict[tuple[str, str], Entry] = {
    ("POST", "/retrieve"): Entry("read", ASK),
    ("POST", "/retrieve-many"): Entry("read", {"queries": [QUERY], "tenant": "a"}),
    ("POST", "/rank-many"): Entry("read", {"queries": [QUERY], "tenant": "a"}),
    ("POST", "/rerank"): Entry(
        "read", {**ASK, "candidates": [{"passage_id": "a-reset", "text": "x", "score": 1.0}]}
    ),
    ("POST", "/runs"): Entry(
        "read", {"retrieval_id": "{retrieval}", "run_id": "run", "tenant": "a"}
    ),
    ("POST", "/feedback"): Entry("vote", _vote(passage_id="a-reset", verdict="helpful")),
    ("POST", "/feedback-many"): Entry(
        "vote",
        {
            "votes": [
                {"retrieval_id": "{retrieval}", "passage_id": "a-reset", "verdict": "helpful"}
            ],
            "tenant": "a",
        },
    ),
    ("POST", "/relevance"): Entry("vote", _vote(helpful={"a-reset": True})),
    ("POST", "/answer-feedback"): Entry("vote", _vote(verdict="harmful")),
    ("POST", "/adopted"): Entry("vote", _vote(used=True)),
    ("POST", "/signals"): Entry("vote", _vote(kind="copied")),
    ("POST", "/corrections"): Entry("vote", _vote(passage_id="a-reset")),
    ("POST", "/missing"): Entry("vote", _vote(note="none")),
    ("PUT", "/retrievals/{retrieval_id:path}/answer"): Entry(
        "vote", {"text": "an answer", "tenant": "a"}, path={"retrieval_id": "{retrieval}"}
    ),
    ("POST", "/browser/feedback"): Entry(
        BROWSER, {"token": "{token}", "passage_id": "a-reset", "verdict": "helpful"}
    ),
    ("POST", "/browser/answer-feedback"): Entry(
        BROWSER, {"token": "{token}", "verdict": "harmful"}
    ),
    ("POST", "/browser/signals"): Entry(BROWSER, {"token": "{token}", "kind": "copied"}),
    ("POST", "/browser/missing"): Entry(BROWSER, {"token": "{token}", "note": "none"}),
    ("POST", "/ubi_events"): Entry(
        "vote",
        [
            {
                "action_name": "thumbs_up",
                "query_id": "{retrieval}",
                "event_attributes": {"object": {"object_id": "a-reset"}},
            }
        ],
        OF_A,
    ),
    ("POST", "/ubi_queries"): Entry("vote", [{"query_id": "{retrieval}", "user_query": "x"}], OF_A),
    ("GET", "/passages"): Entry("read", query=OF_A),
    ("GET", "/passages.ndjson"): Entry("read", query=OF_A),
    ("POST", "/passages"): Entry(
        "write",
        {
            "passages": [{"id": "a-mail", "text": "new", "metadata": {"team": "a"}}],
            "remove": ["a-cats"],
            "tenant": "a",
        },
    ),
    ("POST", "/passages.ndjson"): Entry(
        "write", {"id": "a-mail", "text": "new", "metadata": {"team": "a"}}, OF_A
    ),
    ("POST", "/passages:remove"): Entry("write", {"ids": ["a-reset"], "tenant": "a"}),
    ("POST", "/documents"): Entry(
        "write", whole_index=True, files=[("files", ("a.md", b"# A\n\nNew.\n"))]
    ),
    ("GET", "/passages/{passage_id:path}"): Entry("read", query=OF_A, path=PASSAGE),
    ("PUT", "/passages/{passage_id:path}"): Entry(
        "write", {"text": "new", "metadata": {"team": "a"}}, OF_A, path=PASSAGE
    ),
    ("DELETE", "/passages/{passage_id:path}"): Entry("write", query=OF_A, path=PASSAGE),
    ("GET", "/golden"): Entry("review", query=OF_A),
    ("POST", "/golden"): Entry(
        "review",
        {"answers": [{"query": f"{QUERY} now", "passage_id": "a-reset"}], "tenant": "a"},
    ),
    ("POST", "/golden/files"): Entry(
        "review",
        query=OF_A,
        files=[("files", ("a.csv", f"query,passage_id\n{QUERY} soon,a-reset\n".encode()))],
    ),
    ("PUT", "/pins"): Entry("review", {"query": QUERY, "passage_id": "a-reset", "tenant": "a"}),
    ("POST", "/pins:remove"): Entry(
        "review", {"query": f"where are cats {SECRET}", "passage_id": "a-cats", "tenant": "a"}
    ),
    ("GET", "/review"): Entry("review", query=OF_A),
    ("POST", "/review:undo"): Entry("review", {"item_id": "{decided}", "tenant": "a"}),
    ("POST", "/review/{item_id:path}:accept"): Entry(
        "review", {"tenant": "a"}, path={"item_id": "{waits}"}
    ),
    ("POST", "/review/{item_id:path}:reject"): Entry(
        "review", {"tenant": "a"}, path={"item_id": "{waits}"}
    ),
    ("GET", "/gaps"): Entry("review", query=OF_A),
    ("GET", "/retrievals"): Entry("review", query=OF_A),
    ("GET", "/retrievals/{retrieval_id:path}"): Entry(
        "review", query=OF_A, path={"retrieval_id": "{retrieval}"}
    ),
    ("GET", "/votes"): Entry("review", query=OF_A),
    ("GET", "/judgments"): Entry("review", query=OF_A),
    ("GET", "/coverage"): Entry("review", query=OF_A),
    ("GET", "/questions"): Entry("review", query=OF_A),
    ("GET", "/activity"): Entry("review", query=OF_A),
    ("GET", "/refreshes"): Entry("read", whole_index=True),
    ("GET", "/compare"): Entry("review", query="before=x&after=y", whole_index=True),
    ("POST", "/votes-behind"): Entry("review", {"votes": list(range(1, 100)), "tenant": "a"}),
    ("GET", "/history"): Entry("review", query=OF_A),
    ("GET", "/raters"): Entry("review", whole_index=True),
    ("POST", "/raters"): Entry("review", {"names": ["u"]}, whole_index=True),
    ("POST", "/raters:mute"): Entry("review", {"user_id": "u"}, whole_index=True),
    ("POST", "/raters:unmute"): Entry("review", {"user_id": "u"}, whole_index=True),
    ("POST", "/refresh"): Entry("admin", {}, whole_index=True, starts_job=True),
    ("GET", "/jobs"): Entry("admin", whole_index=True),
    ("GET", "/jobs/{job_id}"): Entry(
        "admin", whole_index=True, path={"job_id": "0123456789abcdef"}
    ),
    ("POST", "/jobs/{job_id}:cancel"): Entry(
        "admin", whole_index=True, path={"job_id": "0123456789abcdef"}
    ),
    ("GET", "/versions"): Entry("read", whole_index=True),
    ("GET", "/versions/{version:path}"): Entry(
        "read", whole_index=True, path={"version": "20260101T000000Z-00000"}
    ),
    ("POST", "/rollback"): Entry("admin", {}, whole_index=True),
    ("POST", "/release"): Entry("admin", whole_index=True),
    ("POST", "/users:forget"): Entry("admin", {"user_id": "u"}, whole_index=True, starts_job=True),
    ("POST", "/users:opt-out"): Entry("admin", {"user_id": "nobody"}, whole_index=True),
    ("POST", "/audit"): Entry("admin", {}, whole_index=True),
    ("POST", "/dp-counts"): Entry("admin", {"tenant": "a"}),
    ("GET", "/status"): Entry("read", whole_index=True),
    ("GET", "/health"): Entry("read", whole_index=True),
    ("GET", "/metadata-keys"): Entry("read", query=OF_A),
    ("POST", "/verify"): Entry("admin", whole_index=True),
}


def routes_of(app: FastAPI) -> list[tuple[str, str, Any]]:
    """(method, path, route) of everything that the application answers."""
    return [
        (method, str(route.path), route)
        for route in _routes(app.routes)
        if str(route.path).startswith(API)  # tests of the dashboard walk over its pages
        for method in sorted(getattr(route, "methods", None) or ("ANY",))
    ]


def _routes(routes: Any) -> Iterator[Any]:
    for route in routes:
        if hasattr(route, "effective_candidates"):  # a router that FastAPI includes as it is
            yield from _routes(route.effective_candidates())
        else:
            yield route


def entry_of(method: str, path: str) -> Entry:
    for prefix in ("/v1/indexes/{index}", "/v1", ""):
        if path.startswith(prefix) and (method, path.removeprefix(prefix)) in ROUTES:
            return ROUTES[method, path.removeprefix(prefix)]
    raise AssertionError(f"{method} {path} is not in the table of this test")


def declared(route: Any) -> tuple[str | None, bool]:
    """(scope, whole_index) as the route's dependencies say."""
    calls = [each.call for each in route.dependant.dependencies]
    found = [(c.scope, c.whole_index) for c in calls if isinstance(c, Needs)]
    found += [(BROWSER, False) for c in calls if c is needs_voter]
    assert len(found) < 2
    return found[0] if found else (None, False)


def filled(value: Any, ids: dict[str, str]) -> Any:
    if isinstance(value, str):
        name = value[1:-1] if value.startswith("{") and value.endswith("}") else ""
        return ids.get(name, value)
    if isinstance(value, dict):
        return {key: filled(each, ids) for key, each in value.items()}
    return [filled(each, ids) for each in value] if isinstance(value, list) else value


@dataclass
class World:
    served: Served
    ids: dict[str, str]

    def send(self, name: str | None, method: str, path: str, entry: Entry, body: Any) -> Any:
        """The call of a route, on the first index, with a key by its name."""
        where = path.replace("{index}", "kb")
        for key, value in entry.path.items():
            where = where.replace(f"{{{key}:path}}", value).replace(f"{{{key}}}", value)
        where = where.replace("{retrieval}", self.ids["retrieval"])
        where = where.replace("{waits}", self.ids["waits"])
        headers = {} if name is None else self.served.headers(name)
        query = f"?{entry.query}" if entry.query else ""
        sent = {"files": entry.files} if entry.files else {"json": filled(body, self.ids)}
        return self.served.client.request(method, where + query, headers=headers, **sent)

    def rows_of_a(self) -> list[Any]:
        """Everything that is stored of tenant a."""
        own = "rid IN (SELECT rid FROM retrievals WHERE tenant = '\"a\"')"
        queries = [
            "SELECT * FROM retrievals WHERE tenant = '\"a\"'",
            "SELECT * FROM passages WHERE id LIKE 'a-%' AND origin = 'index'",
            *(f"SELECT * FROM {t} WHERE tenant = '\"a\"'" for t in ("golden", "reviews")),
            *(f"SELECT * FROM {t} WHERE {own}" for t in ("votes", "answer_votes", "corrections", "notes")),
            f"SELECT * FROM note_reviews WHERE note IN (SELECT seq FROM notes WHERE {own})",
        ]  # fmt: skip
        with closing(sqlite3.connect(self.served.folder / "kb" / "flywheel.db")) as conn:
            return [conn.execute(sql).fetchall() for sql in queries]


@contextmanager
def made(folder: Path) -> Iterator[World]:
    ids = access.make_tenants(folder)
    other = access.make_index(folder, "other")
    with access.serve({"kb": folder / "kb", "other": other}, votes_per_minute=0) as found:
        asked = {"query": QUERY, "tenant": "a", "user_id": "u", "feedback_token": True}
        ids["token"] = found.client.post("/v1/retrieve", json=asked).json()["feedback_token"]
        access.add_every_key(found)
        yield World(found, ids)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world for tests that change it."""
    with made(tmp_path_factory.mktemp("every")) as found:
        yield found


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[World]:
    with made(tmp_path) as found:
        yield found


def every_route(world: World) -> list[tuple[str, str, Entry]]:
    return [
        (method, path, entry_of(method, path))
        for method, path, _ in routes_of(world.served.app)
        if (method, path) not in OPEN
    ]


def test_every_route_declares_what_the_table_says(world: World) -> None:
    found = set()
    for method, path, route in routes_of(world.served.app):
        if (method, path) in OPEN:
            continue
        entry = entry_of(method, path)
        assert declared(route) == (entry.scope, entry.whole_index), (method, path)
        short = path.removeprefix("/v1/indexes/{index}").removeprefix("/v1")
        found.add((method, short))
    assert found == set(ROUTES), "the table has routes that there are no more"


@pytest.mark.parametrize("key", [None, "wrong", "revoked"])
def test_without_a_key_that_holds_nothing_is_answered(world: World, key: str | None) -> None:
    for method, path, entry in every_route(world):
        answer = world.send(key, method, path, entry, entry.body)
        wanted = 401 if entry.scope is not None else answer.status_code
        assert answer.status_code == wanted, (key, method, path, answer.text)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"] == "Bearer"
        assert SECRET not in answer.text


@pytest.mark.parametrize("key", [*SCOPES, "public"])
def test_a_key_does_what_its_only_scope_allows_and_nothing_else(world: World, key: str) -> None:
    n_allowed = 0
    for method, path, entry in every_route(world):
        allowed = (entry.scope == BROWSER and key in ("vote", "public")) or entry.scope == key
        body = {"no such field": 1} if allowed and entry.starts_job else entry.body
        answer = world.send(key, method, path, entry, body)
        where = (key, method, path, answer.status_code, answer.text[:300])
        assert (answer.status_code not in (401, 403)) == allowed, where
        assert answer.status_code < 500, where
        n_allowed += allowed
        if not allowed:
            assert SECRET not in answer.text, where
    assert n_allowed


def test_a_key_of_another_index_does_nothing_here(world: World) -> None:
    for method, path, entry in every_route(world):
        answer = world.send("other index", method, path, entry, entry.body)
        assert answer.status_code == 403, (method, path, answer.text)
        assert SECRET not in answer.text


def _forms(value: Any) -> list[Any]:
    """A body or query that names tenant a, all tenants, or none, so that only the ids are a's."""
    if isinstance(value, dict) and "tenant" in value:
        rest = {key: each for key, each in value.items() if key != "tenant"}
        return [value, {**rest, "all_tenants": True}, rest, {**rest, "tenant": "b"}]
    return [value]


def _queries(query: str) -> list[str]:
    return [query, "all_tenants=true", "", "tenant=b", 'tenant="a"'] if query else [query]


SHOW = {  # what shows tenant a, to a key that may see it, by these calls
    "/retrieve", "/retrieve-many", "/passages", "/passages.ndjson", "/passages/{passage_id:path}",
    "/golden", "/review", "/retrievals", "/retrievals/{retrieval_id:path}", "/votes", "/judgments",
    "/metadata-keys", "/votes-behind", "/questions",
}  # fmt: skip
CHANGE = {
    "/golden/files", "/passages:remove",
    "/retrieve", "/retrieve-many", "/rerank", "/feedback", "/feedback-many", "/relevance",
    "/answer-feedback", "/adopted", "/signals", "/corrections", "/missing",
    "/retrievals/{retrieval_id:path}/answer", "/browser/feedback", "/browser/answer-feedback",
    "/browser/signals", "/browser/missing", "/ubi_events", "/passages", "/passages.ndjson",
    "/passages/{passage_id:path}", "/golden", "/pins", "/pins:remove", "/review:undo",
    "/review/{item_id:path}:accept",
}  # fmt: skip
"""What changes tenant a; of accepting and rejecting the same item, the first."""


def test_a_key_of_another_tenant_neither_sees_nor_changes_anything(fresh: World) -> None:
    before = fresh.rows_of_a()
    n = 0
    for method, path, entry in every_route(fresh):
        for body in _forms(entry.body):
            for query in _queries(entry.query):
                tried = Entry(entry.scope, body, query, entry.whole_index, path=entry.path)
                answer = fresh.send("tenant b", method, path, tried, body)
                where = (method, path, body, query, answer.status_code, answer.text[:300])
                assert SECRET not in answer.text, where
                assert answer.status_code < 500, where
                if entry.whole_index:
                    assert answer.status_code == 403, where
                n += 1
    assert fresh.rows_of_a() == before
    assert n > 200


def test_the_same_calls_show_and_change_the_tenant_to_its_own_key(fresh: World) -> None:
    """The test above can fail."""
    fresh.served.add_key("tenant a", *SCOPES, tenant="a")
    shown, changed = set(), set()
    order = {  # some take away what others need
        ("POST", "/v1/review/{item_id:path}:accept"): -1, ("POST", "/v1/passages"): 1,
        ("DELETE", "/v1/passages/{passage_id:path}"): 1, ("POST", "/v1/review:undo"): 1,
        ("POST", "/v1/pins:remove"): 1,
    }  # fmt: skip
    routes = [each for each in every_route(fresh) if each[1].startswith("/v1/")]
    for method, path, entry in sorted(
        routes, key=lambda each: (each[0] != "GET", order.get(each[:2], 0))
    ):
        if "{index}" in path or entry.whole_index:
            continue
        before = fresh.rows_of_a()
        answer = fresh.send("tenant a", method, path, entry, entry.body)
        assert answer.status_code < 300 or "reject" in path, (method, path, answer.text)
        if SECRET in answer.text:
            shown.add(path.removeprefix("/v1"))
        if fresh.rows_of_a() != before:
            changed.add(path.removeprefix("/v1"))
    assert shown - {"/history", "/gaps"} == SHOW
    assert changed == CHANGE


ODD = ["", "/", "//", "/.", "/..", "%2f", "%00", "/x"]


def test_odd_spellings_of_paths_open_nothing(world: World) -> None:
    client = world.served.client
    for path in ("/v1/status", "/v1/indexes/kb/status", "/v1/retrievals", "/v1/jobs"):
        for end in ODD:
            for begin in ("", "/", "/v1/..", "/%2e"):
                for method in ("GET", "HEAD", "OPTIONS", "POST", "PUT", "TRACE"):
                    answer = client.request(method, begin + path + end, follow_redirects=False)
                    if answer.headers.get("location", "").startswith("/sign-in"):
                        continue
                    assert answer.status_code in (400, 401, 404, 405), (method, begin + path + end)
    for name in ("..%2fkb", "kb%2f", "kb%2fstatus", "KB", "kb ", "k%62/../kb", "%6bb%00"):
        answer = world.served.call("other index", "GET", f"/v1/indexes/{name}/status")
        assert answer.status_code in (403, 404), (name, answer.text)


def test_a_cursor_of_another_tenant_shows_nothing(fresh: World) -> None:
    world = fresh
    for path, after in (
        ("/v1/retrievals", world.ids["retrieval"]),
        ("/v1/votes", int(world.ids["vote"]) + 1),
        ("/v1/passages", "a-"),
    ):
        answer = world.served.call("tenant b", "GET", f"{path}?cursor={cursor(after)}")
        assert answer.status_code in (200, 404)
        assert SECRET not in answer.text
        assert "a-reset" not in answer.text
