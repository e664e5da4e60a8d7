"""Known answers, corrections and decisions of reviewers: appended, never changed."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rag_flywheel.store import column_checks
from rag_flywheel.store.database import append_rows, in_chunks
from rag_flywheel.store.event_types import Correction, Decision, ImportedAnswer
from rag_flywheel.store.mutes import not_muted

IMPORTED = "imported"


@dataclass(frozen=True)
class NewAnswer:
    """A grade to append: of row `pid` for a query; tenant: as JSON."""

    query: str
    query_hash: bytes
    tenant: str | None
    pid: int
    grade: int


def append_answers(
    conn: sqlite3.Connection, answers: Sequence[NewAnswer], *, first_seq: int, at: float
) -> None:
    """Append grades under consecutive event numbers from `first_seq`."""
    rows = ({"seq": seq, "at": at, **vars(a)} for seq, a in enumerate(answers, first_seq))
    append_rows(conn, "golden", *({**row, "source": IMPORTED} for row in rows))


def answers_until(conn: sqlite3.Connection, last: int) -> list[ImportedAnswer]:
    """Every imported grade up to event number `last`, in order."""
    rows = conn.execute(
        "SELECT g.seq, g.query_hash, g.tenant, p.lineage, g.grade FROM golden g "
        "JOIN passages p ON p.pid = g.pid WHERE g.seq <= ? ORDER BY g.seq",
        (last,),
    )
    return [
        ImportedAnswer(seq, *_target("golden", *target), column_checks.whole("golden.grade", grade))
        for seq, *target, grade in rows
    ]


def append_correction(
    conn: sqlite3.Connection, *, seq: int, at: float, rid: int, pid: int, user_id: str | None
) -> None:
    """Append that a user named row `pid` as the answer of retrieval row `rid`."""
    row = {"seq": seq, "at": at, "rid": rid, "pid": pid, "user_id": user_id}
    append_rows(conn, "corrections", row)


def drop_superseded_corrections(
    conn: sqlite3.Connection, of: Literal["user_id", "rid"], values: Sequence[str] | Sequence[int]
) -> None:
    """Delete corrections that their users have replaced by a later one on the same retrieval.

    Only the corrections of these users, or those on these retrieval rows, are deleted.
    """
    conn.executemany(
        f"DELETE FROM corrections WHERE {of} = ? AND user_id IS NOT NULL AND EXISTS (SELECT 1 FROM "
        "corrections l WHERE l.rid = corrections.rid AND l.user_id = corrections.user_id AND "
        "l.seq > corrections.seq)",
        [(value,) for value in values],
    )


def corrections_until(conn: sqlite3.Connection, last: int) -> list[Correction]:
    """Every correction up to event number `last`, in order."""
    rows = conn.execute(
        "SELECT c.seq, c.rid, r.query_hash, r.tenant, p.lineage, c.user_id FROM corrections c "
        "JOIN retrievals r ON r.rid = c.rid JOIN passages p ON p.pid = c.pid "
        f"WHERE {not_muted('c.user_id')} AND c.seq <= ? ORDER BY c.seq",
        (last,),
    )
    return [
        Correction(
            seq,
            column_checks.whole("corrections.rid", rid),
            *_target("retrievals", *target),
            column_checks.optional_text("corrections.user_id", user),
        )
        for seq, rid, *target, user in rows
    ]


@dataclass(frozen=True)
class NewDecision:
    """A decision to append: on row `pid` as the answer of a query; tenant: as JSON."""

    decision: Literal["accept", "reject", "undo"]
    query: str
    query_hash: bytes
    tenant: str | None
    pid: int
    user_id: str | None


def append_decision(conn: sqlite3.Connection, new: NewDecision, *, seq: int, at: float) -> None:
    """Append the decision of a reviewer."""
    append_rows(conn, "reviews", {"seq": seq, "at": at, **vars(new)})


def decisions_until(conn: sqlite3.Connection, last: int) -> list[Decision]:
    """Every decision up to event number `last`, in order."""
    rows = conn.execute(
        "SELECT v.seq, v.query_hash, v.tenant, p.lineage, v.decision FROM reviews v "
        "JOIN passages p ON p.pid = v.pid WHERE v.seq <= ? ORDER BY v.seq",
        (last,),
    )
    return [Decision(seq, *_target("reviews", *target), kind) for seq, *target, kind in rows]


def _target(
    table: str, query: object, tenant: object, lineage: object
) -> tuple[bytes, str | None, int]:
    """The (query hash, tenant, lineage) that an event is on, checked."""
    return (
        column_checks.hashed(f"{table}.query_hash", query),
        column_checks.optional_text(f"{table}.tenant", tenant),
        column_checks.whole("passages.lineage", lineage),
    )


def query_texts(conn: sqlite3.Connection, queries: Sequence[bytes]) -> dict[bytes, str]:
    """The texts, by hash, of queries that were asked, imported or reviewed."""
    texts: dict[bytes, str] = {}
    for table in ("retrievals", "golden", "reviews"):
        rows = in_chunks(
            conn,
            f"SELECT DISTINCT query_hash, query FROM {table} WHERE query_hash IN (%s)",
            list(queries),
        )
        texts.update(
            (
                column_checks.hashed(f"{table}.query_hash", name),
                column_checks.text(f"{table}.query", query),
            )
            for name, query in rows
        )
    return texts
