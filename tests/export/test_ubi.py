"""User Behavior Insights: documents as its schema 1.3.0 has them, and what our own service reads of them."""

import re
from pathlib import Path
from typing import Any

import pytest

from exported import jsonl
from rag_flywheel import Flywheel, Passage
from rag_flywheel.formats.ubi import said

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
QUERY = {
    "application", "query_id", "client_id", "user_id", "session_id", "user_query", "timestamp",
    "object_id_field", "query_response_id", "query_response_hit_ids", "query_attributes",
}  # fmt: skip
EVENT = {
    "application", "action_name", "query_id", "session_id", "client_id", "user_id", "timestamp",
    "message", "event_attributes", "kind", "verdict", "trust", "shares",
}  # fmt: skip


@pytest.fixture
def found(
    fw: Flywheel, help_desk: list[Passage], tmp_path: Path
) -> tuple[Flywheel, list[dict[str, Any]], list[dict[str, Any]]]:
    fw.add(help_desk)
    shown = fw.retrieve(
        "password", user_id="ann", session_id="s", where={"year": {"exists": False}}
    )
    ids = [hit.passage_id for hit in shown.hits]
    fw.feedback(shown.id, ids[1], "helpful", user_id="bob", reason="because " * 200)
    fw.feedback(shown.id, ids[0], "harmful", user_id="bob")
    fw.feedback(shown.id, ids[0], "retract", user_id="bob")
    fw.answer_feedback(shown.id, "harmful", user_id="bob")
    fw.signal(shown.id, "copied", passage_id=ids[0], user_id="bob")
    fw.correct(shown.id, ids[1], user_id="bob")
    few = fw.retrieve("nobody known", k=1)
    other = "reset" if few.hits[0].passage_id == "cats" else "cats"
    fw.correct(few.id, other, user_id="cid")
    report = fw.export.ubi(tmp_path / "ubi")
    queries, events = (jsonl(tmp_path / "ubi" / f"ubi_{n}.ndjson") for n in ("queries", "events"))
    assert (
        report.written
        == {"queries": 2, "events": 6}
        == {
            "queries": len(queries),
            "events": len(events),
        }
    )
    assert report.left_out == {"corrections that name a passage which was not shown": 1}
    return fw, queries, events


Found = tuple[Flywheel, list[dict[str, Any]], list[dict[str, Any]]]


def test_queries_have_the_hits_in_the_order_shown(found: Found) -> None:
    fw, queries, _ = found
    for document, seen in zip(queries, reversed(fw.retrievals()), strict=True):
        assert set(document) <= QUERY
        assert document["query_id"] == document["query_response_id"] == seen.id
        assert document["user_query"] == seen.query
        assert document["query_response_hit_ids"] == [hit.passage_id for hit in seen.hits]
        assert document["timestamp"][:19] == seen.at[:19] and TIME.fullmatch(document["timestamp"])
        assert document.get("client_id") == document.get("user_id") == seen.user
        assert document.get("session_id") == seen.session
        assert document["query_attributes"].get("filter") == seen.where
    assert "client_id" not in queries[1]


def test_positions_count_from_one_and_texts_have_their_lengths(found: Found) -> None:
    _, (asked, _), events = found
    ids = asked["query_response_hit_ids"]
    for event in events:
        assert set(event) <= EVENT and len(event["action_name"]) <= 100
        assert TIME.fullmatch(event["timestamp"]) and len(event.get("message", "")) <= 1024
        if event["kind"] == "answer":
            assert "event_attributes" not in event
            continue
        attributes = event["event_attributes"]
        about, position = attributes["object"], attributes["position"]["ordinal"]
        assert ids[position - 1] == about["object_id"] and position >= 1
        assert about["object_id_field"] == asked["object_id_field"] == "passage_id"
    assert [e["action_name"] for e in events] == [
        "thumbs_up", "thumbs_down", "retract", "thumbs_down", "copied", "correction"
    ]  # fmt: skip


def test_our_own_service_reads_the_votes_as_they_were(found: Found) -> None:
    fw, _, events = found
    for event, vote in zip(
        events, [v for v in reversed(fw.votes(50)) if v.query != "nobody known"], strict=True
    ):
        read = said(event)
        assert read is not None
        assert (read.retrieval_id, read.passage_id, read.user_id) == (
            vote.retrieval_id,
            vote.passage_id,
            vote.user,
        )
        if vote.kind in {"vote", "answer"}:
            assert read.verdict == vote.verdict
        elif vote.kind == "copied":
            assert read.signal == "copied"
        else:
            assert read.verdict is None and read.signal is None
