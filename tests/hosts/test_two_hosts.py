"""A service on two hosts with clocks ten minutes apart and folders of their own, which share records and an
index on PostgreSQL."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from on_postgres import url_of
from rag_flywheel import Config, Flywheel, Passage
from rag_flywheel.store.database import Database
from rag_flywheel.store.service import jobs, requests
from rag_flywheel.store.service.keys import SCOPES, make_key, revoke_key
from rag_flywheel.store.service.state import open_state
from service_hosts import host

SKEW_S = 300.0
TOKEN_S = 72.0
MOST = 6  # votes of a user in a minute
VOTE = {"passage_id": "reset", "verdict": "helpful"}


@dataclass
class Pair:
    """Two hosts: the clock of the first is slow, that of the second fast."""

    slow: httpx.Client
    fast: httpx.Client
    folder: Path
    state_url: str
    state: Database
    jobs_wait: Path

    def __iter__(self) -> Iterator[httpx.Client]:
        return iter((self.slow, self.fast))

    def key(self, *scopes: str) -> tuple[dict[str, str], str]:
        """The headers of a request with a new key, and its id."""
        text, key = make_key(self.state, "test", scopes or SCOPES)
        return {"authorization": f"Bearer {text}"}, key.id

    def votes(self, retrieval_id: str) -> int:
        """How many votes on a retrieval are stored."""
        with Flywheel.open(self.folder) as fw:
            return sum(vote.retrieval_id == retrieval_id for vote in fw.votes(10_000))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    root = tmp_path_factory.mktemp("hosts")
    pytest.importorskip("obstore", reason="needs the extra objects")
    state_url, waits = url_of("two_hosts_state"), root / "waits"
    folders = [root / name / "kb" for name in ("one", "two")]
    shared = {"path": url_of("two_hosts"), "objects": f"file://{root}/store"}
    config = Config(encoder="fakes:word_encoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_JOBS_WAIT", str(waits))
        for folder in folders:
            folder.parent.mkdir()
        with Flywheel.open(**shared, cache=folders[0], config=config) as fw:
            fw.add([Passage("reset", "open settings to get a new password")])
            fw.add([Passage("refund", "refunds are paid within 30 days")])
            fw.refresh()
        Flywheel.open(**shared, cache=folders[1]).close()
        options = ["--token-hours", str(TOKEN_S / 3600), "--votes-per-minute", str(MOST)]
        with (
            host(folders[0], state_url, "one", skew_s=-SKEW_S, options=options) as slow,
            host(folders[1], state_url, "two", skew_s=SKEW_S, options=options) as fast,
            httpx.Client(base_url=slow.url, timeout=30) as one,
            httpx.Client(base_url=fast.url, timeout=30) as two,
        ):
            state = open_state(state_url)
            yield Pair(one, two, folders[0], state_url, state, waits)
            state.close()


def ask(client: httpx.Client, headers: dict[str, str], **more: Any) -> dict[str, Any]:
    body = {"query": "a new password", **more}
    answer = client.post("/v1/retrieve", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def both_at_once(pair: Pair, send: Callable[[httpx.Client], Any]) -> list[Any]:
    """What the two hosts answer to requests that are sent at the same moment."""
    barrier, found = threading.Barrier(2), list[Any]()

    def run(client: httpx.Client) -> None:
        barrier.wait()
        found.append(send(client))

    threads = [threading.Thread(target=run, args=(each,)) for each in pair]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return found


def test_a_key_holds_on_every_host_until_the_next_request_after_it_is_revoked(pair: Pair) -> None:
    headers, id_ = pair.key("read")
    for _ in range(3):
        assert [c.get("/v1/metadata-keys", headers=headers).status_code for c in pair] == [200, 200]
    revoke_key(pair.state, id_)
    assert [c.get("/v1/metadata-keys", headers=headers).status_code for c in pair] == [401, 401]


def test_keys_are_made_and_revoked_from_a_shell_anywhere(pair: Pair) -> None:
    def run(*words: str) -> str:
        command = [sys.executable, "-m", "rag_flywheel", "keys", *words]
        variables = {**os.environ, "RAG_FLYWHEEL_SERVICE_STATE": pair.state_url}
        done = subprocess.run(command, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    text = re.findall(r"fw_\S+", run("add", "of a shell", "--scope", "read"))[0]
    assert "of a shell" in run("list")
    headers = {"x-api-key": text}
    assert [c.get("/v1/metadata-keys", headers=headers).status_code for c in pair] == [200, 200]


def test_calls_and_votes_are_counted_together(pair: Pair) -> None:
    headers, _ = pair.key()
    left = []
    for n in range(6):
        client = (pair.slow, pair.fast)[n % 2]
        limit = client.get("/v1/metadata-keys", headers=headers).headers["ratelimit"]
        found = re.fullmatch(r'"calls";r=(\d+);t=(\d+)', limit)
        assert found is not None
        assert 1 <= int(found[2]) <= 60
        left.append(int(found[1]))
    assert left == list(range(left[0], left[0] - 6, -1))
    shown = [ask(client, headers, user_id="cy")["id"] for client in (pair.slow, pair.fast)]
    statuses = []
    for n in range(2 * MOST):
        body = {"retrieval_id": shown[n % 2], "user_id": "cy", **VOTE}
        answer = (pair.slow, pair.fast)[n % 2].post("/v1/feedback", json=body, headers=headers)
        statuses.append(answer.status_code)
        if answer.status_code == 429:
            assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert statuses == [200] * MOST + [429] * MOST


def test_a_repeated_request_gets_the_first_answer_from_the_other_host(pair: Pair) -> None:
    headers, _ = pair.key()
    for first, second in ((pair.slow, pair.fast), (pair.fast, pair.slow)):
        body = {"retrieval_id": ask(first, headers)["id"], **VOTE}
        sent = {**headers, "idempotency-key": f"repeat {first is pair.slow}"}
        one = first.post("/v1/feedback", json=body, headers=sent)
        two = second.post("/v1/feedback", json=body, headers=sent)
        assert (one.status_code, two.status_code) == (200, 200)
        assert two.content == one.content
        assert "idempotent-replayed" not in one.headers
        assert two.headers["idempotent-replayed"] == "true"
        other = second.post("/v1/feedback", json={**body, "verdict": "harmful"}, headers=sent)
        assert other.json()["title"] == "IdempotencyKeyReused"
        assert pair.votes(body["retrieval_id"]) == 1


def test_a_request_that_reaches_two_hosts_at_the_same_time_is_done_once(pair: Pair) -> None:
    headers, _ = pair.key()
    statuses: Counter[int] = Counter()
    shown = [ask(pair.slow, headers)["id"] for _ in range(15)]
    for n, retrieval_id in enumerate(shown):
        body = {"retrieval_id": retrieval_id, **VOTE}
        sent = {**headers, "idempotency-key": f"at once {n}"}

        def send(client: httpx.Client, body: Any = body, sent: Any = sent) -> httpx.Response:
            return client.post("/v1/feedback", json=body, headers=sent)

        answers = both_at_once(pair, send)
        statuses.update(answer.status_code for answer in answers)
        again = [send(client) for client in pair]
        done = [a.content for a in (*answers, *again) if a.status_code == 200]
        assert len(done) >= 3
        assert set(done) == {b'{"recorded":1}'}
        for answer in answers:
            if answer.status_code == 409:
                assert answer.json()["title"] == "RequestUnderWay"
                assert answer.headers["retry-after"] == "1"
    assert set(statuses) <= {200, 409}
    with Flywheel.open(pair.folder) as fw:
        stored = Counter(vote.retrieval_id for vote in fw.votes(10_000))
    assert [stored[id_] for id_ in shown] == [1] * 15


@pytest.mark.parametrize("slow_first", [True, False])
def test_what_a_host_wrote_before_it_died_is_not_written_again_by_another(
    pair: Pair, slow_first: bool
) -> None:
    """The time of a vote is of the host that wrote it, and may be minutes before the request."""
    first, second = (pair.slow, pair.fast) if slow_first else (pair.fast, pair.slow)
    headers, _ = pair.key()
    body = {"retrieval_id": ask(first, headers, user_id="dee")["id"], "user_id": "dee", **VOTE}
    sent = {**headers, "idempotency-key": f"died {slow_first}"}
    assert first.post("/v1/feedback", json=body, headers=sent).status_code == 200
    other = {"retrieval_id": ask(second, headers)["id"], **VOTE}
    assert second.post("/v1/feedback", json=other, headers=headers).status_code == 200
    with pair.state.transaction() as conn:  # as if it had died before its answer was stored
        conn.execute(
            "UPDATE requests SET status = NULL, at = at - ? WHERE key = ?",
            (requests.UNDER_WAY_S - 5, sent["idempotency-key"]),
        )
    assert second.post("/v1/feedback", json=body, headers=sent).status_code == 409
    with pair.state.transaction() as conn:
        conn.execute("UPDATE requests SET at = at - 6 WHERE key = ?", (sent["idempotency-key"],))
    again = second.post("/v1/feedback", json=body, headers=sent)
    assert (again.status_code, again.json()) == (200, {"recorded": 1})
    assert "idempotent-replayed" not in again.headers
    assert pair.votes(body["retrieval_id"]) == 1


def test_a_token_of_one_host_is_good_on_the_other_for_its_time(pair: Pair) -> None:
    headers, _ = pair.key()
    for first, second in ((pair.slow, pair.fast), (pair.fast, pair.slow)):
        token = ask(first, headers, feedback_token=True)["feedback_token"]
        answer = second.post("/v1/browser/feedback", json={"token": token, **VOTE}, headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"recorded": 1})


def test_who_signed_in_on_one_host_has_signed_in_on_the_other(pair: Pair) -> None:
    headers, id_ = pair.key()
    text = headers["authorization"].split()[1]
    for first, second in ((pair.slow, pair.fast), (pair.fast, pair.slow)):
        form = first.get("/sign-in")
        token = re.findall(r'name="form_token" value="([^"]+)"', form.text)[0]
        cookies = {"cookie": f"fw_session={first.cookies['fw_session']}"}
        first.cookies.clear()
        data = {"form_token": token, "key": text}
        answer = second.post("/sign-in", data=data, headers=cookies)  # a balancer sends it there
        assert answer.status_code == 303, answer.text
        cookies = {"cookie": f"fw_session={second.cookies['fw_session']}"}
        second.cookies.clear()
        assert [c.get("/passages", headers=cookies).status_code for c in (first, second)] == [
            200,
            200,
        ]
        first.cookies.clear()
        second.cookies.clear()
    revoke_key(pair.state, id_)
    assert [c.get("/passages", headers=cookies).status_code for c in pair] == [303, 303]


def test_a_page_of_a_list_begins_where_that_of_the_other_host_ended(pair: Pair) -> None:
    headers, _ = pair.key()
    for _ in range(3):
        ask(pair.slow, headers)
    first = pair.slow.get("/v1/retrievals", params={"limit": 2}, headers=headers).json()
    params = {"limit": 2, "cursor": first["next_cursor"]}
    found = [c.get("/v1/retrievals", params=params, headers=headers).json() for c in pair]
    assert found[0] == found[1]
    assert not {i["id"] for i in first["items"]} & {i["id"] for i in found[0]["items"]}


def test_documents_that_are_sent_to_one_host_are_replaced_by_those_sent_to_the_other(
    pair: Pair,
) -> None:
    headers, _ = pair.key()

    def send(client: httpx.Client, text: str) -> Any:
        files = {"files": ("docs/desk.md", text.encode())}
        answer = client.post("/v1/documents", files=files, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["passages"]

    assert send(pair.slow, "# Desk\n\nIt is open from 8 to 18.\n")["added"] == 1
    assert send(pair.fast, "# Desk\n\nIt is open from 8 to 18.\n")["unchanged"] == 1
    found = send(pair.fast, "# Desk\n\nIt is open on Sundays, too.\n")
    assert (found["added"], found["updated"]) == (0, 1)
    assert send(pair.slow, "# Desk\n\nIt is open from 8 to 18.\n")["updated"] == 1


def job_of(client: httpx.Client, headers: dict[str, str], id_: str) -> dict[str, Any]:
    answer = client.get(f"/v1/jobs/{id_}", headers=headers)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def until(client: httpx.Client, headers: dict[str, str], id_: str, *states: str) -> dict[str, Any]:
    """The job once it is in one of these states."""
    end = time.monotonic() + 60
    while (found := job_of(client, headers, id_))["state"] not in states:
        assert time.monotonic() < end, found
        time.sleep(0.1)
    return found


def under_way(pair: Pair, headers: dict[str, str], id_: str) -> None:
    """Wait until a refresh says how far it is, and so holds the lock of refreshes."""
    end = time.monotonic() + 60
    while not (found := job_of(pair.fast, headers, id_))["step"]:
        assert time.monotonic() < end, found
        time.sleep(0.1)
    assert found["state"] == "running"


@pytest.fixture
def long_refresh(pair: Pair) -> Iterator[dict[str, str]]:
    """A refresh takes until the file is gone; the headers of a key."""
    with Flywheel.open(pair.folder) as fw:
        fw.add([Passage("late", f"what was added at {time.time()}")])
    pair.jobs_wait.touch()
    try:
        yield pair.key()[0]
    finally:
        pair.jobs_wait.unlink(missing_ok=True)


def test_of_two_refreshes_at_once_one_is_told_that_the_other_runs(
    pair: Pair, long_refresh: dict[str, str]
) -> None:
    answers = both_at_once(pair, lambda c: c.post("/v1/refresh", json={}, headers=long_refresh))
    assert sorted(answer.status_code for answer in answers) == [202, 409]
    begun, refused = sorted(answers, key=lambda a: int(a.status_code))
    id_ = begun.json()["id"]
    assert f"job {id_} is under way" in refused.json()["detail"]
    command = [sys.executable, "-m", "rag_flywheel", "refresh", "--index", str(pair.folder)]
    under_way(pair, long_refresh, id_)
    path = {"PYTHONPATH": os.pathsep.join([*sys.path])}
    from_cron = subprocess.run(command, env={**os.environ, **path}, capture_output=True, text=True)
    assert from_cron.returncode == 75, from_cron.stderr
    pair.jobs_wait.unlink()
    found = [until(client, long_refresh, id_, "done") for client in pair]
    assert found[0] == found[1]
    assert found[0]["result"]["outcome"] == "promoted"


def test_a_job_of_a_host_that_died_has_failed_on_the_other(
    pair: Pair, long_refresh: dict[str, str]
) -> None:
    id_ = pair.slow.post("/v1/refresh", json={}, headers=long_refresh).json()["id"]
    under_way(pair, long_refresh, id_)
    os.kill(pid_of(pair, id_), signal.SIGKILL)
    assert job_of(pair.fast, long_refresh, id_)["state"] == "running"  # it might only be late
    silent(pair, id_, jobs.SILENT_S - 10)
    assert job_of(pair.fast, long_refresh, id_)["state"] == "running"
    silent(pair, id_, 10)
    found = job_of(pair.fast, long_refresh, id_)
    assert (found["state"], found["error"]["type"]) == ("failed", "Died")
    pair.jobs_wait.unlink()
    again = pair.fast.post("/v1/refresh", json={}, headers=long_refresh)
    assert again.status_code == 202
    assert until(pair.slow, long_refresh, again.json()["id"], "done")


def pid_of(pair: Pair, id_: str) -> int:
    """The process that a job runs in."""
    with pair.state.reading() as conn:
        (pid,) = conn.execute("SELECT pid FROM jobs WHERE id = ?", (id_,)).fetchone()
    return int(pid)


def silent(pair: Pair, id_: str, seconds: float) -> None:
    """Let time go by since the last sign of life of a job."""
    with pair.state.transaction() as conn:
        conn.execute("UPDATE jobs SET beat = beat - ? WHERE id = ?", (seconds, id_))


def test_a_job_that_slept_and_was_held_to_be_dead_tells_how_it_ended(
    pair: Pair, long_refresh: dict[str, str]
) -> None:
    id_ = pair.slow.post("/v1/refresh", json={}, headers=long_refresh).json()["id"]
    under_way(pair, long_refresh, id_)
    pid = pid_of(pair, id_)
    os.kill(pid, signal.SIGSTOP)
    try:
        silent(pair, id_, jobs.SILENT_S + 1)
        assert job_of(pair.fast, long_refresh, id_)["state"] == "failed"
        other = pair.fast.post("/v1/refresh", json={}, headers=long_refresh).json()["id"]
        found = until(pair.fast, long_refresh, other, "failed", "done")
        assert (found["state"], found["error"]["type"]) == ("failed", "LockedError")
    finally:
        pair.jobs_wait.unlink()
        os.kill(pid, signal.SIGCONT)
    assert until(pair.fast, long_refresh, id_, "done")["result"]["outcome"] == "promoted"


def test_a_job_is_stopped_from_another_host(pair: Pair, long_refresh: dict[str, str]) -> None:
    id_ = pair.slow.post("/v1/refresh", json={}, headers=long_refresh).json()["id"]
    under_way(pair, long_refresh, id_)
    live = pair.fast.get("/v1/status", headers=long_refresh).json()["live_version"]
    found = pair.fast.post(f"/v1/jobs/{id_}:cancel", headers=long_refresh)
    assert (found.status_code, found.json()["state"]) == (200, "cancelled")
    assert job_of(pair.slow, long_refresh, id_)["state"] == "cancelled"
    assert pair.slow.get("/v1/status", headers=long_refresh).json()["live_version"] == live
