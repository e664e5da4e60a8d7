"""What no request passes, whatever it asks for."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service_client import client_of, make_index

QUESTION = {"query": "a new password"}


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    with client_of(make_index(tmp_path / "kb"), body_bytes=2_000) as made:
        yield made


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""]
)
def test_a_name_that_was_pointed_at_this_machine_is_refused(client: TestClient, host: str) -> None:
    found = client.post("/v1/retrieve", json=QUESTION, headers={"Host": host})
    assert found.status_code == 403
    assert found.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9", "127.0.0.1:8000", "[::1]:8000", "[::1]"]
)
def test_this_machine_by_any_of_its_names_is_answered(client: TestClient, host: str) -> None:
    assert client.post("/v1/retrieve", json=QUESTION, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "", "x"]
)
def test_a_page_of_another_site_changes_nothing(client: TestClient, origin: str) -> None:
    found = client.post("/v1/retrieve", json=QUESTION, headers={"Origin": origin})
    assert found.status_code == 403
    assert client.get("/v1/retrievals").json()["items"] == []


def test_a_page_of_the_service_itself_is_answered(client: TestClient) -> None:
    found = client.post("/v1/retrieve", json=QUESTION, headers={"Origin": "http://127.0.0.1:8000"})
    assert found.status_code == 200


def test_a_form_of_another_page_is_no_json(client: TestClient) -> None:
    found = client.post(
        "/v1/retrieve", content=json.dumps(QUESTION), headers={"Content-Type": "text/plain"}
    )
    assert found.status_code == 422


@pytest.mark.parametrize("length", ["stated", "not stated"])
def test_a_large_body_is_refused(client: TestClient, length: str) -> None:
    body = json.dumps({"query": "x" * 3_000}).encode()
    content = body if length == "stated" else iter([body[:1_000], body[1_000:]])
    found = client.post(
        "/v1/retrieve", content=content, headers={"Content-Type": "application/json"}
    )
    assert found.status_code == 413
    assert "at most 2000 bytes" in found.json()["detail"]


def test_what_takes_too_long_is_ended(tmp_path: Path) -> None:
    folder = make_index(tmp_path / "kb")
    with client_of(folder, call_s=1e-6) as client:
        found = client.post("/v1/retrieve", json=QUESTION)
    assert found.status_code == 503
    assert "more than 1e-06 s" in found.json()["detail"]
