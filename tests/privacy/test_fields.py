"""The table of docs/how-to/privacy-requests.md: which field outlives retention, and forgetting its user."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from rag_flywheel import Candidate, Config, Flywheel, Passage

SECRET = "zebrafish4711"


def asked(fw: Flywheel, user: str, query: str = "reset password", **more: Any) -> Any:
    found = fw.retrieve(query, user_id=user, **more)
    every = {"all_tenants": True} if fw.config.tenant_key else {}
    fw.feedback(found.id, found.hits[0].passage_id, "helpful", user_id=user, **every)  # type: ignore[arg-type]
    return found.id


def reranked(fw: Flywheel, **more: Any) -> None:
    found = fw.rerank(
        "reset password", [Candidate("x", **{"text": "words", "score": 1.0, **more})], user_id="ann"
    )
    assert found.recorded


def pinned(fw: Flywheel) -> None:
    asked(fw, "ann", SECRET)
    fw.pin(SECRET, "reset")


FIELDS: dict[str, Callable[[Flywheel], Any]] = {
    "query with a vote": lambda fw: asked(fw, "ann", f"reset {SECRET}"),
    "query without a vote": lambda fw: fw.retrieve(f"reset {SECRET}", user_id="ann"),
    "query that is known": pinned,
    "query of others too": lambda fw: [asked(fw, user, f"reset {SECRET}") for user in ("ann", "bob")],
    "answer": lambda fw: fw.answer(asked(fw, "ann"), SECRET),
    "reason": lambda fw: fw.feedback(asked(fw, "ann"), "reset", "helpful", user_id="ann", reason=SECRET),
    "why": lambda fw: fw.adopted(asked(fw, "ann"), used=True, why=SECRET, user_id="ann"),
    "note": lambda fw: fw.missing(asked(fw, "ann"), SECRET, user_id="ann"),
    "text": lambda fw: fw.correct(asked(fw, "ann"), text=SECRET, user_id="ann"),
    "filter": lambda fw: asked(fw, "ann", where={"owner": {"ne": SECRET}}),
    "text of a candidate": lambda fw: reranked(fw, text=SECRET),
    "title of a candidate": lambda fw: reranked(fw, title=SECRET),
    "metadata of a candidate": lambda fw: reranked(fw, metadata={"by": SECRET}),
    "session": lambda fw: asked(fw, "ann", session_id=SECRET),
    "metadata of a passage": lambda fw: fw.add([Passage("p", "some words", "", {"by": SECRET})]),
}  # fmt: skip
# What a field holds after retention, and after its user was forgotten: "gone" or "stays".
FATES = {
    "query with a vote": ("stays", "gone"),
    "query without a vote": ("gone", "gone"),
    "query that is known": ("stays", "stays"),
    "query of others too": ("stays", "stays"),
    "answer": ("gone", "gone"),
    "reason": ("gone", "gone"),
    "why": ("gone", "gone"),
    "note": ("stays", "gone"),
    "text": ("stays", "gone"),
    "filter": ("gone", "gone"),
    "text of a candidate": ("gone", "gone"),
    "title of a candidate": ("gone", "gone"),
    "metadata of a candidate": ("gone", "gone"),
    "session": ("gone", "gone"),
    "metadata of a passage": ("stays", "stays"),
}


def fate(root: Path) -> str:
    files = [p.read_bytes() for p in root.rglob("*") if p.is_file()]
    return "stays" if any(SECRET.encode() in each for each in files) else "gone"


def opened(root: Path) -> Flywheel:
    return Flywheel.open(root, encoder=WordEncoder(), config=Config(encoder="", retention_days=30))


@pytest.mark.parametrize("field", FIELDS)
def test_what_becomes_of_each_field(tmp_path: Path, field: str) -> None:
    for place, expected in zip(("old", "forgotten"), FATES[field], strict=True):
        root = tmp_path / place
        with opened(root) as fw:
            fw.add([Passage("reset", "press reset for a password"), Passage("cats", "cats sleep")])
            FIELDS[field](fw)
            fw.refresh()
        assert fate(root) == ("gone" if field == "session" else "stays")
        if place == "old":
            with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
                for table in ("retrievals", "votes", "answer_votes", "notes"):
                    conn.execute(f"UPDATE {table} SET at = at - 31 * 86400")
        with opened(root) as fw:
            if place == "old":
                fw.refresh()
            else:
                fw.forget("ann")
            assert fw.verify() == []
        assert fate(root) == expected, place


@pytest.mark.parametrize("tenant_key", ["team", None])
def test_of_an_old_filter_the_tenant_stays(tmp_path: Path, tenant_key: str | None) -> None:
    config = Config(encoder="", tenant_key=tenant_key, retention_days=30)
    with Flywheel.open(tmp_path / "kb", encoder=WordEncoder(), config=config) as fw:
        fw.add([Passage("p", "press reset", "", {"team": "a"})])
        asked(fw, "ann", where={"team": "a", "owner": {"ne": SECRET}})
        fw.refresh()
        with closing(sqlite3.connect(tmp_path / "kb" / "flywheel.db")) as conn, conn:
            for table in ("retrievals", "votes"):
                conn.execute(f"UPDATE {table} SET at = at - 31 * 86400")
        fw.refresh()
        with closing(sqlite3.connect(tmp_path / "kb" / "flywheel.db")) as conn:
            rows = conn.execute("SELECT filter, tenant FROM retrievals").fetchall()
    assert rows == [('{"team":"a"}', '"a"') if tenant_key else (None, None)]
