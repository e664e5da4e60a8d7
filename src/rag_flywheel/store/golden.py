"""Known answers, corrections and decisions of reviewers: appended, never changed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from rag_flywheel.records import ALL_TENANTS, TenantScope
from rag_flywheel.store import column_checks
from rag_flywheel.store.connection import Connection, append_rows, in_chunks, scalar
from rag_flywheel.store.event_types import Correction, Decision, GradeSource, ImportedAnswer
from rag_flywheel.store.mutes import not_muted
from rag_flywheel.store.passages import PRESENT

SOURCES: tuple[str, ...] = get_args(GradeSource)
_WITH_KNOWN = ("golden", "reviews")


@dataclass(frozen=True)
class NewAnswer:
    """A grade to append: of row `pid` for a query; tenant: as JSON; source: as in ImportedAnswer."""

    query: str
    query_hash: bytes
    tenant: str | None
    pid: int
    grade: int
    source: GradeSource = "imported"


def append_answers(
    conn: Connection, answers: Sequence[NewAnswer], *, first_seq: int, at: float
) -> None:
    """Append grades under consecutive event numbers from `first_seq`."""
    rows = ({"seq": seq, "at": at, **vars(a)} for seq, a in enumerate(answers, first_seq))
    append_rows(conn, "golden", *rows)


_ANSWERS = (
    "SELECT g.seq, g.query_hash, g.tenant, p.lineage, g.grade, g.source FROM golden g "
    "JOIN passages p ON p.pid = g.pid WHERE "
)


def answers_until(
    conn: Connection, last: int, lineages: Sequence[int] | None = None
) -> list[ImportedAnswer]:
    """Every imported or pinned grade up to event number `last`, in order; lineages: of these texts."""
    if lineages is None:
        return list(map(_answer, conn.execute(f"{_ANSWERS} g.seq <= ? ORDER BY g.seq", (last,))))
    rows = in_chunks(conn, f"{_ANSWERS} p.lineage IN (%s) AND g.seq <= ?", lineages, (last,))
    return sorted(map(_answer, rows), key=lambda answer: answer.seq)


def pins_of(
    conn: Connection, query: bytes, tenant: str | None, passage_id: str
) -> list[ImportedAnswer]:
    """The standing pins of a passage for a query, one for each text that it has or had.

    Pins that followed a text to another id are of that one.
    """
    present = f"SELECT lineage FROM passages WHERE {PRESENT}"
    rows = conn.execute(
        f"{_ANSWERS} g.query_hash = ? AND g.tenant IS ? AND g.source = 'pinned' AND "
        f"(p.lineage IN ({present} AND id = ?) OR "
        f"(p.id = ? AND NOT EXISTS ({present} AND lineage = p.lineage))) ORDER BY g.seq",
        (query, tenant, passage_id, passage_id),
    )
    last = {pin.lineage: pin for pin in map(_answer, rows)}
    return [pin for pin in last.values() if pin.grade > 0]


def reviewed_since(conn: Connection, answer: ImportedAnswer) -> bool:
    """Whether the text was reviewed after an answer was given, for whatever query of the tenant."""
    sql = (
        "SELECT EXISTS (SELECT 1 FROM reviews v JOIN passages p ON p.pid = v.pid "
        "WHERE v.seq > ? AND p.lineage = ? AND v.tenant IS ?)"
    )
    return bool(scalar(conn, sql, (answer.seq, answer.lineage, answer.tenant)))


def known_since(conn: Connection, after: int) -> set[int]:
    """Lineages of the texts that were imported, pinned or reviewed after event number `after`."""
    each = " UNION ".join(
        f"SELECT p.lineage FROM {table} t JOIN passages p ON p.pid = t.pid WHERE t.seq > :after"
        for table in _WITH_KNOWN
    )
    rows = conn.execute(each, {"after": after})
    return {column_checks.whole("passages.lineage", row[0]) for row in rows}


def known_queries(conn: Connection) -> dict[bytes, str]:
    """The texts, by hash, of all queries for which an answer was imported, pinned or reviewed."""
    each = " UNION ".join(f"SELECT query_hash FROM {table}" for table in _WITH_KNOWN)
    hashes = [column_checks.hashed("golden.query_hash", row[0]) for row in conn.execute(each)]
    return query_texts(conn, sorted(hashes))


def _answer(row: tuple[Any, ...]) -> ImportedAnswer:
    seq, *target, grade, source = row
    if source not in SOURCES:
        column_checks.refuse("golden.source", source, " or ".join(SOURCES))
    grade = column_checks.whole("golden.grade", grade)
    return ImportedAnswer(seq, *_target("golden", *target), grade, cast(GradeSource, source))


def append_correction(
    conn: Connection, *, seq: int, at: float, rid: int, pid: int, user_id: str | None
) -> None:
    """Append that a user named row `pid` as the answer of retrieval row `rid`."""
    row = {"seq": seq, "at": at, "rid": rid, "pid": pid, "user_id": user_id}
    append_rows(conn, "corrections", row)


def drop_superseded_corrections(
    conn: Connection, of: Literal["user_id", "rid"], values: Sequence[str] | Sequence[int]
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


def corrections_until(conn: Connection, last: int) -> list[Correction]:
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


def append_decision(conn: Connection, new: NewDecision, *, seq: int, at: float) -> None:
    """Append the decision of a reviewer."""
    append_rows(conn, "reviews", {"seq": seq, "at": at, **vars(new)})


_DECISIONS = (
    "SELECT v.seq, v.query_hash, v.tenant, p.lineage, v.decision FROM reviews v "
    "JOIN passages p ON p.pid = v.pid WHERE "
)


def decisions_until(
    conn: Connection, last: int, lineages: Sequence[int] | None = None
) -> list[Decision]:
    """Every decision up to event number `last`, in order; lineages: on these texts."""
    if lineages is None:
        rows: Iterable[Any] = conn.execute(f"{_DECISIONS} v.seq <= ? ORDER BY v.seq", (last,))
    else:
        sql = f"{_DECISIONS} p.lineage IN (%s) AND v.seq <= ?"
        rows = sorted(in_chunks(conn, sql, lineages, (last,)))
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


def query_texts(
    conn: Connection, queries: Sequence[bytes], scope: TenantScope = ALL_TENANTS
) -> dict[bytes, str]:
    """The texts, by hash, of queries that were asked, imported or reviewed in the scope; "" of those whose
    words are not stored."""
    texts: dict[bytes, str] = {}
    within, values = scope.sql("tenant")
    for table in ("retrievals", "golden", "reviews"):
        rows = in_chunks(
            conn,
            f"SELECT DISTINCT query_hash, query FROM {table} WHERE query_hash IN (%s){within}",
            list(queries),
            values,
        )
        for name, query in rows:
            if query or name not in texts:
                hashed = column_checks.hashed(f"{table}.query_hash", name)
                texts[hashed] = column_checks.text(f"{table}.query", query)
    return texts
