"""Errors as problems: the library's name and message, and the status that fits."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from rag_flywheel import errors
from rag_flywheel.service.problems import MEDIA_TYPE, STATUSES, status_of
from service_client import client_of, make_index


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_index(tmp_path / "kb")


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    with client_of(folder) as made:
        yield made


def every_error() -> list[type[errors.FlywheelError]]:
    found = [errors.FlywheelError]
    for each in found:
        found += each.__subclasses__()
    return found


@pytest.mark.parametrize("kind", every_error())
def test_every_error_of_the_library_has_a_status(kind: type[errors.FlywheelError]) -> None:
    assert status_of(kind.__new__(kind)) == {
        "FlywheelError": 500,
        "AccessError": 403,
        "RateLimitedError": 429,
        "UnknownIdError": 404,
        "LockedError": 409,
        "ReadOnlyError": 403,
        "InputError": 422,
        "ConfigError": 422,
    }.get(kind.__name__, 503)
    assert kind in STATUSES or any(issubclass(kind, each) for each in STATUSES)


def test_a_problem_has_the_name_and_the_words_of_the_error(client: TestClient) -> None:
    found = client.get("/v1/passages/nowhere")
    assert found.status_code == 404
    assert found.headers["content-type"] == MEDIA_TYPE
    assert found.json() == {
        "type": "about:blank",
        "title": "UnknownIdError",
        "status": 404,
        "detail": "no passage 'nowhere' is in the index",
    }


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body.query"),
        ({"query": 7}, "body.query"),
        ({"query": "x", "k": "8"}, "body.k"),
        ({"query": "x", "k": True}, "body.k"),
        ({"query": "x", "record": "yes"}, "body.record"),
        ({"query": "x", "unknown": 1}, "body.unknown"),
        ([], "body"),
    ],
)
def test_a_body_that_does_not_fit_names_the_field(
    client: TestClient, body: object, field: str
) -> None:
    found = client.post("/v1/retrieve", json=body)
    assert found.status_code == 422
    assert [each["field"] for each in found.json()["fields"]] == [field]
    assert found.json()["detail"].startswith(field)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"query": "\\ud800"}', b"[" * 100_000])
def test_what_is_no_json_is_refused(client: TestClient, body: bytes) -> None:
    found = client.post("/v1/retrieve", content=body, headers={"Content-Type": "application/json"})
    assert found.status_code in (400, 422)
    assert found.headers["content-type"] == MEDIA_TYPE


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1", "/v1/nothing", "/v1/indexes/other/status", "/v1/versions/x"]
)
def test_what_there_is_not_is_a_problem_too(client: TestClient, path: str) -> None:
    found = client.get(path)
    assert found.status_code == 404
    assert found.headers["content-type"] == MEDIA_TYPE


def test_another_method_is_refused(client: TestClient) -> None:
    found = client.delete("/v1/retrieve")
    assert found.status_code == 405
    assert found.headers["content-type"] == MEDIA_TYPE


def test_a_damaged_database_is_told_with_what_to_do(folder: Path) -> None:
    with client_of(folder) as client:
        assert client.get("/v1/retrievals").status_code == 200
        with closing(sqlite3.connect(folder / "flywheel.db")) as conn:
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (folder / "flywheel.db").write_bytes(b"no database" * 1_000)
        found = client.get("/v1/passages")
    assert found.status_code == 503
    assert found.json()["title"] == "CorruptFileError"


def test_a_folder_that_is_gone_is_told(folder: Path) -> None:
    with client_of(folder) as client:
        shutil.rmtree(folder)
        found = client.get("/v1/passages")
    assert found.status_code == 503
    assert found.json()["title"].endswith("Error")
