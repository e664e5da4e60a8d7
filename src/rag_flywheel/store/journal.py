"""Records refreshes, looks of the gate and changes of the live version, and the encoder of the index.

Rows about the live version are intents where the index has one folder: the file CURRENT there decides, and
its content is recorded here when the two differ. Where hosts have folders of their own, the last row decides.
"""

import json
from dataclasses import dataclass
from typing import NamedTuple

from rag_flywheel.records import Current, RefreshReport
from rag_flywheel.store import column_checks, wall_clock
from rag_flywheel.store.connection import Connection, append_rows, scalar

OBJECTS, SETTINGS, DAMAGED = "objects", "settings", "damaged"
"""The keys, in `meta`, of the address of the object store that versions are in, of the settings that hosts
share, and of a version that a host found damaged there; they are in no copy."""
_NONE = ""  # in the place of a version: none is live


def read_meta(conn: Connection, key: str) -> str | None:
    """The value stored under a name, None when there is none."""
    value = scalar(conn, "SELECT value FROM meta WHERE key = ?", (key,))
    return column_checks.optional_text(f"meta {key!r}", value)


def write_meta(conn: Connection, key: str, value: str) -> None:
    """Store a value under a name, in place of an earlier one."""
    conn.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) "
        "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )


def drop_meta(conn: Connection, key: str) -> None:
    """Delete the value under a name."""
    conn.execute("DELETE FROM meta WHERE key = ?", (key,))


def is_shared(conn: Connection) -> bool:
    """Whether hosts have folders of their own, and fetch versions from an object store."""
    return read_meta(conn, OBJECTS) is not None


def record_refresh(conn: Connection, report: RefreshReport) -> None:
    """Append the report of a refresh."""
    scores = json.dumps(dict(report.scores), sort_keys=True)
    row = {**vars(report), "at": wall_clock.now(), "scores": scores}
    del row["encoder"]  # which has no column
    append_rows(conn, "refreshes", row)


@dataclass(frozen=True)
class Look:
    """One test of a candidate by the gate.

    version: the candidate.
    n_votes: the votes there were.
    alpha: the error that the test spent.
    p: its p-value, None without one.
    outcome: its decision; or "withdrawn": what the last one let in is not learned any more; "recounted":
        fewer votes count than at the last one; "reset": all looks count from the beginning.
    arm: what the gate tested, "weights" or "encoder".
    """

    version: str
    n_votes: int
    alpha: float
    p: float | None
    outcome: str
    arm: str = "weights"


def record_look(conn: Connection, look: Look) -> None:
    """Append a look of the gate."""
    append_rows(conn, "looks", {"at": wall_clock.now(), **vars(look)})


def looks(conn: Connection, arm: str = "weights") -> tuple[int, int]:
    """(looks since this arm last replaced the live version, number of votes at its last look).

    A reset counts for every arm. Looks that spent nothing are not counted, since nothing was tested. What
    was withdrawn replaced nothing: the looks before it count on.
    """
    mine = "(arm = :arm OR outcome = 'reset')"
    gone = f"SELECT coalesce(max(id), 0) FROM looks WHERE {mine} AND outcome = 'withdrawn'"
    row = conn.execute(
        f"SELECT (SELECT count(*) FROM looks WHERE {mine} AND alpha > 0 AND id > (SELECT "
        f"coalesce(max(id), 0) FROM looks WHERE {mine} AND (outcome = 'reset' OR outcome = 'better' "
        f"AND id > ({gone})))), "
        f"coalesce((SELECT n_votes FROM looks WHERE {mine} ORDER BY id DESC LIMIT 1), 0)",
        {"arm": arm},
    ).fetchone()
    return int(row[0]), int(row[1])


def last_promoted(conn: Connection) -> str | None:
    """The version of the last refresh that promoted one; None without one."""
    sql = "SELECT version FROM refreshes WHERE outcome = 'promoted' ORDER BY id DESC LIMIT 1"
    return column_checks.optional_text("refreshes.version", scalar(conn, sql))


def last_refresh_at(conn: Connection) -> float | None:
    """When the last refresh ended, in seconds since 1970 UTC; None without one."""
    at = scalar(conn, "SELECT at FROM refreshes ORDER BY id DESC LIMIT 1")
    return None if at is None else column_checks.seconds("refreshes.at", at)


def last_result(conn: Connection) -> tuple[float, str, str] | None:
    """(when it ended, outcome, reason) of the last refresh; None without one."""
    sql = "SELECT at, outcome, reason FROM refreshes ORDER BY id DESC LIMIT 1"
    row = conn.execute(sql).fetchone()
    if row is None:
        return None
    at = column_checks.seconds("refreshes.at", row[0])
    outcome, reason = (column_checks.text("refreshes", value) for value in row[1:])
    return at, outcome, reason


