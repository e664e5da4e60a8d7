"""The OpenAPI description: every operation has a name, a summary, its scope, and an example that is valid."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from in_process import application
from rag_flywheel.service import bodies
from rag_flywheel.service.description import example_of, operations
from rag_flywheel.store.service.keys import SCOPES

SCHEMA: dict[str, Any] = application(Path("kb"), state=Path("service.db")).openapi()
OPERATIONS = {f"{method} {path}": op for path, method, op in operations(SCHEMA)}


def test_there_is_every_kind_of_operation() -> None:
    assert {op["tags"][0] for op in OPERATIONS.values()} == {tag["name"] for tag in SCHEMA["tags"]}
    assert len(OPERATIONS) >= 60
    assert SCHEMA["servers"][0]["url"] == "/"


def test_names_of_operations_are_short_and_each_is_used_once() -> None:
    names = [op["operationId"] for op in OPERATIONS.values()]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z_]{3,30}", name)] == []
    assert {"retrieve", "feedback", "browser_feedback", "refresh", "versions"} <= set(names)


@pytest.mark.parametrize("where", OPERATIONS)
def test_an_operation_says_what_it_does_and_which_scope_it_needs(where: str) -> None:
    operation = OPERATIONS[where]
    assert 5 < len(operation["summary"]) < 120
    assert not operation["summary"].endswith(".")
    (scope,) = {scope for each in operation["security"] for role in each.values() for scope in role}
    assert scope in SCOPES
    assert f"scope `{scope}`" in operation["description"]


@pytest.mark.parametrize("where", OPERATIONS)
def test_a_write_says_that_it_may_be_repeated(where: str) -> None:
    names = [each["name"] for each in OPERATIONS[where].get("parameters", [])]
    is_question = OPERATIONS[where]["tags"] == ["retrieval"]
    assert ("Idempotency-Key" in names) == (not where.startswith("get") and not is_question)


@pytest.mark.parametrize("where", OPERATIONS)
def test_its_problems_are_described_by_one_record(where: str) -> None:
    problems = {s: r for s, r in OPERATIONS[where]["responses"].items() if s >= "400"}
    assert {"401", "403", "422", "503"} <= set(problems)
    for response in problems.values():
        assert response["content"]["application/problem+json"]["schema"] == {
            "$ref": "#/components/schemas/Problem"
        }


def with_bodies() -> list[str]:
    found = []
    for where, operation in OPERATIONS.items():
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        if "$ref" in content.get("schema", {}):
            found.append(where)
    return found


@pytest.mark.parametrize("where", with_bodies())
def test_the_example_of_a_body_is_one(where: str) -> None:
    content = OPERATIONS[where]["requestBody"]["content"]["application/json"]
    body = getattr(bodies, content["schema"]["$ref"].rpartition("/")[2])
    TypeAdapter(body).validate_json(json.dumps(content["example"]))


def test_an_example_has_what_is_needed_and_what_has_an_example() -> None:
    schema = {
        "properties": {
            "query": {"type": "string"},
            "k": {"type": "integer", "examples": [3]},
            "other": {"type": "string"},
        },
        "required": ["query"],
    }
    assert example_of(schema, {}) == {"query": "I forgot my password", "k": 3}


def test_answers_to_questions_name_their_headers() -> None:
    headers = OPERATIONS["post /v1/retrieve"]["responses"]["200"]["headers"]
    assert set(headers) == {"Server-Timing", "X-Retrieval-Id"}
