"""Every screen of the dashboard: who may see it, what its forms do, and that hostile text stays text."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

import dashboards
from dashboards import HOSTILE, QUERY, SCREENS, form_token
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.service.app import create_app
from rag_flywheel.service.dashboard.overview import told
from rag_flywheel.service.dashboard.pages import Sees
from rag_flywheel.service.settings import Settings
from rag_flywheel.store.service.keys import SCOPES, make_key, revoke_key
from shared_state import open_records, state_of

BASE = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dashboard")
    dashboards.make(root / "kb", hostile=True)
    dashboards.make(root / "teams", config=Config(encoder="fakes:word_encoder", tenant_key="team"))
    return root


@pytest.fixture(scope="module")
def viewer(made: Path) -> Iterator[TestClient]:
    """For tests that change nothing but the log."""
    settings = Settings(indexes={n: made / n for n in ("kb", "teams")}, state=made / "viewer.db")
    with TestClient(create_app(settings), base_url=BASE) as opened:
        yield opened


@pytest.fixture
def indexes(made: Path, tmp_path: Path) -> dict[str, Path]:
    """Copies, which a test may change."""
    return {n: shutil.copytree(made / n, tmp_path / n) for n in ("kb", "teams")}


@pytest.fixture
def client(indexes: dict[str, Path]) -> Iterator[TestClient]:
    state = state_of(next(iter(indexes.values())))
    with TestClient(create_app(Settings(indexes=indexes, state=state)), base_url=BASE) as opened:
        yield opened


def key(
    indexes: dict[str, Path],
    *scopes: str,
    tenant: str | None = None,
    only: list[str] | None = None,
) -> str:
    database = open_records(next(iter(indexes.values())))
    try:
        return make_key(database, "tester", scopes, tenant=tenant, indexes=only)[0]
    finally:
        database.close()


def signed_in(client: TestClient, text: str) -> TestClient:
    token = form_token(client.get("/sign-in").text)
    answer = client.post(
        "/sign-in", data={"form_token": token, "key": text}, follow_redirects=False
    )
    assert answer.status_code == 303, answer.text
    return client


def loaded(client: TestClient, path: str) -> str:
    """A page, once what it computes is there."""
    for _ in range(100):
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[-600:])
        if "data-again" not in answer.text:
            return answer.text
        time.sleep(0.05)
    raise AssertionError(f"{path} goes on being computed")


def post(client: TestClient, path: str, **fields: str) -> str:
    token = form_token(client.get("/").text)
    answer = client.post(path, data={"form_token": token, **fields})
    assert answer.status_code == 200, answer.text[-600:]
    return answer.text


class Elements(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))


@pytest.mark.parametrize("path", SCREENS)
def test_a_screen_is_whole_small_and_its_own(viewer: TestClient, path: str) -> None:
    text = loaded(viewer, path)
    assert len(text.encode()) < 100_000
    answer = viewer.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    for tag, attributes in Elements(text).found:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name != "style", tag
            if name in ("href", "src", "action"):
                assert value == "" or value.startswith(("/", "#")), (tag, value)
                assert not value.startswith("//")
        assert tag not in ("style", "iframe", "object")
        assert tag != "script" or attributes["src"] == "/dashboard/script.js"
    assert text.count("<h1>") == 1


@pytest.mark.parametrize("path", SCREENS)
def test_hostile_text_stays_text(viewer: TestClient, path: str) -> None:
    text = loaded(viewer, path)
    for found in Elements(text).found:
        assert "onmouseover" not in found[1]
    assert "<script>alert" not in text
    assert "49" not in re.findall(r"hostile parcels (\w+)", text)
    assert "\x00" not in text
    assert "\x1b" not in text


def test_hostile_text_is_shown_where_it_belongs(viewer: TestClient) -> None:
    shown = loaded(viewer, "/review")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "{{ 7 * 7 }}" in shown
    assert r"\u202eabc\u2066" in re.sub(r"(?s)<textarea.*?</textarea>", "", shown)
    searched = loaded(viewer, "/passages?q=hostile")
    assert "&lt;script&gt;" in searched
    for name, text in HOSTILE.items():
        if name == "nul":
            continue
        page = viewer.get("/passages/one", params={"id": f"{name} {text}"})
        assert page.status_code == 200, name
        assert "<script>alert" not in page.text
    long = viewer.get("/passages/one", params={"id": "long"})
    assert len(long.content) < 100_000
    for query in (*HOSTILE.values(), "w" * 3_000):
        found = post(viewer, "/ask", query=query, other=query, user=query)
        assert "<script>alert" not in found
        assert len(found.encode()) < 100_000


def test_an_asker_is_answered_votes_and_sees_the_order_change(client: TestClient) -> None:
    text = post(client, "/ask", query="sent parcels", other="parcels leaving", user="ann")
    assert "Another phrasing" in text
    first = re.findall(r'<li class="hit" data-passage="([^"]*)"', text)[0]
    for user in ("ann", "bob", "cid"):
        fields = {
            name: _value(text, name)
            for name in ("shown", "asked", "order", "beside", "order_beside")
        }
        text = post(
            client,
            "/ask",
            query="sent parcels",
            other="parcels leaving",
            user=user,
            vote=f"harmful:{_first_rank(fields['order'], first)}",
            **fields,
        )
    assert "Asked again" in text
    again = text.split("Another phrasing")[0]
    ids = re.findall(r'<li class="hit" data-passage="([^"]*)"', again)
    assert ids[0] != first
    assert re.search(r"▼\d", again) or first not in ids
    order = _value(text, "order")
    fields |= {name: _value(text, name) for name in ("shown", "asked")}
    place = json.loads(order).index(ids[0]) + 1
    text = post(client, "/ask", user="dan", vote=f"helpful:{place}", **(fields | {"order": order}))
    assert re.search(r"\d votes? behind it", text), re.findall("[^<>]*votes? [^<>]*", text)
    assert "1 for, 0 against" in text


def _value(text: str, name: str) -> str:
    found = re.search(f'name="{name}" value="([^"]*)"', text)
    assert found is not None, name
    return unescape(found.group(1))


def _first_rank(order: str, id_: str) -> int:
    return int(json.loads(order).index(id_)) + 1


def test_a_vote_that_no_page_sends_is_refused(viewer: TestClient) -> None:
    token = form_token(viewer.get("/").text)
    for vote in ("helpful:99", "helpful:0", "loved:1", "helpful", "helpful:²"):
        data = {"form_token": token, "vote": vote, "shown": "x", "asked": "a", "order": '["send"]'}
        answer = viewer.post("/ask", data=data)
        assert answer.status_code in (404, 422), vote
        assert "<h1>" in answer.text


def test_the_queue_is_decided_edited_and_undone(
    client: TestClient, indexes: dict[str, Path]
) -> None:
    text = loaded(client, "/review")
    n = int(re.findall(r'id="waiting">(\d+)', text)[0])
    written = next(
        each for each in text.split('<li class="item"')[1:] if "They leave on Mondays." in each
    )
    item = re.findall(r'name="item" value="(\w+)"', written)[0]
    text = post(
        client,
        "/review/decide",
        item=item,
        decision="accept",
        text="They leave on Monday.\r\nAt 8.",
    )
    assert "Accepted: passage correction-" in text
    assert int(re.findall(r'id="waiting">(\d+)', text)[0]) == n - 1
    assert "They leave on Mondays." not in text
    made = f"correction-{item}"
    page = client.get("/passages/one", params={"id": made}).text
    assert "They leave on Monday.\nAt 8." in page
    text = post(client, "/review/undo")
    assert int(re.findall(r'id="waiting">(\d+)', text)[0]) == n
    assert "They leave on Mondays." in text
    assert client.get("/passages/one", params={"id": made}).status_code == 404
    text = post(client, "/review/decide", item=item, decision="reject")
    assert int(re.findall(r'id="waiting">(\d+)', text)[0]) == n - 1
    whole = re.findall(r"/review/item\?id=(\w+)", text)
    assert whole
    assert "x" * 20_000 in client.get(f"/review/item?id={whole[0]}").text


def test_every_item_is_reached_by_parts(viewer: TestClient) -> None:
    with_parts = loaded(viewer, "/voters")
    assert "muted" in with_parts
    text = loaded(viewer, "/review?part=99")
    assert 'class="item"' in text


def test_a_version_is_told_compared_and_rolled_back_to(client: TestClient) -> None:
    text = loaded(client, "/versions")
    after, before = re.findall(r'/versions/one\?id=([\w-]+)">', text)[:2]
    assert f'{after}</a> <span class="tag good">live' in text
    assert "In words" in loaded(client, f"/versions/one?id={after}")
    compared = loaded(client, f"/versions/compare?before={before}&after={after}")
    assert "questions asked most are answered otherwise" in compared
    confirm = client.get(f"/versions/rollback?id={before}").text
    assert "Roll back?" in confirm
    text = post(client, "/versions/rollback", id=before)
    assert f"Rolled back: {before} is live." in text
    assert f'{before}</a> <span class="tag good">live' in text
    assert "A rollback stands" in text
    text = post(client, "/versions/release")
    assert "later votes count again" in text
    assert "A rollback stands" not in text


def test_a_refresh_is_started_and_watched(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    support = str(Path(__file__).parents[1] / "support")
    monkeypatch.setenv("PYTHONPATH", support, prepend=":")
    text = post(client, "/versions/refresh")
    assert "Refresh " in text
    job = re.findall(r"/versions/job\?id=(\w+)", client.get("/versions").text)[0]
    for _ in range(200):
        text = client.get(f"/versions/job?id={job}").text
        if "data-again" not in text:
            break
        time.sleep(0.1)
    assert re.search(r"State: <strong[^>]*>done", text), text


def test_a_voter_is_muted_after_a_confirmation(client: TestClient) -> None:
    text = loaded(client, "/voters")
    user = re.findall(r"/voters/mute\?user=(\w+)", text)[0]
    assert "Mute a voter?" in client.get(f"/voters/mute?user={user}").text
    text = post(client, "/voters/mute", user=user, muted="1")
    assert "Muted" in text
    assert ">Unmute<" in text
    assert ">Unmute<" not in post(client, "/voters/mute", user=user, muted="")


CHANGES = (
    "/ask", "/review/decide", "/review/undo", "/versions/rollback", "/versions/release",
    "/versions/refresh", "/versions/cancel", "/voters/mute", "/tenant", "/sign-in", "/sign-out",
)  # fmt: skip


@pytest.mark.parametrize("path", CHANGES)
def test_a_form_without_the_token_of_its_session_is_refused(client: TestClient, path: str) -> None:
    other = TestClient(client.app, base_url=BASE)
    foreign = form_token(other.get("/").text)
    client.get("/")
    for token in ("", "0" * 64, foreign, "ü"):
        answer = client.post(path, data={"form_token": token, "query": "a", "id": "x"})
        assert answer.status_code == 403, token
        assert "not of your session" in answer.text
    assert client.get(path, follow_redirects=False).status_code in (200, 303, 404, 405, 422)


def test_nothing_is_shown_without_a_key_once_there_is_one(
    client: TestClient, indexes: dict[str, Path]
) -> None:
    client.get("/")
    text = key(indexes, "read")
    for path in (*SCREENS, "/indexes/teams/", "/passages/one?id=send"):
        answer = client.get(path, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in"), path
    token = form_token(client.get("/sign-in").text)
    bad = client.post("/sign-in", data={"form_token": token, "key": "fw_nothing"})
    assert bad.status_code == 401
    cookie = signed_in(client, text).cookies["fw_session"]
    assert text not in cookie
    assert client.get("/").status_code == 200
    post(client, "/sign-out")
    assert client.get("/", follow_redirects=False).status_code == 303


def test_the_cookie_is_for_this_site_alone_and_cannot_be_made(
    client: TestClient, indexes: dict[str, Path]
) -> None:
    text = key(indexes, "read")
    token = form_token(client.get("/sign-in").text)
    answer = client.post(
        "/sign-in",
        data={"form_token": token, "key": text},
        headers={"x-forwarded-proto": "https"},
        follow_redirects=False,
    )
    set_cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in set_cookie
    assert "samesite=strict" in set_cookie
    assert "secure" in set_cookie
    value = re.findall(r"fw_session=([^;]+)", answer.headers["set-cookie"])[0]
    forged = TestClient(client.app, base_url=BASE, cookies={"fw_session": value[:-2] + "AA"})
    assert forged.get("/", follow_redirects=False).status_code == 303
    held = TestClient(client.app, base_url=BASE, cookies={"fw_session": value})
    assert held.get("/").status_code == 200


def test_a_revoked_key_and_a_public_one_show_nothing(
    client: TestClient, indexes: dict[str, Path]
) -> None:
    database = open_records(next(iter(indexes.values())))
    try:
        text, made = make_key(database, "a", ["read"])
        public, _ = make_key(database, "b", ["vote"], public=True)
        signed_in(client, text)
        assert client.get("/").status_code == 200
        revoke_key(database, made.id)
        assert client.get("/", follow_redirects=False).status_code == 303
        token = form_token(client.get("/sign-in").text)
        assert client.post("/sign-in", data={"form_token": token, "key": public}).status_code == 401
    finally:
        database.close()


ALLOWED = {
    "read": {"/", "/overview", "/passages", "/versions", "/health"},
    "review": {"/questions", "/gaps", "/review", "/voters", "/coverage"},
    "vote": set(),
    "admin": set(),
}


@pytest.mark.parametrize("scope", ALLOWED)
def test_a_key_sees_the_screens_of_its_scopes(
    client: TestClient, indexes: dict[str, Path], scope: str
) -> None:
    signed_in(client, key(indexes, scope))
    for path in SCREENS:
        wanted = 200 if path.split("?")[0] in ALLOWED[scope] else 403
        assert client.get(path).status_code == wanted, path


def page_routes(routes: Any) -> Iterator[Any]:
    for route in routes:
        if hasattr(route, "effective_candidates"):  # a router that FastAPI includes as it is
            yield from page_routes(route.effective_candidates())
        elif getattr(getattr(route, "endpoint", None), "__module__", "").startswith(PAGES):
            yield route


PAGES = "rag_flywheel.service.dashboard."
NEED_NO_KEY = {"/sign-in", "/sign-out"}


@pytest.mark.parametrize("scope", [None, *SCOPES])
def test_every_page_asks_for_its_scope(
    client: TestClient, indexes: dict[str, Path], scope: str | None
) -> None:
    text = key(indexes, scope or "write", tenant="one")
    if scope is not None:
        signed_in(client, text)
    token = form_token(client.get("/sign-in").text)
    routes = [r for r in page_routes(client.app.routes) if r.path not in NEED_NO_KEY]  # type: ignore[attr-defined]
    assert len(routes) > 40
    for route in routes:
        (sees,) = [d.call for d in route.dependant.dependencies if isinstance(d.call, Sees)]
        path = route.path.replace("{index}", "teams")
        for method in route.methods:
            data = {"form_token": token} if method == "POST" else None
            answer = client.request(method, path, data=data, follow_redirects=False)
            if scope is None:
                assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in"), path
            elif scope != sees.scope or sees.whole_index:
                assert answer.status_code == 403, (method, path)
            else:
                assert answer.status_code != 403, (method, path)


def test_only_an_administrator_changes_versions_and_mutes(
    client: TestClient, indexes: dict[str, Path]
) -> None:
    signed_in(client, key(indexes, "read", "review"))
    token = form_token(client.get("/").text)
    text = loaded(client, "/versions")
    assert "Start a refresh" not in text
    assert "Roll back" not in text
    assert ">Mute<" not in loaded(client, "/voters")
    version = re.findall(r'/versions/one\?id=([\w-]+)">', text)[-1]
    for path in ("/versions/rollback", "/versions/release", "/versions/refresh", "/voters/mute"):
        answer = client.post(path, data={"form_token": token, "id": version})
        assert answer.status_code == 403, path
    data = {"form_token": token, "vote": "helpful:1", "order": '["send"]', "asked": "a"}
    assert client.post("/ask", data=data).status_code == 403
    assert "thumbs" not in post(client, "/ask", query=QUERY)


def test_a_key_of_a_tenant_sees_its_tenant_alone(
    client: TestClient, indexes: dict[str, Path]
) -> None:
    with Flywheel.open(indexes["teams"], create=False) as fw:
        fw.add([Passage("secret", "parcels SECRET words", "SECRET", {"team": "two"})])
        shown = fw.retrieve("SECRET parcels", user_id="mal", tenant="two")
        fw.correct(shown.id, text="SECRET answer", user_id="mal", tenant="two")
        fw.feedback(shown.id, "secret", "harmful", user_id="mal", tenant="two")
    signed_in(client, key(indexes, "read", "vote", "review", "admin", tenant="one", only=["teams"]))
    assert client.get("/overview").status_code == 403  # the default index is not its own
    whole = {"/versions", "/voters", "/health"}
    for path in SCREENS:
        answer = client.get("/indexes/teams" + path)
        if path in whole:
            assert answer.status_code == 403, path
            continue
        assert "SECRET" not in loaded(client, "/indexes/teams" + path), path
    assert client.get("/indexes/teams/passages/one?id=secret").status_code == 404
    found = post_of(client, "/indexes/teams/", "/indexes/teams/ask", query="SECRET words")
    assert 'data-passage="secret"' not in found
    token = form_token(client.get("/indexes/teams/").text)
    client.post("/indexes/teams/tenant", data={"form_token": token, "tenant": "two"})
    answer = client.get("/indexes/teams/passages?q=SECRET")
    assert answer.status_code == 403 or 'id=secret"' not in answer.text


def post_of(client: TestClient, home: str, path: str, **fields: str) -> str:
    token = form_token(client.get(home).text)
    answer = client.post(path, data={"form_token": token, **fields})
    assert answer.status_code == 200, answer.text[-600:]
    return answer.text


def test_an_administrator_looks_at_one_tenant(client: TestClient) -> None:
    every = loaded(client, "/indexes/teams/review")
    assert "They leave on Mondays." in every
    text = post_of(client, "/indexes/teams/", "/indexes/teams/tenant", tenant="two")
    assert "This shows tenant two now." in text
    assert "They leave on Mondays." not in loaded(client, "/indexes/teams/review")
    post_of(client, "/indexes/teams/", "/indexes/teams/tenant", tenant="")
    assert "They leave on Mondays." in loaded(client, "/indexes/teams/review")


@pytest.mark.parametrize("tenant", ["two", "1", '"1"', "ü\x00{{", "x" * 200])
def test_a_tenant_is_chosen_as_it_is_written(client: TestClient, tenant: str) -> None:
    text = post_of(client, "/indexes/teams/", "/indexes/teams/tenant", tenant=tenant)
    shown = next(a["value"] for tag, a in Elements(text).found if a.get("name") == "tenant")
    again = post_of(client, "/indexes/teams/", "/indexes/teams/tenant", tenant=tenant)
    assert (
        next(a["value"] for tag, a in Elements(again).found if a.get("name") == "tenant") == shown
    )
    assert shown.replace("\ufffd", "\x00") == tenant
    token = form_token(text)
    data = {"form_token": token, "tenant": "x" * 201}
    assert client.post("/indexes/teams/tenant", data=data).status_code == 422


def test_a_record_is_told_in_sentences_values_and_tables() -> None:
    @dataclass(frozen=True)
    class Week:
        day: str
        per_question: float | None

    @dataclass(frozen=True)
    class Found:
        share_near: float
        n_votes: int
        weeks: tuple[Week, ...]
        findings: tuple[str, ...]

    shown = told(Found(0.12345, 7, (Week("2026-11-30", None),), ("Votes fall on few.",)))
    assert shown.sentences == ("Votes fall on few.",)
    assert shown.values == (("share near", "0.123"), ("n votes", "7"))
    assert shown.tables == (("weeks", ("day", "per question"), (("2026-11-30", "not known"),)),)


def test_what_is_not_there_is_a_page_too(viewer: TestClient) -> None:
    for path in ("/passages/one?id=x", "/versions/one?id=x", "/review/item?id=x", "/versions/job?id=x",
                 "/indexes/none/", "/voters/mute?user=x", "/versions/compare?before=x&after=y"):  # fmt: skip
        answer = viewer.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert viewer.get("/review?part=none").status_code == 422


def test_the_files_of_the_pages_are_small_and_from_here(viewer: TestClient) -> None:
    for name, most in (("style.css", 20_000), ("script.js", 6_000), ("icon.svg", 1_000)):
        answer = viewer.get(f"/dashboard/{name}")
        assert answer.status_code == 200
        assert len(answer.content) < most
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")
    assert viewer.get("/dashboard/../pages.py").status_code == 404


def test_what_the_screens_show_is_in_the_api_too(
    client: TestClient, indexes: dict[str, Path]
) -> None:
    first = client.get("/v1/questions", params={"order": "disputed", "n": 1}).json()
    assert [(q["query"], q["disputed"]) for q in first] == [(QUERY, 1.0)]
    assert client.get("/v1/questions?order=best").status_code == 422
    assert sum(day["helpful"] for day in client.get("/v1/activity").json()) == 2
    newest, older = client.get("/v1/refreshes").json()
    assert newest["outcome"] == "promoted"
    versions = {"before": older["version"], "after": newest["version"]}
    compared = client.get("/v1/compare", params=versions).json()
    assert compared["n_questions"] > 1
    assert client.get("/v1/compare?before=x&after=y").status_code == 404
    item = next(i for i in client.get("/v1/review").json() if i["text"] == "They leave on Mondays.")
    body = {"text": "They leave on Monday."}
    made = client.post(f"/v1/review/{item['id']}:accept", json=body).json()["passage_id"]
    assert client.get(f"/v1/passages/{made}").json()["text"] == "They leave on Monday."


def test_the_chosen_colours_are_on_the_page_at_once(client: TestClient) -> None:
    client.cookies.set("fw_theme", "dark")
    assert '<html lang="en" data-theme="dark">' in client.get("/").text
    client.cookies.set("fw_theme", '"><script>')
    assert '<html lang="en">' in client.get("/").text


def test_no_page_is_part_of_the_api(viewer: TestClient) -> None:
    paths = viewer.get("/v1/openapi.json").json()["paths"]
    assert all(path.startswith("/v1") for path in paths)
