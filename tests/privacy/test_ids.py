"""Ids are stored as keyed hashes; who opted out is not recorded."""

import hashlib
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlite_utils

from forgetting import opened, rows, traces
from rag_flywheel import Candidate, Flywheel, Passage, Vote
from rag_flywheel.errors import InputError
from rag_flywheel.privacy.ids import hashed
from rag_flywheel.store.database import FILE_NAME
from rag_flywheel.store.migrations import migrate, migrations
from rag_flywheel.store.passages import query_digest
from rag_flywheel.store.place import open_database

USER, SESSION = "ann-zürich-4711", "session-0815"


def test_ids_are_stored_as_hashes_under_a_key_of_the_folder(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    found = []
    for name in ("one", "two"):
        root = tmp_path / name
        with opened(root) as fw:
            fw.add(help_desk)
            shown = fw.retrieve("reset", user_id=USER, session_id=SESSION)
            again = fw.rerank("reset", [Candidate("x", "y", 1.0)], user_id=USER, session_id=SESSION)
            fw.feedback(shown.id, "reset", "helpful", user_id=USER)
            fw.feedback_many([Vote(again.id, "x", "harmful", USER), Vote(again.id, "x", "helpful")])
            assert traces(root, [USER, SESSION]) == []
        (meta,) = rows(root, "SELECT value FROM meta WHERE key = 'user_key'")
        key = bytes.fromhex(meta["value"])
        assert len(key) == 32
        user = hashlib.blake2b(USER.encode(), key=key, digest_size=16).hexdigest()
        session = hashlib.blake2b(SESSION.encode(), key=key, digest_size=16).hexdigest()
        asked = rows(root, "SELECT user_id, session_id FROM retrievals")
        assert asked == [{"user_id": user, "session_id": session}] * 2
        voted = [r["user_id"] for r in rows(root, "SELECT user_id FROM votes ORDER BY seq")]
        assert voted == [user, user, None]
        found.append((key, user))
    assert len({key for key, _ in found}) == len({user for _, user in found}) == 2


def test_ids_that_an_earlier_release_stored_are_hashed(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    with database.transaction() as conn:
        migrations.apply(sqlite_utils.Database(conn), stop_before="m003_hashed_users")
    with database.transaction() as conn:
        for n, user in enumerate([USER, USER, "bob-4712", None]):
            conn.execute(
                "INSERT INTO retrievals (id, kind, at, query, query_hash, k, seen, user_id, "
                "session_id, latency_ms, hits) VALUES (?, 'retrieve', 0, 'q', ?, 8, 0, ?, ?, 1, '[]')",
                (str(n), query_digest("q"), user, SESSION if n == 0 else None),
            )
        conn.execute("INSERT INTO votes VALUES (1, 1, 1, 'helpful', ?, 'why', 0)", (USER,))
        conn.execute("INSERT INTO corrections VALUES (2, 0, 1, 1, ?)", (USER,))
        conn.execute(
            "INSERT INTO reviews VALUES (3, 0, 'accept', 'q', ?, NULL, 1, ?)",
            (query_digest("q"), USER),
        )
    migrate(database, hashed)
    (meta,) = rows(tmp_path, "SELECT value FROM meta WHERE key = 'user_key'")
    user, bob, session = (
        hashed(bytes.fromhex(meta["value"]), i) for i in (USER, "bob-4712", SESSION)
    )
    asked = rows(tmp_path, "SELECT user_id, session_id FROM retrievals ORDER BY rid")
    assert [r["user_id"] for r in asked] == [user, user, bob, None]
    assert [r["session_id"] for r in asked] == [session, None, None, None]
    for table in ("votes", "corrections", "reviews"):
        assert [r["user_id"] for r in rows(tmp_path, f"SELECT user_id FROM {table}")] == [user]
    assert traces(tmp_path, [USER, "bob-4712", SESSION]) == []
    database.close()


def test_processes_that_open_a_new_folder_together_agree_on_its_key(tmp_path: Path) -> None:
    root = tmp_path / "kb"

    def ask(n: int) -> None:
        with opened(root) as fw:
            fw.retrieve("reset", user_id="ann")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    assert len(rows(root, "SELECT DISTINCT user_id FROM retrievals")) == 1
    assert len(rows(root, "SELECT * FROM retrievals")) == 8


def test_who_opted_out_is_answered_and_not_recorded_by_any_process(
    tmp_path: Path, help_desk: list[Passage]
) -> None:
    root = tmp_path / "kb"
    with opened(root) as fw, opened(root) as other:
        fw.add(help_desk)
        earlier = other.retrieve("reset", user_id=USER)
        fw.opt_out(USER)
        fw.opt_out(USER)
        before = dump(root)
        found = other.retrieve("a question of ann", user_id=USER, session_id=SESSION)
        assert (found.id, len(found.hits)) == (None, 4)
        assert other.rerank("reset", [Candidate("x", "y", 1.0)], user_id=USER).id is None
        other.feedback(found.id, "reset", "helpful", user_id=USER)
        other.feedback(earlier.id, "reset", "helpful", user_id=USER)
        other.answer(str(earlier.id), "an answer")
        assert dump(root) == before
        votes = [
            Vote(earlier.id, "reset", "helpful", USER),
            Vote(earlier.id, "reset", "helpful", "bob"),
        ]
        assert other.feedback_many(votes) == 1
        other.opt_out(USER, out=False)
        assert fw.retrieve("reset", user_id=USER).id is not None
        assert fw.feedback_many(votes[:1]) == 1


def dump(root: Path) -> list[str]:
    with closing(sqlite3.connect(root / FILE_NAME)) as conn:
        return list(conn.iterdump())


@pytest.mark.parametrize("user", [None, 3, "\ud800"])
def test_users_that_cannot_be(fw: Flywheel, user: object) -> None:
    with pytest.raises(InputError, match="user_id"):
        fw.opt_out(user)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="user_id"):
        fw.forget(user)  # type: ignore[arg-type]
