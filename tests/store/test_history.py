"""The log of what happened, and that nobody rewrites it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rag_flywheel import Flywheel, Passage
from rag_flywheel.errors import InputError

ROWS = {
    "moves": "INSERT INTO moves (at, action, version) VALUES (5e9, 'promote', 'v')",
    "refreshes": "INSERT INTO refreshes (at, outcome, parameters, reason, scores, seconds) "
    "VALUES (5e9, 'rejected', 'kept', 'it lost 3 passages', '{}', 1)",
    "looks": "INSERT INTO looks (at, version, n_votes, alpha, p, outcome) "
    "VALUES (5e9, 'v', 90, 0.01, 0.004, 'better')",
    "forgets": "INSERT INTO forgets (at, state, report) VALUES (5e9, 'begun', "
    '\'{"n_retrievals": 2, "n_votes": 3}\')',
    "reviews": "INSERT INTO reviews (at, decision, query, query_hash, pid) "
    "VALUES (5e9, 'reject', 'how?', x'00', 1)",
}
TEXTS = {
    "moves": ("promoted", "v is live"),
    "refreshes": ("rejected", "the new version failed its check: it lost 3 passages"),
    "looks": ("look", "new parameters of v: better, 90 votes so far, p = 0.004"),
    "forgets": ("forget", "begun: a user with 2 retrievals and 3 votes"),
    "reviews": ("review", "reject: passage 'reset' for 'how?'"),
}


def test_what_happened_newest_first(fw: Flywheel, help_desk: list[Passage]) -> None:
    assert fw.history() == []
    fw.add(help_desk[:3])
    first = fw.refresh()
    fw.add(help_desk[3:])
    second = fw.refresh()
    fw.rollback(hold=True)
    fw.release()
    fw.retrieve("reset", user_id="ann")
    third = fw.forget("ann").version
    found = fw.history()
    kinds = ["forget", "promoted", "forget", "release", "rollback", "promoted", "promoted"]
    assert [e.kind for e in found] == kinds
    assert found[0].kind == "forget" and found[0].text.startswith("done: a user with 1 retrieval ")
    assert found[-1].text == f"{first.version} is live: {first.reason}"
    assert f"{second.version} is live" in found[-2].text
    assert found[-3].text.startswith(f"{first.version} is live; votes after event ")
    assert found[-3].text.endswith("held until release")
    assert found[1].text.startswith(f"{third} is live")
    assert [e.at for e in found] == sorted((e.at for e in found), reverse=True)
    assert fw.history(2) == found[:2]
    assert fw.refresh().outcome == "unchanged"
    assert fw.history() == found


@pytest.mark.parametrize("table", ROWS)
def test_each_kind_has_its_sentence(fw: Flywheel, help_desk: list[Passage], table: str) -> None:
    fw.add(help_desk)
    with closing(sqlite3.connect(Path(fw.status().path) / "flywheel.db")) as conn, conn:
        conn.execute(ROWS[table])
    (entry,) = fw.history()
    assert (entry.at, (entry.kind, entry.text)) == ("2128-06-11T08:53:20Z", TEXTS[table])


@pytest.mark.parametrize("table", ["moves", "refreshes", "looks", "forgets"])
@pytest.mark.parametrize("change", ["UPDATE {} SET at = 0", "DELETE FROM {}"])
def test_the_log_can_only_be_appended_to(fw: Flywheel, table: str, change: str) -> None:
    with closing(sqlite3.connect(Path(fw.status().path) / "flywheel.db")) as conn:
        conn.execute(ROWS[table])
        with pytest.raises(sqlite3.IntegrityError, match=f"{table} can only be appended to"):
            conn.execute(change.format(table))


@pytest.mark.parametrize("n", [0, -1, True, 1.5, None])
def test_how_many(fw: Flywheel, n: object) -> None:
    with pytest.raises(InputError, match="n is"):
        fw.history(n)  # type: ignore[arg-type]
