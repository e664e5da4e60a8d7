"""Metrics, health routes and access logs, as those see them who watch the service."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from rag_flywheel import Config, EncoderNotFoundError, Flywheel, Passage
from rag_flywheel.service import metrics
from rag_flywheel.service.app import create_app
from rag_flywheel.service.logs import ACCESS, JsonLines
from rag_flywheel.service.settings import Settings
from rag_flywheel.store.service.keys import make_key
from shared_state import open_records, state_of

URL = "http://127.0.0.1:8000"
SECRETS = ("why is the sky", "user-ann", "p-blue", "acme-tenant")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "kb"
    config = Config(encoder="fakes:word_encoder", tenant_key="team", tenant_required=False)
    with Flywheel.open(root, config=config) as fw:
        fw.add(
            [
                Passage(
                    "p-blue", "the sky is blue because of scattering", "", {"team": "acme-tenant"}
                ),
                Passage("p-other", "parcels are sent on Monday", "", {"team": "acme-tenant"}),
            ]
        )
    return root


def settings(folder: Path, **more: Any) -> Settings:
    return Settings(indexes={"kb": folder}, state=state_of(folder), numbers_s=0.2, **more)


@pytest.fixture
def client(folder: Path) -> Iterator[TestClient]:
    with TestClient(create_app(settings(folder)), base_url=URL) as opened:
        yield opened


def until(condition: Callable[[], object], seconds: float = 20.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
    return found


def samples(
    client: TestClient, **named: Any
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = client.get("/metrics", **named)
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(client: TestClient, name: str, **labels: str) -> float:
    return samples(client).get((f"rag_flywheel_{name}", tuple(sorted(labels.items()))), 0.0)


def ask(client: TestClient, query: str = "why is the sky blue") -> str:
    given = {"query": query, "user_id": "user-ann", "tenant": "acme-tenant"}
    found = client.post("/v1/retrieve", json=given)
    assert found.status_code == 200, found.text
    return str(found.json()["id"])


def vote(
    client: TestClient, retrieval: str, verdict: str = "helpful", passage: str = "p-blue"
) -> int:
    given = {
        "retrieval_id": retrieval,
        "passage_id": passage,
        "verdict": verdict,
        "user_id": "user-ann",
    }
    return client.post("/v1/feedback", json={**given, "tenant": "acme-tenant"}).status_code


def test_calls_are_counted_whichever_route_they_come_by(client: TestClient) -> None:
    def counts() -> list[float]:
        return [
            value(client, "retrievals_total", index="kb", source="retrieve"),
            value(client, "retrievals_total", index="kb", source="retrieve_many"),
            value(client, "retrieve_duration_seconds_count", index="kb"),
            value(client, "retrievals_with_evidence_total", index="kb"),
            value(client, "votes_total", index="kb", kind="vote", verdict="helpful"),
            value(client, "votes_total", index="kb", kind="vote", verdict="retract"),
            value(client, "votes_total", index="kb", kind="answer", verdict="harmful"),
            value(client, "votes_total", index="kb", kind="copied", verdict=""),
            value(client, "feedback_rejected_total", index="kb", reason="unknown_id"),
            value(client, "feedback_rejected_total", index="kb", reason="invalid"),
        ]

    before = counts()
    first = ask(client)
    assert vote(client, first) == 200
    second = ask(client)
    assert vote(client, second, "retract") == 200
    assert vote(client, "no-such-retrieval") == 404
    assert vote(client, first, passage="p-none") == 422
    named = {"tenant": "acme-tenant"}
    given = {"retrieval_id": first, "verdict": "harmful", **named}
    assert client.post("/v1/answer-feedback", json=given).status_code == 200
    given = {"retrieval_id": first, "kind": "copied", "passage_id": "p-blue", **named}
    assert client.post("/v1/signals", json=given).status_code == 200
    given = {"queries": ["sky", "parcels"], "record": False, **named}
    assert client.post("/v1/indexes/kb/retrieve-many", json=given).status_code == 200
    change = [after - was for was, after in zip(before, counts(), strict=True)]
    assert change[:3] == [2, 2, 3]
    assert change[3] >= 1  # the second answer was moved by the vote on the first
    assert change[4:] == [1, 1, 1, 1, 1, 1]


def test_requests_are_counted_by_the_template_of_their_route(client: TestClient) -> None:
    labels = {"route": "/v1/passages/{passage_id}", "method": "GET", "status": "404"}
    before = value(client, "http_requests_total", **labels)
    unmatched = {"route": "none", "method": "GET", "status": "404"}
    unmatched_before = value(client, "http_requests_total", **unmatched)
    assert client.get("/v1/passages/nothing-here").status_code == 404
    assert client.get("/v1/indexes/kb/passages/nothing-here").status_code == 404
    assert client.get("/never/heard/of").status_code == 404
    assert value(client, "http_requests_total", **labels) == before + 2
    assert value(client, "http_requests_total", **unmatched) == unmatched_before + 1
    assert value(client, "http_request_duration_seconds_count", route=labels["route"]) >= 2
    assert value(client, "http_requests_in_progress") == 1  # that of the scrape


def test_no_label_holds_what_people_or_passages_are_named_by(client: TestClient) -> None:
    retrieval = ask(client)
    vote(client, retrieval)
    vote(client, retrieval, passage="p-none")
    client.get("/v1/passages/p-blue")
    client.get("/user-ann?why is the sky")
    until(lambda: value(client, "index_passages", index="kb") == 2)
    text = client.get("/metrics").text
    assert not [each for each in (*SECRETS, retrieval) if each in text]
    names = {name for _, labels in samples(client) for name, _ in labels}
    known = {label for each in metrics.described() for label in each.labels}
    assert names <= {*known, "le"}


def test_numbers_of_the_index_are_read_beside_the_calls(client: TestClient, folder: Path) -> None:
    for _ in range(3):
        vote(client, ask(client))
    with Flywheel.open(folder) as another:  # as a refresh by cron does
        assert another.refresh().outcome == "promoted"
    until(lambda: value(client, "promotions_total", index="kb", outcome="promoted") == 1)
    found = {
        name: v for (name, labels), v in samples(client).items() if labels == (("index", "kb"),)
    }
    assert found["rag_flywheel_index_passages"] == 2
    assert found["rag_flywheel_index_bytes"] > 10_000
    assert found["rag_flywheel_disk_free_bytes"] > 0
    assert found["rag_flywheel_index_health"] == 0
    assert found["rag_flywheel_refresh_last_success_timestamp_seconds"] == pytest.approx(
        time.time(), abs=60
    )
    assert found["rag_flywheel_refresh_failures"] == 0
    assert found["rag_flywheel_refresh_duration_seconds_count"] == 1
    assert found["rag_flywheel_refresh_duration_seconds_sum"] > 0
    assert found["rag_flywheel_coverage_questions"] >= 0


def test_coverage_is_computed_now_and_then(folder: Path) -> None:
    with Flywheel.open(folder) as fw:
        for _ in range(4):
            asked = fw.retrieve("why is the sky blue", user_id="user-ann")
            fw.feedback(asked.id, "p-blue", "helpful", user_id="user-ann")
    with TestClient(create_app(settings(folder, coverage_s=0.1)), base_url=URL) as client:
        until(lambda: value(client, "coverage_questions", index="kb") == 4)
        assert value(client, "coverage_near_ratio", index="kb") == 1.0
        assert ("rag_flywheel_drift_ratio", (("index", "kb"),)) not in samples(client)
        ask(client)
        until(lambda: value(client, "coverage_questions", index="kb") == 5)
    with TestClient(create_app(settings(folder, coverage_s=0)), base_url=URL) as client:
        until(lambda: value(client, "index_passages", index="kb") == 2)
        assert ("rag_flywheel_coverage_questions", (("index", "kb"),)) not in samples(client)


def test_a_scrape_reads_nothing_of_an_index(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    until(lambda: value(client, "index_passages", index="kb") == 2)
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        client.get("/metrics")
        times.append(time.perf_counter() - begun)
    assert min(times) < 0.05


def test_openmetrics_is_given_to_who_asks_for_it(client: TestClient) -> None:
    answer = client.get(
        "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    assert client.get("/metrics").headers["content-type"].startswith("text/plain")


def test_every_metric_is_exported_and_described(client: TestClient) -> None:
    described = metrics.described()
    until(
        lambda: (
            value(client, "coverage_questions", index="kb") == 0
            and client.get("/readyz").is_success
        )
    )
    families = {f.name: f for f in text_string_to_metric_families(client.get("/metrics").text)}
    for each in described:
        family = families.pop(each.name.removesuffix("_total"))
        assert (family.type, family.documentation) == (each.kind, each.text)
        assert len(each.text) > 10
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                assert set(sample.labels) - {"le"} == set(each.labels), sample
    assert families == {}
    assert len({each.name for each in described}) == len(described)


def test_metrics_want_a_key_for_every_index_as_a_whole(folder: Path) -> None:
    with TestClient(create_app(settings(folder)), base_url=URL) as client:
        assert (
            client.get("/metrics").status_code == 200
        )  # no key was made, and only this machine asks
        state = open_records(folder)
        keys = {
            "read": make_key(state, "prometheus", ["read"])[0],
            "vote": make_key(state, "app", ["vote"])[0],
            "tenant": make_key(state, "one", ["read"], tenant="acme-tenant")[0],
            "one index": make_key(state, "one", ["read", "admin"], indexes=["kb"])[0],
        }
        state.close()
        statuses = {
            name: client.get("/metrics", headers={"Authorization": f"Bearer {key}"}).status_code
            for name, key in keys.items()
        }
        assert statuses == {"read": 200, "vote": 403, "tenant": 403, "one index": 403}
        assert client.get("/metrics").status_code == 401
        assert client.get("/livez").status_code == client.get("/healthz").status_code == 200
        until(lambda: client.get("/readyz").status_code == 200)
    with TestClient(create_app(settings(folder, open_metrics=True)), base_url=URL) as client:
        assert client.get("/metrics").status_code == 200


def test_it_is_ready_once_the_model_and_the_version_are_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_load = False
    warm = Flywheel.warm

    def slowly(fw: Flywheel) -> None:
        until(lambda: may_load)
        warm(fw)

    monkeypatch.setattr(Flywheel, "warm", slowly)
    with TestClient(create_app(settings(folder)), base_url=URL) as client:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"] == "2"
        assert "being loaded" in answer.json()["detail"]
        assert client.get("/livez").json() == client.get("/healthz").json() == {"status": "ok"}
        may_load = True
        until(lambda: client.get("/readyz").status_code == 200)
        assert client.get("/readyz").json() == {"status": "ready", "refresh_running_s": 0}
    with TestClient(create_app(settings(folder, warm=False)), base_url=URL) as client:
        may_load = False
        assert client.get("/readyz").status_code == 200


def test_a_model_that_cannot_be_loaded_is_said_and_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    there = False
    warm = Flywheel.warm

    def missing(fw: Flywheel) -> None:
        if not there:
            raise EncoderNotFoundError(f"no model in {folder}")
        warm(fw)

    monkeypatch.setattr(Flywheel, "warm", missing)
    monkeypatch.setattr("rag_flywheel.service.watch._AGAIN_S", 0.2)
    with TestClient(create_app(settings(folder)), base_url=URL) as client:
        until(lambda: "cannot be loaded" in client.get("/readyz").text)
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert "EncoderNotFoundError" in answer.text and "rag-flywheel health" in answer.text
        assert str(folder) not in answer.text
        assert str(folder) in caplog.text
        there = True
        until(lambda: client.get("/readyz").status_code == 200)


def test_a_model_that_is_not_there_is_503_on_every_route(tmp_path: Path) -> None:
    root = tmp_path / "kb"
    config = Config(encoder="fakes:word_encoder")
    with Flywheel.open(root, config=config) as fw:
        fw.add([Passage("a", "text")])
    file = root / "flywheel.toml"
    file.write_text(file.read_text().replace("fakes:word_encoder", "no_such_module:encoder"))
    with TestClient(create_app(settings(root)), base_url=URL) as client:
        until(lambda: "cannot be loaded" in client.get("/readyz").text)
        answer = client.post("/v1/retrieve", json={"query": "text"})
        assert answer.status_code == 503
        assert answer.json()["title"].startswith("Encoder")


def test_a_full_disk_and_a_broken_index_are_not_ready(
    client: TestClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_flywheel.service.watch._CACHED_S", 0.0)
    until(lambda: client.get("/readyz").status_code == 200)
    with monkeypatch.context() as full:
        full.setattr("rag_flywheel.disk.is_full", lambda _: True)
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["title"]) == (503, "NotReady")
        assert "the disk is full" in answer.text
    (folder / "CURRENT").write_text("no version at all\n")
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "CorruptFileError" in answer.text and str(folder) not in answer.text
    assert client.get("/healthz").status_code == 200
    (folder / "CURRENT").unlink()
    assert client.get("/readyz").status_code == 200


def test_another_writer_does_not_make_it_unready(client: TestClient, folder: Path) -> None:
    until(lambda: client.get("/readyz").status_code == 200)
    time.sleep(1.1)  # for which the last answer holds
    with Flywheel.open(folder) as other, other._database.transaction():
        begun = time.perf_counter()
        assert client.get("/readyz").status_code == 200
        assert time.perf_counter() - begun < 1.0


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    of_requests = [record for record in caplog.records if record.name == ACCESS]
    return [json.loads(JsonLines().format(record)) for record in of_requests]


def test_each_request_is_a_line_without_words_of_people(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, ACCESS)
    state = open_records(folder)
    text, key = make_key(state, "app", ["read", "vote"])
    state.close()
    with TestClient(create_app(settings(folder)), base_url=URL) as client:
        client.headers["X-API-Key"] = text
        given = {"query": "why is the sky blue", "user_id": "user-ann", "tenant": "acme-tenant"}
        answer = client.post("/v1/retrieve", json=given, headers={"X-Request-Id": "trace-1"})
        assert answer.headers["x-request-id"] == "trace-1"
        client.get("/v1/indexes/kb/passages/p-blue", params={"tenant": "acme-tenant"})
        client.get("/v1/passages/p-blue?why is the sky", headers={"X-API-Key": "user-ann"})
        until(lambda: client.get("/readyz").is_success)
        client.get("/why is the sky", headers={"X-Request-Id": 'forged"}\n{"a": 1'})
    found = lines(caplog)
    assert [
        (each["route"], each["status"], each["key"]) for each in found if each["status"] != 503
    ] == [
        ("/v1/retrieve", 200, key.id),
        ("/v1/passages/{passage_id}", 200, key.id),
        ("/v1/passages/{passage_id}", 401, None),
        ("none", 404, None),
    ]
    assert set(found[0]) == {
        "time", "level", "logger", "route", "method", "status", "ms", "index", "key", "request_id",
    }  # fmt: skip
    assert (found[0]["request_id"], found[0]["index"], found[0]["method"]) == (
        "trace-1",
        "kb",
        "POST",
    )
    assert found[0]["ms"] > 0 and found[0]["time"].endswith("Z")
    assert found[-1]["request_id"] not in ("trace-1", "") and "forged" not in caplog.text
    words = json.dumps(found) + caplog.text
    assert not [each for each in (*SECRETS, text) if each in words]


def test_coverage_is_a_route_for_reviewers(folder: Path) -> None:
    state = open_records(folder)
    reader = make_key(state, "app", ["read", "vote"])[0]
    reviewer = make_key(state, "desk", ["review"], tenant="acme-tenant")[0]
    state.close()
    with TestClient(create_app(settings(folder, warm=False)), base_url=URL) as client:
        client.headers["X-API-Key"] = reader
        vote(client, ask(client))
        assert client.get("/v1/coverage").status_code == 403
        client.headers["X-API-Key"] = reviewer
        found = client.get("/v1/coverage", params={"days": 7})
        assert found.status_code == 200
        assert (found.json()["n_asked"], found.json()["n_votes"], found.json()["n_passages"]) == (
            1,
            1,
            2,
        )
        assert found.json()["findings"] == ["1 question in the period: too few to say more"]
        assert [week["asked"] for week in found.json()["weeks"]] == [1]
        assert client.get("/v1/coverage", params={"days": 0}).status_code == 422
        other = client.get("/v1/coverage", params={"tenant": "another"})
        assert other.status_code == 403
