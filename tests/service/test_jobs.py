"""Long work in processes of its own."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from rag_flywheel import LockedError
from rag_flywheel.service.jobs import is_job
from rag_flywheel.store.service import jobs
from served import environment
from service_client import client_of, make_index
from shared_state import open_records


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    with client_of(make_index(tmp_path / "kb")) as made:
        yield made


def ended(client: TestClient, job: str) -> dict[str, Any]:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found: dict[str, Any] = client.get(f"/v1/jobs/{job}").json()
        if found["ended"] is not None:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{job} did not end")


def test_a_refresh_is_begun_watched_and_live_at_its_end(client: TestClient) -> None:
    begun = client.post("/v1/refresh", json={})
    assert begun.status_code == 202
    job = begun.json()
    assert begun.headers["location"] == f"/v1/indexes/kb/jobs/{job['id']}"
    found = ended(client, job["id"])
    assert (found["state"], found["error"]) == ("done", None)
    assert found["result"]["outcome"] == "promoted"
    (version,) = client.get("/v1/versions").json()
    assert version["id"] == found["result"]["version"]
    asked = client.post("/v1/retrieve", json={"query": "a new password"}).json()
    assert asked["version"] == version["id"]
    assert [each["id"] for each in client.get("/v1/jobs").json()] == [job["id"]]


def test_forgetting_is_a_job_and_its_user_is_in_no_file(client: TestClient, tmp_path: Path) -> None:
    asked = client.post("/v1/retrieve", json={"query": "refunds", "user_id": "ann-of-oslo"}).json()
    client.post(
        "/v1/feedback",
        json={
            "retrieval_id": asked["id"],
            "passage_id": "refund",
            "verdict": "helpful",
            "user_id": "ann-of-oslo",
        },
    )
    begun = client.post("/v1/users:forget", json={"user_id": "ann-of-oslo"})
    found = ended(client, begun.json()["id"])
    assert found["state"] == "done"
    assert (found["result"]["n_retrievals"], found["result"]["n_votes"]) == (1, 1)
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"ann-of-oslo" not in stored


def test_a_second_job_waits_for_its_turn(tmp_path: Path) -> None:
    database = open_records(tmp_path / "kb")
    one = jobs.add(database, "kb", "refresh", lambda *_: True)
    with pytest.raises(LockedError, match=f"job {one} is under way"):
        jobs.add(database, "kb", "refresh", lambda *_: True)
    jobs.add(database, "other", "refresh", lambda *_: True)
    jobs.end(database, one, "done", result={"a": 1})
    two = jobs.add(database, "kb", "refresh", lambda *_: True)
    assert [each.id for each in jobs.listed(database, "kb", lambda *_: True)] == [two, one]
    database.close()


def test_a_job_whose_process_died_has_failed_and_stands_in_nobodys_way(tmp_path: Path) -> None:
    database = open_records(tmp_path / "kb")
    one = jobs.add(database, "kb", "refresh", lambda *_: False)
    jobs.set_process(database, one, 4_000_000)
    jobs.add(database, "kb", "refresh", lambda *_: False)
    found = jobs.find(database, one, lambda *_: False)
    assert found.state == "failed"
    assert found.error is not None
    assert "begin it again" in found.error["message"]
    database.close()


def test_a_cancelled_job_leaves_the_index_as_it_was(client: TestClient) -> None:
    job = client.post("/v1/refresh", json={}).json()["id"]
    found = client.post(f"/v1/jobs/{job}:cancel")
    assert found.status_code == 200
    assert found.json()["state"] in ("cancelled", "done")
    if found.json()["state"] == "cancelled":
        assert client.get("/v1/versions").json() == []
    assert client.post(f"/v1/jobs/{job}:cancel").json() == found.json()
    again = client.post("/v1/refresh", json={})
    assert again.status_code == 202
    assert ended(client, again.json()["id"])["state"] == "done"


def test_a_killed_job_is_told(client: TestClient, tmp_path: Path) -> None:
    job = client.post("/v1/refresh", json={}).json()["id"]
    database = open_records(tmp_path / "kb")
    pid = jobs.process_of(database, job)
    database.close()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    found = ended(client, job)
    assert (found["state"], found["result"]) == ("failed", None)


def test_a_job_is_unknown_to_another_index_and_to_everybody_else(client: TestClient) -> None:
    assert client.get("/v1/jobs/no").status_code == 404
    assert client.post("/v1/jobs/no:cancel").status_code == 404


@pytest.mark.parametrize("body", [{"if_votes": 0}, {"max_age_s": -1}, {"tune": 1}, {"other": 1}])
def test_what_no_refresh_can_have_begins_none(client: TestClient, body: dict[str, Any]) -> None:
    assert client.post("/v1/refresh", json=body).status_code == 422
    assert client.get("/v1/jobs").json() == []


def test_a_refresh_that_fails_says_why(client: TestClient, tmp_path: Path) -> None:
    toml = tmp_path / "kb" / "flywheel.toml"
    toml.write_text(
        toml.read_text(encoding="utf-8").replace("fakes:WordEncoder", "no_such:encoder"),
        encoding="utf-8",
    )
    found = ended(client, client.post("/v1/refresh", json={}).json()["id"])
    assert found["state"] == "failed"
    assert found["error"]["type"] == "EncoderNotFoundError"
    assert "no_such" in found["error"]["message"]


def test_the_process_of_a_job_is_known_from_its_first_moment_to_its_end() -> None:
    """Right after it began, the system does not tell its words yet: it was held to be dead then."""
    for n in range(300):
        words = ["sh", "-c", "read line", f"job-{n}"]
        with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
            assert is_job(process.pid, f"job-{n}")
            assert process.stdin is not None
            process.stdin.close()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            assert not is_job(process.pid, f"job-{n}")  # nobody has waited for it yet
