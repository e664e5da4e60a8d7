"""A request that comes again under its Idempotency-Key is done once, whatever happened to the first one."""

import hashlib
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import access
from access import Served
from rag_flywheel.service.repeats import HEADER
from rag_flywheel.store.service import requests

ONCE = {
    "feedback": {"passage_id": "reset", "verdict": "helpful"},
    "answer-feedback": {"verdict": "harmful"},
    "adopted": {"used": False, "why": "no"},
    "signals": {"kind": "rating", "value": 3},
    "corrections": {"passage_id": "refund"},
    "relevance": {"helpful": {"reset": True, "refund": False}},
}
NOTES = {"missing": {"note": "none"}, "corrections": {"text": "by hand"}}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    folders = {"kb": access.make_index(tmp_path, tenant_key=None)}
    with access.serve(folders) as found:
        yield found


def ask(service: Served) -> str:
    answer = service.client.post("/v1/retrieve", json={"query": "password", "user_id": "ann"})
    return str(answer.json()["id"])


def stored(service: Served) -> list[tuple[Any, ...]]:
    """Every vote and note."""
    with closing(sqlite3.connect(service.folder / "kb" / "flywheel.db")) as conn:
        return [
            row
            for sql in (
                "SELECT rid, pid, verdict, user_id, 'vote' FROM votes",
                "SELECT rid, kind, verdict, user_id, 'answer' FROM answer_votes",
                "SELECT rid, kind, text, user_id, 'note' FROM notes",
            )
            for row in conn.execute(sql)
        ]


def die(service: Served, *, ago_s: float) -> None:
    """Make the last request one whose process died before it answered."""
    with service.state.transaction() as conn:
        n = conn.execute(
            "UPDATE requests SET status = NULL, headers = NULL, body = NULL, at = at - ?, "
            "tried_at = tried_at - ? WHERE status IS NOT NULL",
            (ago_s, ago_s),
        ).rowcount
    assert n == 1


def send(service: Served, path: str, body: object, key: str = "1", **more: str) -> Any:
    return service.client.post(f"/v1/{path}", json=body, headers={HEADER: key, **more})


@pytest.mark.parametrize("path", ONCE)
def test_the_same_request_again_gets_the_first_answer(service: Served, path: str) -> None:
    body = {"retrieval_id": ask(service), "user_id": "ann", **ONCE[path]}
    first, again = send(service, path, body), send(service, path, body)
    assert first.status_code == again.status_code == 200
    assert first.content == again.content
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    n = len(stored(service))
    other = send(service, path, {**body, "user_id": "bob"})
    assert (other.status_code, other.json()["title"]) == (422, "IdempotencyKeyReused")
    assert send(service, f"indexes/kb/{path}", body).status_code == 422
    assert len(stored(service)) == n
    assert send(service, path, {**body, "user_id": "bob"}, "2").status_code == 200
    assert len(stored(service)) > n


@pytest.mark.parametrize("path", ONCE)
def test_a_process_that_died_between_the_write_and_its_answer_voted_once(
    service: Served, path: str
) -> None:
    body = {"retrieval_id": ask(service), "user_id": "ann", **ONCE[path]}
    first = send(service, path, body)
    before = stored(service)
    die(service, ago_s=requests.UNDER_WAY_S - 60)
    assert send(service, path, body).status_code == 409  # it may be alive
    assert send(service, path, {**body, "user_id": "bob"}).status_code == 422
    with service.state.transaction() as conn:
        conn.execute("UPDATE requests SET at = at - 90, tried_at = tried_at - 90")
    again = send(service, path, body)
    assert (again.status_code, again.content) == (200, first.content)
    assert "idempotent-replayed" not in again.headers
    assert stored(service) == before
    assert send(service, path, body).headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("path", ONCE)
def test_a_process_that_died_before_the_write_voted_not_at_all(service: Served, path: str) -> None:
    body = {"retrieval_id": ask(service), "user_id": "ann", **ONCE[path]}
    assert send(service, path, body).status_code == 200
    n = len(stored(service))
    other = {**body, "retrieval_id": ask(service)}
    assert send(service, path, other, "2").status_code == 200
    with service.state.transaction() as conn:
        conn.execute("DELETE FROM requests WHERE key = '1'")
    die(service, ago_s=1_000)
    with closing(sqlite3.connect(service.folder / "kb" / "flywheel.db")) as conn, conn:
        of_other = "(SELECT rid FROM retrievals WHERE id = ?)"
        for table in ("votes", "answer_votes", "corrections"):
            conn.execute(f"DELETE FROM {table} WHERE rid = {of_other}", (other["retrieval_id"],))
    assert len(stored(service)) == n
    assert send(service, path, other, "2").status_code == 200
    assert len(stored(service)) == 2 * n


def test_the_vote_of_another_user_is_not_taken_for_the_first_attempt(service: Served) -> None:
    shown = ask(service)
    body = {"retrieval_id": shown, "user_id": "ann", **ONCE["feedback"]}
    send(service, "feedback", body)
    die(service, ago_s=1_000)
    with closing(sqlite3.connect(service.folder / "kb" / "flywheel.db")) as conn, conn:
        conn.execute("DELETE FROM votes")
    send(service, "feedback", {**body, "user_id": "bob"}, "2")
    send(service, "feedback", body)
    assert len({row[3] for row in stored(service)}) == 2


