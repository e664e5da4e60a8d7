"""PostgreSQL stops, starts and crashes under two hosts that serve: what callers see, and what is stored."""

import os
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from rag_flywheel import Config, Flywheel, FlywheelError, Passage
from rag_flywheel.client import Client
from rag_flywheel.store.service.keys import make_key
from rag_flywheel.store.service.state import open_state
from service_hosts import host

pytestmark = pytest.mark.slow
N_VOTERS = 4


@dataclass
class Voted:
    """The retrievals on which a vote was acknowledged, and the errors of others."""

    acknowledged: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def vote(url: str, name: int, voted: Voted, stop: threading.Event) -> None:
    """Ask and vote by a client that tries again, until it is over."""
    with Client(url, retries=12) as client:
        n = 0
        while not stop.is_set():
            n += 1
            user = f"u{name}-{n}"
            try:
                found = client.retrieve("a new password", user_id=user)
                assert found.id is not None
                client.feedback(found.id, "reset", "helpful", user_id=user)
            except FlywheelError as error:
                voted.errors.append(f"{type(error).__name__}: {error}")
            else:
                voted.acknowledged.append(found.id)


def stop_server(server: Any) -> None:
    """Stop it as `pg_ctl stop` does, without waiting for connections to end."""
    pid = server.get_pid()
    os.kill(pid, signal.SIGINT)
    end = time.monotonic() + 30
    with suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.kill(pid, 0)
            time.sleep(0.05)


def crash(folder: Path) -> None:
    """Kill a process of the server, so that it throws all others away and recovers."""
    with Flywheel.open(folder) as fw, fw._database.reading() as conn:
        (pid,) = conn.execute("SELECT pg_backend_pid()").fetchone()
        os.kill(pid, signal.SIGKILL)


def more_votes(voted: Voted, n: int) -> None:
    """Wait until so many more votes are acknowledged."""
    until, before = time.monotonic() + 90, len(voted.acknowledged)
    while len(voted.acknowledged) < before + n:
        assert time.monotonic() < until, voted.errors
        time.sleep(0.05)


def refused(url: str) -> None:
    """A host without its server lives, is not ready, and refuses what it is asked, soon."""
    with httpx.Client(base_url=url, timeout=10) as client:
        assert client.get("/livez").status_code == 200
        until = time.monotonic() + 10
        while (ready := client.get("/readyz")).status_code == 200 and time.monotonic() < until:
            time.sleep(0.1)
        assert ready.status_code == 503
        assert ready.headers["retry-after"] == "2"
        assert "cannot be read" in ready.json()["detail"]
        body = {"retrieval_id": "x", "passage_id": "reset", "verdict": "helpful"}
        for headers in ({}, {"idempotency-key": "while it is gone"}, {"x-api-key": "fw_any"}):
            for path in ("/v1/feedback", "/v1/refresh"):
                answer = client.post(path, json=body, headers=headers)
                assert answer.status_code == 503, answer.text
                assert answer.headers["retry-after"] == "2"
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["title"] == "UnreachableError"
                assert "cannot be reached" in answer.json()["detail"]


def test_votes_go_on_after_a_restart_and_a_crash_and_each_is_stored_once(
    own_server: Any, tmp_path: Path
) -> None:
    url, folder = own_server.get_uri(), tmp_path / "kb"
    config = Config(encoder="fakes:word_encoder")
    with Flywheel.open(f"{url}&schema=kb", cache=folder, config=config) as fw:
        fw.add([Passage("reset", "open settings to get a new password")])
        fw.refresh()
    state = f"{url}&schema=service"
    options = ["--votes-per-minute", "0"]
    voted, stop = Voted(), threading.Event()
    with (
        host(folder, state, "one", options=options) as one,
        host(folder, state, "two", options=options) as two,
    ):
        threads = [
            threading.Thread(target=vote, args=((one, two)[n % 2].url, n, voted, stop))
            for n in range(N_VOTERS)
        ]
        for thread in threads:
            thread.start()
        try:
            more_votes(voted, 20)
            stop_server(own_server)
            refused(one.url)
            refused(two.url)
            own_server.ensure_postgres_running()
            more_votes(voted, 40)
            crash(folder)
            more_votes(voted, 40)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        for each in (one, two):
            assert httpx.get(f"{each.url}/readyz").status_code == 200
    with Flywheel.open(folder) as fw:
        stored = Counter(each.retrieval_id for each in fw.votes(10**6))
        assert fw.verify() == []
    assert set(stored.values()) == {1}
    assert set(voted.acknowledged) <= set(stored)
    print({"acknowledged": len(voted.acknowledged), "stored": len(stored), "errors": voted.errors})
    # after a crash the record of an answer may be gone, on which nobody has voted yet
    assert all(error.startswith("UnknownIdError") for error in voted.errors)
    assert len(voted.errors) <= N_VOTERS


