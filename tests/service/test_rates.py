"""Limits of calls and votes: counted by key, user and retrieval, in all processes of the service."""

import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import access
from access import Served
from rag_flywheel.errors import StorageError
from rag_flywheel.service.calls import _household
from rag_flywheel.service.rates import Rates, Use
from rag_flywheel.store.service.counts import FileCounts

VOTE = {"passage_id": "reset", "verdict": "helpful"}
MOST = 5


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("", "unix", False),
    ],
)
def test_whose_calls_are_counted_together(one: str, other: str, same: bool) -> None:
    assert (_household(one) == _household(other)) == same


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    folders = {"kb": access.make_index(tmp_path)}
    with access.serve(folders, votes_per_minute=MOST, calls_per_minute=200) as found:
        found.add_key("all", "read", "vote", "write", "review", "admin")
        yield found


def ask(service: Served, **named: Any) -> dict[str, Any]:
    body = {"query": "password", "feedback_token": True, **named}
    answer = service.call("all", "POST", "/v1/retrieve", body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def until_refused(send: Any, most: int = 3 * MOST) -> int:
    """How many are taken until one is refused with 429."""
    for n in range(most):
        answer = send(n)
        if answer.status_code == 429:
            assert answer.headers["content-type"] == "application/problem+json"
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert '"votes";q=5;w=60' in answer.headers["ratelimit-policy"]
            return n
        assert answer.status_code == 200, answer.text
    return most


def test_a_user_votes_so_often_in_a_minute(service: Served) -> None:
    shown = [ask(service, user_id="ann")["id"] for _ in range(3)]

    def send(n: int) -> Any:
        body = {"retrieval_id": shown[n % 3], "user_id": "ann", **VOTE}
        return service.call("all", "POST", "/v1/feedback", body)

    assert until_refused(send) == MOST
    other = {"retrieval_id": ask(service)["id"], "user_id": "bob", **VOTE}
    assert service.call("all", "POST", "/v1/feedback", other).status_code == 200


def test_every_way_to_vote_counts_towards_one_limit(service: Served) -> None:
    asked = [ask(service, user_id="ann") for _ in range(12)]
    public = service.add_key("public", "vote", public=True)

    def send(n: int) -> Any:
        id_, token = asked[n]["id"], asked[n]["feedback_token"]
        of_ann = {"retrieval_id": id_, "user_id": "ann"}
        ways = [
            ("all", "/v1/feedback", {**of_ann, **VOTE}),
            ("all", "/v1/indexes/kb/signals", {**of_ann, "kind": "copied"}),
            ("public", "/v1/browser/missing", {"token": token}),
            ("all", "/v1/adopted", {**of_ann, "used": True}),
            ("public", "/v1/browser/feedback", {"token": token, **VOTE}),
            ("all", "/v1/corrections", {**of_ann, "passage_id": "reset"}),
        ]
        key, path, body = ways[n % len(ways)]
        return service.call(key, "POST", path, body)

    assert public
    assert until_refused(send) == MOST


def test_one_user_with_many_tokens_is_one_user(service: Served) -> None:
    tokens = [ask(service, user_id="ann")["feedback_token"] for _ in range(2 * MOST)]
    service.add_key("public", "vote", public=True)
    spelled = ["authorization", "Authorization", "AUTHORIZATION", "x-api-key", "X-API-Key"]

    def send(n: int) -> Any:
        name, key = spelled[n % len(spelled)], service.keys["public"]
        value = key if "api" in name.lower() else f"bEaReR {key}"
        headers = {name: value, "x-forwarded-for": f"10.0.0.{n}", "user-agent": str(n)}
        body = {"token": tokens[n], **VOTE}
        return service.client.post("/v1/browser/feedback", json=body, headers=headers)

    assert until_refused(send) == MOST


def test_many_user_ids_on_one_retrieval_are_one_voice(service: Served) -> None:
    shown = ask(service)["id"]

    def send(n: int) -> Any:
        body = {"retrieval_id": shown, "user_id": f"user {n}", **VOTE}
        return service.call("all", "POST", "/v1/feedback", body)

    assert until_refused(send) == MOST
    token = ask(service)["feedback_token"]

    def send_token(n: int) -> Any:
        return service.call("all", "POST", "/v1/browser/feedback", {"token": token, **VOTE})

    assert until_refused(send_token) == MOST


def test_a_batch_counts_as_many_as_it_has(service: Served) -> None:
    shown = [ask(service)["id"] for _ in range(MOST + 1)]
    votes = [{"retrieval_id": id_, "user_id": "ann", **VOTE} for id_ in shown]
    answer = service.call("all", "POST", "/v1/feedback-many", {"votes": votes})
    assert answer.status_code == 429
    assert service.call("all", "GET", "/v1/votes").json()["items"] == []
    of_two = [{**vote, "user_id": f"u{n % 2}"} for n, vote in enumerate(votes)]
    answer = service.call("all", "POST", "/v1/feedback-many", {"votes": of_two})
    assert (answer.status_code, answer.json()) == (200, {"recorded": MOST + 1})


def test_events_over_the_limit_are_counted_as_such(service: Served) -> None:
    shown = ask(service)["id"]
    events = [
        {"query_id": shown, "action_name": "thumbs_up", "user_id": "ann"} for _ in range(MOST + 2)
    ]
    answer = service.call("all", "POST", "/v1/ubi_events", events)
    assert answer.json() == {
        "documents": MOST + 2,
        "recorded": MOST,
        "ignored": {"over the limit of votes": 2},
    }


def test_a_key_calls_so_often_in_a_minute_whatever_it_asks(service: Served) -> None:
    service.add_key("other", "read", "vote", "write", "review", "admin")
    statuses = []
    for n in range(230):
        headers = service.headers("all", **({"idempotency-key": "1"} if n % 3 == 0 else {}))
        body = [b"{", b'{"query": ""}', b'{"if_votes": 0}'][n % 3]
        path = ["/v1/pins:remove", "/v1/retrieve", "/v1/refresh"][n % 3]
        answer = service.client.post(path, content=body, headers=headers)
        statuses.append(answer.status_code)
        if answer.status_code != 429:
            assert answer.headers["ratelimit-policy"] == '"calls";q=200;w=60'
            assert answer.headers["ratelimit"].startswith(f'"calls";r={199 - n};t=')
    assert 429 not in statuses[:200]
    assert set(statuses[200:]) == {429}
    answer = service.call("all", "GET", "/v1/status")
    assert answer.status_code == 429
    assert answer.json()["title"] == "TooMany"
    assert service.call("other", "GET", "/v1/status").status_code == 200


def test_without_a_key_on_loopback_there_is_no_limit_unless_it_is_set(tmp_path: Path) -> None:
    folders = {"kb": access.make_index(tmp_path)}
    with access.serve(folders) as service:
        answer = service.client.get("/v1/metadata-keys")
        assert "ratelimit" not in answer.headers
    with access.serve(folders, calls_per_minute=3) as service:
        found = [service.client.get("/v1/metadata-keys").status_code for _ in range(5)]
        assert found == [200, 200, 200, 429, 429]
    with access.serve(folders, calls_per_minute=0) as service:
        service.add_key("all", "read")
        assert "ratelimit" not in service.call("all", "GET", "/v1/metadata-keys").headers


def test_processes_share_the_counters(tmp_path: Path) -> None:
    path = tmp_path / "service.rates.db"
    words = [sys.executable, str(Path(access.__file__).parent / "counting.py"), str(path), "2000"]
    running = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    highest = [int(each.communicate(timeout=60)[0]) for each in running]
    assert max(highest) == 4_000


def test_a_counter_starts_anew_when_it_has_ended(tmp_path: Path) -> None:
    counts = FileCounts(tmp_path / "c.db")
    first, second = counts.add("a", 1, 0.3), counts.add("a", 2, 0.3)
    assert (first[0], second[0], counts.add("b", 1, 9)[0]) == (1, 3, 1)
    assert second[1] <= first[1] == pytest.approx(0.3, abs=1e-6)
    time.sleep(0.35)
    third = counts.add("a", 1, 9)
    assert (third[0], counts.add("b", 1, 9)[0]) == (1, 2)
    assert third[1] == pytest.approx(9, abs=1e-6)
    counts.close()


@pytest.mark.parametrize("content", [b"no database at all, but long enough to look at" * 100, b""])
def test_a_file_that_is_no_sound_one_is_made_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.db"
    path.write_bytes(content)
    counts = FileCounts(path)
    assert counts.add("a", 1, 9)[0] == 1
    counts.close()


def test_where_the_file_fails_calls_are_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c.db"
    rates = Rates(FileCounts(path), 2, None)
    with closing(sqlite3.connect(path)) as other:
        other.execute("DROP TABLE counts")
    assert all(isinstance(rates.call("a", free=False), Use) for _ in range(5))
    assert caplog.text.count("the limits of calls and votes are not kept") == 1
    rates.close()


def test_to_count_a_call_costs_little(tmp_path: Path) -> None:
    rates = Rates(FileCounts(tmp_path / "c.db"), 10**9, None)
    took = []
    for n in range(3_000):
        begun = time.perf_counter()
        rates.call(f"key {n % 50}", free=False)
        took.append(time.perf_counter() - begun)
    rates.close()
    median_ms = statistics.median(took) * 1e3
    print(f"{median_ms:.4f} ms")
    assert median_ms < 1.0  # 0.04 ms on a quiet machine


class Failing(FileCounts):
    """Counters whose file fails while it is said so."""

    fails = True

    def add(self, key: str, n: int, lasts_s: float) -> tuple[int, float]:
        if self.fails:
            raise StorageError("no file")
        return super().add(key, n, lasts_s)


def test_that_limits_are_not_kept_is_logged_once_for_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counts = Failing(tmp_path / "counts.db")
    rates = Rates(counts, 5, 5)
    for fails in (True, True, False, True, True):
        counts.fails = fails
        rates.call("app", free=False)
    rates.close()
    assert caplog.text.count("are not kept: no file") == 2
