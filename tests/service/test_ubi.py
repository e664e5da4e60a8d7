"""User Behavior Insights: documents as its collectors post them become votes, or are counted by why not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import access
from access import Served
from rag_flywheel.errors import InputError
from rag_flywheel.formats import ubi
from rag_flywheel.records import Signal

NDJSON = {"content-type": "application/x-ndjson"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    index = access.make_index(tmp_path_factory.mktemp("ubi"))
    with access.serve({"kb": index}) as found:
        yield found


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Served]:
    with access.serve({"kb": access.make_index(tmp_path)}) as found:
        yield found


def ask(service: Served, **named: Any) -> str:
    answer = service.client.post("/v1/retrieve", json={"query": "password", **named})
    return str(answer.json()["id"])


def event(query_id: str, action: str, object_id: object = "reset", **more: Any) -> dict[str, Any]:
    """As the JavaScript collector sends one."""
    return {
        "application": "help",
        "action_name": action,
        "query_id": query_id,
        "session_id": "84266fdb",
        "client_id": "5e3b2a1c",
        "user_id": "",
        "timestamp": "2026-11-30T12:00:00.000Z",
        "message_type": "INFO",
        "message": "",
        "event_attributes": {
            "object": {"object_id": object_id, "object_id_field": "id", "description": "x"},
            "position": {"ordinal": 1},
        },
        **more,
    }


def recorded(service: Served) -> list[tuple[str, str, str | None]]:
    items = service.client.get("/v1/votes").json()["items"]
    return [(each["kind"], each["verdict"], each["passage_id"]) for each in reversed(items)]


def test_thumbs_are_votes_copies_are_signals_and_clicks_are_counted(service: Served) -> None:
    shown = ask(service)
    no_object = {"event_attributes": {"position": {"xy": {"x": 1.0, "y": 2.0}}}}
    events = [
        event(shown, "thumbs_up"),
        event(shown, "Thumbs Down", "refund"),
        event(shown, "thumbs-down", **no_object),
        event(shown, "copy"),
        event(shown, "accepted", **no_object),
        event(shown, "click"),
        event(shown, "click_through"),
        event(shown, "impression"),
        event(shown, "click"),
        event(shown, "thumbs_up", "not shown"),
        event(shown, "thumbs_up", 17),
        event("no such retrieval", "thumbs_up"),
        event("no such retrieval", "click"),
        {"action_name": "thumbs_up", "timestamp": "2026-11-30T12:00:00Z"},
        {"query_id": shown},
        "text",
        None,
    ]
    answer = service.client.post("/ubi_events", json=events)
    assert answer.status_code == 200
    assert answer.json() == {
        "documents": 17,
        "recorded": 5,
        "ignored": {
            "action click": 3,
            "action click_through": 1,
            "action impression": 1,
            "no action_name or query_id": 2,
            "not an object": 2,
            "object_id was not shown": 2,
            "unknown retrieval": 1,
        },
    }
    assert recorded(service) == [
        ("vote", "helpful", "reset"),
        ("vote", "harmful", "refund"),
        ("answer", "harmful", None),
        ("copied", "helpful", "reset"),
        ("accepted", "helpful", None),
    ]


@pytest.mark.parametrize("path", ["/ubi_events", "/v1/ubi_events", "/v1/indexes/kb/ubi_events"])
def test_documents_come_alone_in_lists_by_lines_and_in_bulk(service: Served, path: str) -> None:
    shown = ask(service)
    one, two = event(shown, "thumbs_up"), event(shown, "thumbs_down", "refund")
    query = {"query_id": shown, "user_query": "password", "query_response_hit_ids": ["reset"]}
    to_events, to_queries = ({"index": {"_index": f"ubi_{x}"}} for x in ("events", "queries"))
    lines = [
        ([one, two], 2, 0),
        ([to_queries, query, to_events, one, {"create": {}}, two], 2, 1),
        ([{"_index": "ubi_events", "_id": "1", "_source": one}], 1, 0),
    ]
    for each, n, queries in lines:
        for end in ("\n", "\r\n"):
            body = "".join(json.dumps(line) + end for line in each)
            answer = service.client.post(path, content=body, headers=NDJSON).json()
            assert (answer["recorded"], sum(answer["ignored"].values())) == (n, queries), body
    for body in (one, [one], [one, two]):
        answer = service.client.post(path, json=body).json()
        assert answer["recorded"] == (len(body) if isinstance(body, list) else 1)
    assert service.client.post(path, json=[]).json()["documents"] == 0


def test_queries_are_known_by_their_retrievals(service: Served) -> None:
    shown = ask(service)
    documents = [
        {"query_id": shown, "user_query": "password", "client_id": "c", "query_attributes": {}},
        {"query_id": "their own", "user_query": "password"},
        {"user_query": "password"},
        7,
    ]
    answer = service.client.post("/ubi_queries", json=documents).json()
    assert answer == {
        "documents": 4,
        "recorded": 0,
        "ignored": {
            "no query_id": 1,
            "not an object": 1,
            "recorded when it was asked": 1,
            "unknown retrieval": 1,
        },
    }


def test_a_user_of_an_event_is_that_of_the_application(service: Served) -> None:
    shown = ask(service, user_id="ann")
    events = [
        event(shown, "thumbs_up", user_id="ann"),
        event(shown, "thumbs_up", user_id=" "),
        event(shown, "thumbs_up", user_id=7),
    ]
    service.client.post("/ubi_events", json=events)
    asked = service.client.get("/v1/retrievals").json()["items"][0]["user"]
    users = [each["user"] for each in service.client.get("/v1/votes").json()["items"]]
    assert users == [None, None, asked]
    service.client.post("/v1/users:opt-out", json={"user_id": "ann"})
    answer = service.client.post("/ubi_events", json=events[:1]).json()
    assert answer["ignored"] == {"the user opted out": 1}


def test_events_of_another_tenant_are_of_unknown_retrievals(tmp_path: Path) -> None:
    ids = access.make_tenants(tmp_path)
    with access.serve({"kb": tmp_path / "kb"}) as service:
        body = [event(ids["retrieval"], "thumbs_up", "a-reset")]
        answer = service.client.post("/ubi_events", json=body)
        assert answer.status_code == 422  # no tenant is named
        assert "tenant" in answer.json()["detail"]
        unknown = {"documents": 1, "recorded": 0, "ignored": {"unknown retrieval": 1}}
        assert service.client.post("/ubi_events?tenant=b", json=body).json() == unknown
        of_a = service.client.post("/ubi_events?tenant=a", json=body).json()
        assert of_a["recorded"] == 1
        service.add_key("b", "vote", tenant="b")
        assert service.call("b", "POST", "/ubi_events", body).json() == unknown
        assert service.call("b", "POST", "/ubi_events?tenant=a", body).status_code == 403
        assert service.call("b", "POST", "/ubi_events?all_tenants=true", body).status_code == 403


def test_a_batch_has_a_limit_and_bad_lines_are_named(tmp_path: Path) -> None:
    with access.serve({"kb": access.make_index(tmp_path)}, batch_rows=3) as service:
        answer = service.client.post("/ubi_events", json=[{}] * 4)
        assert answer.status_code == 422
        assert "more than 3 documents" in answer.json()["detail"]
        answer = service.client.post("/ubi_events", content=b'{"a": 1}\n{"b": \n', headers=NDJSON)
        assert "line 2" in answer.json()["detail"]
        for body in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
            answer = service.client.post("/ubi_events", content=body, headers=NDJSON)
            assert answer.status_code == 422, body[:10]
    assert len(ubi.documents(b"{}\n" * 5, "ubi_events", 5)) == 5
    with pytest.raises(InputError):
        ubi.documents(b"{}\n" * 6, "ubi_events", 5)


def test_every_action_that_is_known_means_what_the_library_has() -> None:
    assert set(ubi.SIGNALS.values()) == set(get_args(Signal)) - {"edited", "rating"}
    assert set(ubi.VERDICTS.values()) == {"helpful", "harmful", "retract"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["action_name", "query_id", "user_id", "event_attributes", "object", "object_id",
                 "_source", "_index", "index", "create"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(JSON, max_size=4) | JSON, st.sampled_from(["/ubi_events", "/ubi_queries"]))
def test_whatever_is_posted_is_counted(shared: Served, sent: object, path: str) -> None:
    answer = shared.client.post(path, content=json.dumps(sent), headers=NDJSON)
    if not isinstance(sent, dict | list):
        assert answer.status_code == 422
        return
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["documents"] == found["recorded"] + sum(found["ignored"].values())
    assert found["recorded"] == 0
