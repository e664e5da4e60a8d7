"""Feedback over HTTP that names a run: which retrievals it reaches, and how often it is counted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import access
from access import Served


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    with access.serve({"kb": access.make_index(tmp_path)}) as found:
        yield found


def post(service: Served, path: str, body: dict[str, Any], **headers: str) -> Any:
    return service.client.post(f"/v1/{path}", json=body, headers=headers)


def asked(service: Served, run: str | None = None) -> str:
    answer = post(service, "retrieve", {"query": "password", "k": 1, "run_id": run})
    return str(answer.json()["id"])


def votes(service: Served) -> list[tuple[str, str]]:
    items = service.client.get("/v1/votes").json()["items"]
    return [(each["retrieval_id"], each["kind"]) for each in reversed(items)]


def count(service: Served, kind: str) -> float:
    lines = service.client.get("/metrics").text.splitlines()
    of_votes = [line for line in lines if line.startswith("rag_flywheel_votes_total")]
    return sum(float(line.split()[-1]) for line in of_votes if f'kind="{kind}"' in line)


def test_a_verdict_on_a_run_is_recorded_and_counted_once_for_each_retrieval(
    service: Served,
) -> None:
    one, two = asked(service, "run"), asked(service)
    answer = post(service, "runs", {"retrieval_id": two, "run_id": "run"})
    assert (answer.status_code, answer.content) == (204, b"")
    body = {"run": "run", "verdict": "helpful", "user_id": "ann"}
    before = count(service, "answer")
    assert post(service, "answer-feedback", body).json() == {"recorded": 2}
    assert votes(service) == [(two, "answer"), (one, "answer")]
    assert count(service, "answer") == before + 2
    assert post(service, "signals", {"run": "run", "kind": "copied"}).json() == {"recorded": 2}
    assert post(service, "missing", {"run": "run", "note": "none"}).json() == {"recorded": 1}


def test_a_repeated_vote_on_a_run_counts_once(service: Served) -> None:
    asked(service, "run")
    passage = service.client.get("/v1/retrievals").json()["items"][0]["hits"][0]["passage_id"]
    body = {"run": "run", "passage_id": passage, "verdict": "helpful", "user_id": "ann"}
    for _ in range(2):
        answer = post(service, "feedback", body, **{"Idempotency-Key": "one"})
        assert answer.json() == {"recorded": 1}
    assert len(votes(service)) == 1


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"run": "nothing"}, 404, "no retrieval of run 'nothing'"),
        ({"run": ""}, 422, "run is ''"),
        ({"run": "run", "retrieval_id": "x"}, 422, "found retrieval_id and run"),
        ({}, 422, "retrieval_id is None"),
        ({"run": "a" * 5_001}, 422, "run has 5001 characters"),
    ],
)
def test_what_is_no_run(service: Served, body: dict[str, Any], status: int, words: str) -> None:
    asked(service, "run")
    for path, more in (
        ("answer-feedback", {"verdict": "helpful"}),
        ("feedback", {"verdict": "helpful", "passage_id": "reset"}),
        ("relevance", {"helpful": {"reset": True}}),
        ("adopted", {"used": True}),
        ("signals", {"kind": "copied"}),
        ("corrections", {"passage_id": "reset"}),
        ("missing", {}),
    ):
        answer = post(service, path, {**body, **more})
        assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text
    assert votes(service) == []
