"""Deletes the rows of a user, and records each deletion in a journal: begun, then done.

A user is a hash here.
"""

import json
from dataclasses import asdict

from rag_flywheel.records import ForgetReport
from rag_flywheel.store import column_checks, forgotten, imports, notes, passages, runs, wall_clock
from rag_flywheel.store import votes as vote_store
from rag_flywheel.store.connection import Connection, append_rows, scalar
from rag_flywheel.store.given_texts import drop_old_given
from rag_flywheel.store.golden import drop_superseded_corrections
from rag_flywheel.store.journal import Look, record_look
from rag_flywheel.store.users import one_time_user
from rag_flywheel.store.vectors import drop_query_vectors
from rag_flywheel.store.votes import EVENTS

MOST_EVENTS = 2**62
_MINE = "SELECT rid FROM retrievals WHERE user_id = ?"


def has_rows_of(conn: Connection, user: str) -> bool:
    """Whether any row names a user, apart from the record that they opted out."""
    tables = (
        "retrievals", *EVENTS, "corrections", "reviews", "notes", "note_reviews", "mutes"
    )  # fmt: skip
    each = " OR ".join(f"EXISTS (SELECT 1 FROM {t} WHERE user_id = ?)" for t in tables)
    return bool(scalar(conn, f"SELECT {each}", [user] * len(tables)))


def queries_of_user(conn: Connection, user: str) -> list[bytes]:
    """Hashes of the queries that a user asked, or voted on."""
    voted = " UNION ".join(
        f"SELECT r.query_hash FROM {t} v JOIN retrievals r ON r.rid = v.rid WHERE v.user_id = :user"
        for t in EVENTS
    )
    sql = f"SELECT query_hash FROM retrievals WHERE user_id = :user UNION {voted}"
    return [bytes(row[0]) for row in conn.execute(sql, {"user": user})]


def first_event_of(conn: Connection, user: str) -> int:
    """The number of the first event that a version could rest on of those that `delete_user` deletes;
    MOST_EVENTS when there is none."""
    each = [
        f"SELECT min(seq) AS seq FROM {t} WHERE user_id = :user OR rid IN "
        "(SELECT rid FROM retrievals WHERE user_id = :user)"
        for t in (*EVENTS, "corrections")
    ]
    own = "SELECT query_hash FROM retrievals WHERE user_id = :user"
    each.append(
        f"SELECT min(seq) AS seq FROM reviews WHERE user_id = :user OR query_hash IN ({own})"
    )
    sql = f"SELECT coalesce(min(seq), {MOST_EVENTS}) FROM ({' UNION ALL '.join(each)}) events"
    return column_checks.whole("seq", scalar(conn, sql, {"user": user}))


def delete_user(conn: Connection, user: str, tenant_key: str | None = None) -> ForgetReport:
    """Delete a user's rows, and every row that holds a question only they asked.

    Votes and corrections on their questions are deleted too, whoever gave them. Their corrections
    and decisions on the questions of others stay, without their author. Takes one event number.
    tenant_key: as for `drop_old_given`.
    """
    forgotten.note_user(conn, user)
    questions, gave = _own_questions(conn, user), _gave_candidates(conn, user)
    n_retrievals, n_votes, n_votes_of_others = _counts(conn, user)
    for table in (*EVENTS, "corrections"):
        conn.execute(f"DELETE FROM {table} WHERE rid IN ({_MINE})", (user,))
    for table in (*EVENTS, "mutes"):
        conn.execute(f"DELETE FROM {table} WHERE user_id = ?", (user,))
    vote_store.drop_loose_credits(conn)
    n_notes = notes.delete_notes_of(conn, user, _MINE)
    runs.unlink_user(conn, user)
    conn.execute("DELETE FROM retrievals WHERE user_id = ?", (user,))
    conn.executemany(
        "DELETE FROM reviews WHERE query_hash = ? AND NOT EXISTS "
        "(SELECT 1 FROM golden g WHERE g.query_hash = reviews.query_hash)",
        [(h,) for h in questions],
    )
    drop_query_vectors(conn, questions)
    drop_superseded_corrections(conn, "user_id", [user])
    n_corrections, n_reviews = (
        conn.execute(
            f"UPDATE {table} SET user_id = {one_time_user()} WHERE user_id = ?", (user,)
        ).rowcount
        for table in ("corrections", "reviews")
    )
    if gave:
        drop_old_given(conn, tenant_key)
    imports.forget_all_deleted(conn)
    passages.advance_clock(conn)
    return ForgetReport(
        n_retrievals=n_retrievals,
        n_votes=n_votes,
        n_votes_of_others=n_votes_of_others,
        n_corrections_kept=n_corrections,
        n_reviews_kept=n_reviews,
        version=None,
        n_notes=n_notes,
    )


