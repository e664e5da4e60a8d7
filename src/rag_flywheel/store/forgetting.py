"""Deletes what is stored of a user, and keeps the journal of it: begun, done.

A user is a hash here.
"""

import json
import sqlite3
import time
from dataclasses import asdict

from rag_flywheel.records import ForgetReport
from rag_flywheel.store import notes, passages
from rag_flywheel.store import votes as vote_store
from rag_flywheel.store.golden import drop_superseded_corrections
from rag_flywheel.store.journal import Look, record_look
from rag_flywheel.store.users import one_time_user
from rag_flywheel.store.vectors import drop_query_vectors
from rag_flywheel.store.votes import EVENTS

_MINE = "SELECT rid FROM retrievals WHERE user_id = ?"


def has_rows_of(conn: sqlite3.Connection, user: str) -> bool:
    """Whether anything is stored of a user, but that they opted out."""
    tables = ("retrievals", *EVENTS, "corrections", "reviews", "notes", "note_reviews")
    each = " OR ".join(f"EXISTS (SELECT 1 FROM {t} WHERE user_id = ?)" for t in tables)
    return bool(conn.execute(f"SELECT {each}", [user] * len(tables)).fetchone()[0])


def delete_user(conn: sqlite3.Connection, user: str) -> ForgetReport:
    """Delete a user's rows, and every row that holds a question only they asked.

    Votes and corrections on their questions go too, whoever gave them. What they said of others'
    questions besides votes stays, without its author. Takes one event number.
    """
    questions = _own_questions(conn, user)
    counted = _counts(conn, user)
    for table in (*EVENTS, "corrections"):
        conn.execute(f"DELETE FROM {table} WHERE rid IN ({_MINE})", (user,))
    for table in EVENTS:
        conn.execute(f"DELETE FROM {table} WHERE user_id = ?", (user,))
    vote_store.drop_loose_credits(conn)
    n_notes = notes.delete_notes_of(conn, user, _MINE)
    conn.execute("DELETE FROM retrievals WHERE user_id = ?", (user,))
    keys = [(h,) for h in questions]
    conn.executemany(
        "DELETE FROM reviews WHERE query_hash = ? AND NOT EXISTS "
        "(SELECT 1 FROM golden g WHERE g.query_hash = reviews.query_hash)",
        keys,
    )
    drop_query_vectors(conn, questions)
    drop_superseded_corrections(conn, "user_id", [user])
    kept = {
        table: conn.execute(
            f"UPDATE {table} SET user_id = {one_time_user()} WHERE user_id = ?", (user,)
        )
        for table in ("corrections", "reviews")
    }
    passages.advance_clock(conn)
    retrievals, votes, others = counted
    return ForgetReport(
        n_retrievals=retrievals,
        n_votes=votes,
        n_votes_of_others=others,
        n_corrections_kept=kept["corrections"].rowcount,
        n_reviews_kept=kept["reviews"].rowcount,
        version=None,
        n_notes=n_notes,
    )


def _own_questions(conn: sqlite3.Connection, user: str) -> list[bytes]:
    """Hashes of the questions that nobody else asked, in what is recorded."""
    rows = conn.execute(
        "SELECT DISTINCT query_hash FROM retrievals r WHERE user_id = ? AND NOT EXISTS (SELECT 1 "
        "FROM retrievals o WHERE o.query_hash = r.query_hash AND o.user_id IS NOT r.user_id)",
        (user,),
    )
    return [bytes(row[0]) for row in rows]


def _counts(conn: sqlite3.Connection, user: str) -> tuple[int, int, int]:
    """(retrievals of the user, their votes, votes of others on their retrievals)."""
    mine = _MINE.replace("?", ":user")
    own = " + ".join(f"(SELECT count(*) FROM {t} WHERE user_id = :user)" for t in EVENTS)
    others = " + ".join(
        f"(SELECT count(*) FROM {t} WHERE rid IN ({mine}) AND user_id IS NOT :user)" for t in EVENTS
    )
    sql = f"SELECT (SELECT count(*) FROM retrievals WHERE user_id = :user), {own}, {others}"
    n_retrievals, n_votes, n_others = conn.execute(sql, {"user": user}).fetchone()
    return int(n_retrievals), int(n_votes), int(n_others)


def restart_looks(conn: sqlite3.Connection, version: str | None) -> None:
    """Note that what the gate has seen so far rests on votes that are gone."""
    record_look(conn, Look(version or "", 0, 0.0, None, "reset"))


def record_forget(conn: sqlite3.Connection, state: str, report: ForgetReport) -> None:
    """Append that forgetting a user has "begun", or is "done"; nothing of the user is in it."""
    conn.execute(
        "INSERT INTO forgets (at, state, report) VALUES (?, ?, ?)",
        (time.time(), state, json.dumps(asdict(report), sort_keys=True)),
    )


def unfinished(conn: sqlite3.Connection) -> list[ForgetReport]:
    """What was begun and is not done, the oldest first."""
    rows = conn.execute(
        "SELECT report FROM forgets WHERE state = 'begun' ORDER BY id "
        "LIMIT -1 OFFSET (SELECT count(*) FROM forgets WHERE state = 'done')"
    )
    return [ForgetReport(**json.loads(row[0])) for row in rows]


def count_begun(conn: sqlite3.Connection) -> int:
    """How many users were deleted so far: what is remembered of votes from before is stale."""
    return _count(conn, "begun")


def count_done(conn: sqlite3.Connection) -> int:
    """How many users were forgotten so far, down to what was learned from them."""
    return _count(conn, "done")


def _count(conn: sqlite3.Connection, state: str) -> int:
    sql = "SELECT count(*) FROM forgets WHERE state = ?"
    return int(conn.execute(sql, (state,)).fetchone()[0])