def refresh_reports(conn: Connection, n: int) -> list[tuple[float, RefreshReport]]:
    """The n newest refreshes, the newest first, with when each ended, in seconds since 1970."""
    rows = conn.execute(
        "SELECT at, outcome, version, parameters, reason, scores, seconds FROM refreshes "
        "ORDER BY id DESC LIMIT ?",
        (n,),
    )
    return [
        (
            column_checks.seconds("refreshes.at", at),
            RefreshReport(
                outcome,
                column_checks.optional_text("refreshes.version", version),
                parameters,
                column_checks.text("refreshes.reason", reason),
                column_checks.metadata("refreshes.scores", scores),
                column_checks.number("refreshes.seconds", seconds),
            ),
        )
        for at, outcome, version, parameters, reason, scores, seconds in rows
    ]


class EndedRefresh(NamedTuple):
    """A refresh that came to a result: when it ended, what it came to, what it took, and the gain that the
    gate measured, None: it measured none."""

    at: float
    outcome: str
    seconds: float
    gain: float | None


def refreshes(conn: Connection) -> list[EndedRefresh]:
    """Every refresh that came to a result, the oldest first."""
    sql = "SELECT at, outcome, seconds, scores FROM refreshes ORDER BY id"
    return [
        EndedRefresh(
            column_checks.seconds("refreshes.at", at),
            column_checks.text("refreshes.outcome", outcome),
            column_checks.number("refreshes.seconds", seconds),
            _gain(scores),
        )
        for at, outcome, seconds, scores in conn.execute(sql)
    ]


def _gain(scores: object) -> float | None:
    found = column_checks.parsed("refreshes.scores", scores)
    gain = found.get("gain") if isinstance(found, dict) else None
    return None if gain is None else column_checks.number("refreshes.scores", gain)


def count_looks(conn: Connection) -> dict[str, int]:
    """How many decisions of the gate there were, by outcome."""
    sql = (
        "SELECT outcome, count(*) FROM looks WHERE outcome IN ('better', 'no better', 'vetoed') "
        "GROUP BY outcome"
    )
    return {
        column_checks.text("looks.outcome", outcome): int(n) for outcome, n in conn.execute(sql)
    }


def last_noise(conn: Connection) -> float | None:
    """The share of votes that look wrong, as the last refresh that promoted a version found it; None
    where nothing was fitted."""
    sql = "SELECT scores FROM refreshes WHERE outcome = 'promoted' ORDER BY id DESC LIMIT 1"
    scores = scalar(conn, sql)
    found = None if scores is None else column_checks.parsed("refreshes.scores", scores)
    noise = found.get("noise") if isinstance(found, dict) else None
    return noise if isinstance(noise, float) else None


def last_outcomes(conn: Connection, n: int) -> list[str]:
    """The n newest decisions of the gate on weights, the newest first."""
    sql = "SELECT outcome FROM looks WHERE arm = 'weights' ORDER BY id DESC LIMIT ?"
    return [column_checks.text("looks.outcome", row[0]) for row in conn.execute(sql, (n,))]


def last_live_change_at(conn: Connection) -> float | None:
    """When the live version was changed last, in seconds since 1970 UTC; None: it never was."""
    at = scalar(conn, "SELECT at FROM moves ORDER BY id DESC LIMIT 1")
    return None if at is None else column_checks.seconds("moves.at", at)


class LiveChange(NamedTuple):
    """A change of the live version: its number, when it was made, and what is live since; None: nothing
    is."""

    id: int
    at: float
    current: Current | None


def record_live_change(conn: Connection, action: str, current: Current) -> None:
    """Append the intent to make a version live."""
    append_rows(conn, "moves", {"at": wall_clock.now(), "action": action, **vars(current)})


def record_none_live(conn: Connection) -> None:
    """Append that no version is live any more."""
    record_live_change(conn, "found", Current(_NONE))


def count_by_hand(conn: Connection) -> int:
    """How many changes of the live version came from no refresh: rollbacks, releases, edits of CURRENT."""
    return int(scalar(conn, "SELECT count(*) FROM moves WHERE action != 'promote'"))


def was_intended(conn: Connection, current: Current) -> bool:
    """Whether the journal has an intent to make exactly this live."""
    sql = "SELECT 1 FROM moves WHERE version = ? AND frozen_at IS ? AND held = ?"
    values = (current.version, current.frozen_at, int(current.held))
    return scalar(conn, sql, values) is not None


def last_live_change(conn: Connection) -> Current | None:
    """The live version according to the journal."""
    found = last_change(conn)
    return None if found is None else found.current


def last_change(conn: Connection) -> LiveChange | None:
    """The last change of the live version; None: there was none."""
    row = conn.execute(
        "SELECT id, at, version, frozen_at, held FROM moves ORDER BY id DESC LIMIT 1"
    ).fetchone()
    if row is None:
        return None
    version = column_checks.text("moves.version", row[2])
    frozen_at = column_checks.optional_whole("moves.frozen_at", row[3])
    held = column_checks.whole("moves.held", row[4])
    current = None if version == _NONE else Current(version, frozen_at, bool(held))
    number = column_checks.whole("moves.id", row[0])
    return LiveChange(number, column_checks.seconds("moves.at", row[1]), current)


def last_change_number(conn: Connection) -> int:
    """The number of the last change of the live version; 0: there was none."""
    return int(scalar(conn, "SELECT coalesce(max(id), 0) FROM moves"))