def _gave_candidates(conn: Connection, user: str) -> bool:
    sql = "SELECT EXISTS (SELECT 1 FROM retrievals WHERE user_id = ? AND kind = 'rerank')"
    return bool(scalar(conn, sql, (user,)))


def _own_questions(conn: Connection, user: str) -> list[bytes]:
    """Hashes of the questions that nobody else asked, in what is recorded."""
    rows = conn.execute(
        "SELECT DISTINCT query_hash FROM retrievals r WHERE user_id = ? AND NOT EXISTS (SELECT 1 "
        "FROM retrievals o WHERE o.query_hash = r.query_hash AND o.user_id IS NOT r.user_id)",
        (user,),
    )
    return [bytes(row[0]) for row in rows]


def _counts(conn: Connection, user: str) -> tuple[int, int, int]:
    """(retrievals of the user, their votes, votes of others on their retrievals)."""
    mine = _MINE.replace("?", ":user")
    own = " + ".join(f"(SELECT count(*) FROM {t} WHERE user_id = :user)" for t in EVENTS)
    others = " + ".join(
        f"(SELECT count(*) FROM {t} WHERE rid IN ({mine}) AND user_id IS NOT :user)" for t in EVENTS
    )
    sql = f"SELECT (SELECT count(*) FROM retrievals WHERE user_id = :user), {own}, {others}"
    row: tuple[int, int, int] = conn.execute(sql, {"user": user}).fetchone()
    return row


def restart_looks(conn: Connection, version: str | None) -> None:
    """Append a reset: the weights that the looks of the gate let in are lost."""
    record_look(conn, Look(version or "", 0, 0.0, None, "reset"))


def record_forget(
    conn: Connection,
    state: str,
    report: ForgetReport,
    *,
    first_event: int | None = None,
    n_counted: int = 0,
) -> None:
    """Append that forgetting a user has "begun", or is "done"; the row does not name the user.

    first_event: the number of the first event that was deleted, None: not known; n_counted: how many
    votes that counted were deleted.
    """
    text = json.dumps(asdict(report), sort_keys=True)
    row = {"at": wall_clock.now(), "state": state, "report": text}
    append_rows(conn, "forgets", {**row, "first_event": first_event, "n_counted": n_counted})


def unfinished(conn: Connection) -> list[ForgetReport]:
    """The reports of deletions that were begun and are not done, the oldest first."""
    rows = conn.execute(
        "SELECT report FROM forgets WHERE state = 'begun' ORDER BY id "
        "LIMIT -1 OFFSET (SELECT count(*) FROM forgets WHERE state = 'done')"
    )
    return [ForgetReport(**json.loads(row[0])) for row in rows]


def first_unfinished_event(conn: Connection) -> int | None:
    """The first event of the users whose deletion is begun and not done; 0 where it is not known. None:
    nothing is to be finished."""
    found = scalar(
        conn,
        "SELECT min(coalesce(first_event, 0)) FROM (SELECT first_event FROM forgets WHERE state = 'begun' "
        "ORDER BY id LIMIT -1 OFFSET (SELECT count(*) FROM forgets WHERE state = 'done')) unfinished",
    )
    return column_checks.optional_whole("forgets.first_event", found)


def count_counted(conn: Connection) -> int:
    """How many votes that counted were ever deleted with their users."""
    found = scalar(conn, "SELECT coalesce(sum(n_counted), 0) FROM forgets WHERE state = 'begun'")
    return column_checks.whole("forgets.n_counted", found)


def count_begun(conn: Connection) -> int:
    """How many deletions of users were begun: caches of votes from before the last are stale."""
    return int(scalar(conn, "SELECT count(*) FROM forgets WHERE state = 'begun'"))


def last_at(conn: Connection) -> float | None:
    """When the deletion of a user was begun or done last, in seconds since 1970; None: never."""
    at = scalar(conn, "SELECT max(at) FROM forgets")
    return None if at is None else column_checks.seconds("forgets.at", at)


def count_done(conn: Connection) -> int:
    """How many users were forgotten completely, with all that was learned from their votes."""
    return int(scalar(conn, "SELECT count(*) FROM forgets WHERE state = 'done'"))