def test_a_host_that_slept_wakes_to_what_the_others_did(own_server: Any, tmp_path: Path) -> None:
    """It is stopped while others revoke a key, vote and refresh, and the server ends its connections."""
    url, folder = own_server.get_uri(), tmp_path / "kb"
    config = Config(encoder="fakes:word_encoder")
    with Flywheel.open(f"{url}&schema=kb", cache=folder, config=config) as fw:
        fw.add([Passage(f"p{n}", f"how to get a new password {n}") for n in range(9)])
        fw.refresh()
    state = f"{url}&schema=service"
    with host(folder, state, "awake") as awake, host(folder, state, "asleep") as asleep:
        with Client(asleep.url) as client:
            before = client.retrieve("a new password", k=3).version
        os.kill(asleep.process.pid, signal.SIGSTOP)
        try:
            with Client(awake.url) as client:
                client.add([Passage("late", "a late way to get a new password")])
                made = client.refresh()
                assert made.outcome == "promoted"
                shown = client.retrieve("a new password", k=9)
                voted_on = shown.hits[-1].passage_id
                for user in "abc":
                    client.feedback(shown.id, voted_on, "helpful", user_id=user)
            with Flywheel.open(folder) as fw, fw._database.reading() as conn:
                conn.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE pid <> pg_backend_pid() AND application_name LIKE 'rag-flywheel%'"
                )
        finally:
            os.kill(asleep.process.pid, signal.SIGCONT)
        with Client(asleep.url) as client:
            found = client.retrieve("a new password", k=10)  # the votes act in the first call
            evidence = {hit.passage_id: hit.explanation.evidence for hit in found.hits}
            assert evidence[voted_on] > 0
            assert "late" in evidence
            until = time.monotonic() + 30
            while client.retrieve("a new password", k=3).version != made.version:
                assert time.monotonic() < until
                time.sleep(0.1)
        assert made.version != before


def test_questions_are_answered_by_a_known_key_while_the_server_is_gone(
    own_server: Any, tmp_path: Path
) -> None:
    url, folder = own_server.get_uri(), tmp_path / "kb"
    config = Config(encoder="fakes:word_encoder")
    with Flywheel.open(f"{url}&schema=kb", cache=folder, config=config) as fw:
        fw.add([Passage(f"p{n}", f"how to get a new password {n}") for n in range(9)])
        fw.refresh()
    state = f"{url}&schema=service"
    records = open_state(state)
    made = [
        make_key(records, "app", scopes)[0] for scopes in (["read", "vote"], ["vote"], ["read"])
    ]
    records.close()
    both, voting, unused = ({"x-api-key": key} for key in made)
    ask = {"query": "a new password", "k": 3}
    with host(folder, state, "one") as one, httpx.Client(base_url=one.url, timeout=20) as client:
        shown = client.post("/v1/retrieve", json=ask, headers=both).json()
        vote_ = {
            "retrieval_id": shown["id"],
            "passage_id": shown["hits"][2]["passage_id"],
            "verdict": "helpful",
        }
        for key in (both, voting):
            assert client.post("/v1/feedback", json=vote_, headers=key).status_code == 200
        before = client.post("/v1/retrieve", json=ask, headers=both).json()
        stop_server(own_server)
        alone = client.post("/v1/retrieve", json=ask, headers=both)
        assert alone.status_code == 200
        ids = [hit["passage_id"] for hit in alone.json()["hits"]]
        assert ids == [hit["passage_id"] for hit in before["hits"]]
        for path, body, key, status in (
            ("/v1/feedback", vote_, both, 503),  # it may only read now
            ("/v1/feedback", vote_, voting, 503),
            ("/v1/retrieve", ask, voting, 403),
            ("/v1/retrieve", ask, unused, 503),  # which this host has not seen
            ("/v1/retrieve", ask, {"x-api-key": "fw_any"}, 503),
        ):
            assert client.post(path, json=body, headers=key).status_code == status, (path, key)
        own_server.ensure_postgres_running()
        until = time.monotonic() + 30
        while client.post("/v1/feedback", json=vote_, headers=both).status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.1)
        late = {**vote_, "retrieval_id": alone.json()["id"]}  # recorded when the server was back
        while (voted := client.post("/v1/feedback", json=late, headers=both)).status_code != 200:
            assert time.monotonic() < until, voted.text
            time.sleep(0.1)
