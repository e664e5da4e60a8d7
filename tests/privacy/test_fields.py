"""The table of docs/how-to/privacy-requests.md is true: what masks, retention and forgetting do."""

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fakes import WordEncoder
from rag_flywheel import Candidate, Config, Flywheel, Passage
from stored_bytes import stored_bytes

SECRET = "zebrafish4711"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "privacy-requests.md"
PLACES = "masked", "stored", "old", "forgotten"
THERE = {"stored": True, "stays": True, "masked": False, "hashed": False, "gone": False}


def table() -> dict[str, dict[str, bool]]:
    """{field: {place: whether its text is there}}, as the page has it."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("| what | with a mask |"))
    found = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        words = [re.split(r"[ ,:]", cell)[0] for cell in cells]
        found[name] = dict(zip(PLACES, (THERE[word] for word in words), strict=True))
    return found


def asked(fw: Flywheel, user: str = "ann", query: str = "reset password", **more: Any) -> Any:
    found = fw.retrieve(query, user_id=user, **more)
    every = {"all_tenants": True} if fw.config.tenant_key else {}
    fw.feedback(found.id, found.hits[0].passage_id, "helpful", user_id=user, **every)  # type: ignore[arg-type]
    return found.id


def reranked(fw: Flywheel, user: str = "ann", vote: bool = True, **more: Any) -> None:
    given = {"passage_id": "x", "text": "words of it", "score": 1.0, **more}
    found = fw.rerank("reset password", [Candidate(**given)], user_id=user)
    if vote:
        fw.feedback(found.id, given["passage_id"], "helpful", user_id=user)


def pinned(fw: Flywheel) -> None:
    asked(fw, "ann", SECRET)
    fw.pin(SECRET, "reset")


def decided(fw: Flywheel, decide: str, note: Callable[[Flywheel], Any]) -> None:
    note(fw)
    for item in fw.review.items():
        getattr(fw.review, decide)(item.id)


def noted(fw: Flywheel) -> None:
    fw.missing(asked(fw), SECRET, user_id="ann")


def written(fw: Flywheel) -> None:
    fw.correct(asked(fw), text=f"write to {SECRET}", user_id="ann")


Use = Callable[[Flywheel], Any]
FIELDS: dict[str, list[Use]] = {
    "question with a vote": [lambda fw: asked(fw, "ann", f"reset {SECRET}")],
    "question without a vote": [lambda fw: fw.retrieve(f"reset {SECRET}", user_id="ann")],
    "question that is known, or that others asked too": [
        pinned,
        lambda fw: [asked(fw, user, f"reset {SECRET}") for user in ("ann", "bob")],
    ],
    "answer": [lambda fw: fw.answer(asked(fw), SECRET)],
    "values of a filter": [lambda fw: asked(fw, where={"owner": {"ne": SECRET}})],
    "reason of a vote, why of `adopted`": [
        lambda fw: fw.feedback(asked(fw), "reset", "helpful", user_id="ann", reason=SECRET),
        lambda fw: fw.adopted(asked(fw), used=True, why=SECRET, user_id="ann"),
    ],
    "note or text for review, not decided": [noted, written],
    "note or text for review, rejected": [
        lambda fw: decided(fw, "reject", noted),
        lambda fw: decided(fw, "reject", written),
        lambda fw: decided(fw, "accept", noted),
    ],
    "text for review, accepted": [lambda fw: decided(fw, "accept", written)],
    "text, title and metadata given to `rerank`": [
        lambda fw: reranked(fw, text=SECRET),
        lambda fw: reranked(fw, title=SECRET),
        lambda fw: reranked(fw, metadata={"by": SECRET}),
        lambda fw: reranked(fw, vote=False, text=SECRET),
    ],
    "the same, given to others too": [
        lambda fw: [reranked(fw, user, text=SECRET) for user in ("ann", "bob")],
        lambda fw: [reranked(fw, user, title=SECRET) for user in ("ann", "bob")],
    ],
    "id of a passage given to `rerank`, with a vote": [lambda fw: reranked(fw, passage_id=SECRET)],
    "id of a user or session": [
        lambda fw: asked(fw, session_id=SECRET),
        lambda fw: asked(fw, SECRET),
    ],
    "id of a run": [
        lambda fw: asked(fw, run_id=SECRET),
        lambda fw: fw.link_run(asked(fw), SECRET),
    ],
    "text, id and metadata of a passage; tenants": [
        lambda fw: fw.add([Passage("p", "some words", "", {"by": SECRET})]),
        lambda fw: fw.add([Passage(SECRET, "some words")]),
        lambda fw: fw.add([Passage("p", f"some words {SECRET}")]),
    ],
}


def test_the_table_has_these_fields() -> None:
    assert table().keys() == FIELDS.keys()


def is_there(root: Path) -> bool:
    return any(SECRET.encode() in data for _, data in stored_bytes(root))


def opened(root: Path, *, masked: bool = False) -> Flywheel:
    config = Config(encoder="", retention_days=30)
    mask = (lambda text: text.replace(SECRET, "MASKED")) if masked else None
    return Flywheel.open(root, encoder=WordEncoder(), config=config, mask=mask)


CASES = [(field, i) for field, uses in FIELDS.items() for i in range(len(uses))]


@pytest.mark.parametrize(("field", "use"), CASES)
def test_what_becomes_of_each_field(tmp_path: Path, field: str, use: int) -> None:
    expected = table()[field]
    for place in PLACES:
        root = tmp_path / place
        with opened(root, masked=place == "masked") as fw:
            fw.add([Passage("reset", "press reset for a password"), Passage("cats", "cats sleep")])
            FIELDS[field][use](fw)
            fw.refresh()
        if place in ("masked", "stored"):
            assert is_there(root) == expected[place], place
            continue
        if place == "old":
            with closing(sqlite3.connect(root / "flywheel.db")) as conn, conn:
                for table_ in ("retrievals", "votes", "answer_votes", "notes", "corrections"):
                    conn.execute(f"UPDATE {table_} SET at = at - 31 * 86400")
        with opened(root) as fw:
            if place == "old":
                fw.refresh()
            else:
                fw.forget("ann")
                fw.forget(SECRET)
            assert fw.verify() == []
        assert is_there(root) == expected[place], place


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
