"""What pages may do: votes by tokens, with a public key, from listed origins, and nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import access
from access import Served
from rag_flywheel.service.settings import Settings

HELP = "https://help.example.com"
PATHS = {
    "feedback": {"passage_id": "reset", "verdict": "helpful"},
    "answer-feedback": {"verdict": "harmful"},
    "signals": {"kind": "copied"},
    "missing": {"note": "none"},
}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    with access.serve({"kb": access.make_index(tmp_path)}, origins=(HELP,)) as found:
        yield found


def token_of(service: Served, key: str | None = None, **named: Any) -> str:
    asked = {"query": "password", "feedback_token": True, **named}
    headers = {} if key is None else service.headers(key)
    answer = service.client.post("/v1/retrieve", json=asked, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["feedback_token"])


def votes(service: Served) -> list[dict[str, Any]]:
    headers = service.headers("all") if "all" in service.keys else {}
    found: list[dict[str, Any]] = service.client.get("/v1/votes", headers=headers).json()["items"]
    return found


def test_a_vote_by_token_is_the_vote_of_who_asked(service: Served) -> None:
    token = token_of(service, user_id="ann")
    for path, more in PATHS.items():
        answer = service.client.post(f"/v1/browser/{path}", json={"token": token, **more})
        assert (answer.status_code, answer.json()) == (200, {"recorded": 1}), answer.text
    direct = {"query": "password", "user_id": "ann"}
    retrieval = service.client.post("/v1/retrieve", json=direct).json()["id"]
    body = {"retrieval_id": retrieval, "user_id": "ann", **PATHS["feedback"]}
    service.client.post("/v1/feedback", json=body)
    users = {each["user"] for each in votes(service)}
    assert len(users) == 1
    assert users == {service.client.get("/v1/retrievals").json()["items"][0]["user"]}
    judged = service.client.get("/v1/judgments").json()
    assert {each["helpful"] for each in judged if each["passage_id"] == "reset"} != {2.0}
    service.client.post("/v1/users:opt-out", json={"user_id": "ann"})
    answer = service.client.post("/v1/browser/feedback", json={"token": token, **PATHS["feedback"]})
    assert (answer.status_code, answer.json()) == (200, {"recorded": 0})


def test_without_a_user_the_retrieval_is_the_voice(service: Served) -> None:
    token = token_of(service)
    for verdict in ("helpful", "harmful"):
        body = {"token": token, "passage_id": "reset", "verdict": verdict}
        assert service.client.post("/v1/browser/feedback", json=body).status_code == 200
    assert {each["user"] for each in votes(service)} == {None}
    (judged,) = service.client.get("/v1/judgments").json()
    assert judged["helpful"] == 0.0  # the last verdict of one voice
    assert judged["harmful"] > 0.0


@pytest.mark.parametrize("path", PATHS)
def test_a_body_is_what_the_token_does_not_say_and_nothing_else(service: Served, path: str) -> None:
    token = token_of(service)
    more: dict[str, Any]
    for more in (
        {"user_id": "eve"},
        {"tenant": "b"},
        {"all_tenants": True},
        {"retrieval_id": "x"},
        {"answer": "x"},
        {"trust": 3.0},
    ):
        sent = {"token": token, **PATHS[path], **more}
        answer = service.client.post(f"/v1/browser/{path}", json=sent)
        assert answer.status_code == 422, answer.text
        assert next(iter(more)) in answer.json()["detail"]
    assert votes(service) == []


def test_it_may_be_sent_as_a_beacon_sends_it(service: Served) -> None:
    token = token_of(service)
    service.add_key("all", "read", "vote", "write", "review", "admin")
    public = service.add_key("public", "vote", public=True)
    body = json.dumps({"token": token, **PATHS["feedback"]})
    headers = {"content-type": "text/plain;charset=UTF-8", "origin": HELP}
    path = "/v1/browser/feedback"
    answer = service.client.post(f"{path}?key={public}", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["access-control-allow-origin"] == HELP
    assert "access-control-allow-credentials" not in answer.headers
    assert service.client.post(path, content=body, headers=headers).status_code == 401
    for kind in ("text/html", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        answer = service.client.post(
            f"{path}?key={public}", content=body, headers={"content-type": kind}
        )
        assert answer.status_code == 422


def test_a_secret_key_in_an_address_is_refused(service: Served) -> None:
    token = token_of(service)
    secret = service.add_key("all", "read", "vote", "write", "review", "admin")
    body = {"token": token, **PATHS["feedback"]}
    answer = service.client.post(f"/v1/browser/feedback?key={secret}", json=body)
    assert answer.status_code == 401
    assert "revoke it" in answer.json()["detail"]
    assert service.client.get(f"/v1/status?key={secret}").status_code == 401
    assert secret not in answer.text


def test_a_public_key_is_for_its_tenant_and_index(tmp_path: Path) -> None:
    access.make_tenants(tmp_path)
    other = access.make_index(tmp_path, "other")
    with access.serve({"kb": tmp_path / "kb", "other": other}) as service:
        of_a = token_of(service, tenant="a")
        of_all = token_of(service, all_tenants=True)
        of_b = token_of(service, tenant="b")
        for name, named in (
            ("b", {"tenant": "b"}),
            ("elsewhere", {"indexes": ["other"]}),
            ("any", {}),
        ):
            service.add_key(name, "vote", public=True, **named)

        def vote(key: str, token: str, passage: str) -> int:
            body = {"token": token, "passage_id": passage, "verdict": "helpful"}
            return int(service.call(key, "POST", "/v1/browser/feedback", body).status_code)

        assert vote("b", of_a, "a-reset") == 403
        assert vote("b", of_all, "a-reset") == 404
        assert vote("b", of_b, "b-reset") == 200
        assert vote("elsewhere", of_b, "b-reset") == 403
        assert vote("any", of_a, "a-reset") == 200
        assert vote("any", of_all, "a-reset") == 200
        assert vote("any", of_a, "b-reset") == 422


@pytest.mark.parametrize("origin", [HELP, "https://evil.example.com", "null", "http://127.0.0.1"])
def test_only_pages_of_listed_origins_may_ask_and_only_the_routes_for_browsers(
    service: Served, origin: str
) -> None:
    asks = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,idempotency-key",
    }
    for prefix in ("/v1", "/v1/indexes/kb"):
        for path in PATHS:
            answer = service.client.options(f"{prefix}/browser/{path}", headers=asks)
            allowed = answer.headers.get("access-control-allow-origin")
            assert allowed == (HELP if origin == HELP else None)
            assert "access-control-allow-credentials" not in answer.headers
    for path in (
        "/v1/feedback", "/v1/retrieve", "/ubi_events", "/v1/votes", "/v1/browser",
        "/v1/browser/x/feedback", "/v1/openapi.json",
    ):  # fmt: skip
        answer = service.client.options(path, headers=asks)
        assert "access-control-allow-origin" not in answer.headers, path
        answer = service.client.get(path, headers={"origin": origin})
        assert "access-control-allow-origin" not in answer.headers, path
        answer = service.client.post(path, json={"query": "x"}, headers={"origin": origin})
        assert answer.status_code == 403, (path, answer.text)
        assert "access-control-allow-origin" not in answer.headers, path
    token = token_of(service)
    body = {"token": token, **PATHS["feedback"]}
    answer = service.client.post("/v1/browser/feedback", json=body, headers={"origin": origin})
    assert answer.status_code == (200 if origin == HELP else 403)


def test_a_page_of_the_service_itself_may_call(service: Served) -> None:
    headers = {"origin": access.ADDRESS}
    answer = service.client.post("/v1/retrieve", json={"query": "x"}, headers=headers)
    assert answer.status_code == 200


def test_who_shares_a_public_key_does_not_share_idempotency_keys(service: Served) -> None:
    tokens = [token_of(service, user_id=user) for user in ("ann", "bob")]
    service.add_key("all", "read", "vote", "write", "review", "admin")
    service.add_key("public", "vote", public=True)
    headers = service.headers("public", **{"Idempotency-Key": "1"})
    answers = [
        service.client.post(
            "/v1/browser/feedback", json={"token": token, **PATHS["feedback"]}, headers=headers
        )
        for token in (*tokens, *tokens)
    ]
    assert [each.status_code for each in answers] == [200] * 4
    replayed = ["idempotent-replayed" in each.headers for each in answers]
    assert replayed == [False, False, True, True]
    assert len(votes(service)) == 2


def test_origins_are_checked_when_it_starts() -> None:
    for origin in ("*", "help.example.com", "https://help.example.com/", "null", "ftp://x", ""):
        with pytest.raises(ValueError, match="found the origin"):
            Settings(origins=(origin,))
    assert Settings(origins=(HELP, "http://localhost:3000")).origins[1] == "http://localhost:3000"