@pytest.mark.parametrize("path", NOTES)
def test_the_same_note_twice_is_one(service: Served, path: str) -> None:
    body = {"retrieval_id": ask(service), "user_id": "ann", **NOTES[path]}
    for key in ("1", "2"):
        assert send(service, path, body, key).status_code == 200
    assert service.client.post(f"/v1/{path}", json=body).status_code == 200
    assert len(stored(service)) == 1
    assert send(service, path, {**body, "user_id": "bob"}, "3").status_code == 200
    assert len(stored(service)) == 2


@pytest.mark.parametrize("path", ["review:undo", "rollback"])
def test_what_must_not_be_done_twice_says_that_its_outcome_is_not_known(
    service: Served, path: str
) -> None:
    assert send(service, path, {}).json()["title"] != "OutcomeUnknown"
    digest = hashlib.sha256(f"POST /v1/{path}?\n{{}}".encode()).digest()
    attempt = requests.Attempt("", "2", "first")
    assert isinstance(requests.begin(service.state, attempt, digest, {}), requests.Begun)
    with service.state.transaction() as conn:
        conn.execute("UPDATE requests SET at = at - 1000")
    answer = send(service, path, {}, "2")
    assert (answer.status_code, answer.json()["title"]) == (409, "OutcomeUnknown")
    assert "GET /v1/" in answer.json()["detail"]


def test_two_processes_at_once_vote_once(tmp_path: Path) -> None:
    folders = {"kb": access.make_index(tmp_path)}
    with access.serve(folders) as one, access.serve(folders) as two:
        bodies = [
            {"retrieval_id": ask(one), "user_id": "ann", **ONCE["feedback"]} for _ in range(20)
        ]
        for each in (one, two):  # a first request makes schemas, which two threads must not at once
            assert send(each, "feedback", {}, "first").status_code == 422
        found: list[Any] = []

        def vote(service: Served) -> None:
            for n, body in enumerate(bodies):
                found.append((n, send(service, "feedback", body, f"key {n}")))

        threads = [threading.Thread(target=vote, args=(each,)) for each in (one, two)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        statuses = Counter(answer.status_code for _, answer in found)
        assert statuses[200] >= 20
        assert set(statuses) <= {200, 409}
        assert len(stored(one)) == 20
        for _, answer in found:
            if answer.status_code == 409:
                assert answer.json()["title"] == "RequestUnderWay"
                assert answer.headers["retry-after"] == "1"


def test_a_key_does_not_replay_what_another_did(service: Served) -> None:
    shown = ask(service)
    for name in ("one", "two"):
        service.add_key(name, "vote")
    body = {"retrieval_id": shown, "user_id": "ann", **ONCE["feedback"]}
    for name in ("one", "two"):
        answer = send(service, "feedback", body, **service.headers(name))
        assert "idempotent-replayed" not in answer.headers
    service.revoke("one")
    answer = send(service, "feedback", body, **service.headers("one"))
    assert answer.status_code == 401
    service.add_key("reader", "read")
    assert send(service, "feedback", body, **service.headers("reader")).status_code == 403
    assert send(service, "feedback", body).status_code == 401


def test_an_error_is_not_stored(service: Served) -> None:
    body = {"retrieval_id": "nothing", **ONCE["feedback"]}
    for _ in range(2):
        answer = send(service, "feedback", body)
        assert answer.status_code == 404
        assert "idempotent-replayed" not in answer.headers
    assert send(service, "feedback", {"retrieval_id": ask(service), **ONCE["feedback"]}).is_success


@pytest.mark.parametrize("key", ["", "x" * 5_001])
def test_a_key_has_a_length(service: Served, key: str) -> None:
    body = {"retrieval_id": ask(service), **ONCE["feedback"]}
    answer = send(service, "feedback", body, key)
    assert answer.status_code == 422
    assert f"{len(key)} characters" in answer.json()["detail"]


def test_a_call_that_takes_too_long_is_done_once_and_answered_later(tmp_path: Path) -> None:
    folders = {"kb": access.make_index(tmp_path)}
    with access.serve(folders, call_s=2.0) as service:
        body = {"retrieval_id": ask(service), "user_id": "ann", **ONCE["feedback"]}
        with closing(sqlite3.connect(service.folder / "kb" / "flywheel.db")) as other:
            other.execute("BEGIN IMMEDIATE")  # so that the vote waits
            answer = send(service, "feedback", body)
            assert (answer.status_code, answer.json()["title"]) == (503, "TimedOut")
            assert send(service, "feedback", body).status_code == 409
            other.execute("ROLLBACK")
        until = time.monotonic() + 20
        while (answer := send(service, "feedback", body)).status_code == 409:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert answer.status_code == 200
        assert answer.headers["idempotent-replayed"] == "true"
        assert len(stored(service)) == 1
