"""Lists the past changes of an index as sentences, from the tables that are only appended to."""

import json
from collections.abc import Iterable

from rag_flywheel.errors import counted
from rag_flywheel.records import ALL_TENANTS, TenantScope
from rag_flywheel.store import attempts
from rag_flywheel.store.connection import Connection

Entry = tuple[float, str, str]
"""(seconds since 1970, kind, text)."""
KILLED = (
    "it was killed, or the machine stopped, before it ended",
    "nothing after one: the next refresh cleans up; where it happens again, see the memory it has and "
    "the time that whatever runs it allows",
)
"""Why a refresh that began did not end, and what to do."""
_ATTEMPTS = 1_000  # that failures are looked for in
_ARMS = {
    "weights": "new parameters",
    "encoder": "tuned encoder",
    "change": "the change of the encoder",
}
_WITHOUT_TEST = {
    "withdrawn": "{}: withdrawn, since votes behind them do not count any more; the looks before count on",
    "recounted": "{}: fewer votes count than at the last look, so the next one needs fewer",
}


def entries(conn: Connection, n: int, scope: TenantScope = ALL_TENANTS) -> list[Entry]:
    """The n newest, the newest first; reviews and pins are those in the scope."""
    found = [entry for source in _SOURCES for entry in source(conn, n)]
    found += [entry for source in (_reviews, _pins) for entry in source(conn, n, scope)]
    return sorted(found, key=lambda entry: -entry[0])[:n]


def _live_changes(conn: Connection, n: int) -> Iterable[Entry]:
    rows = conn.execute(
        "SELECT at, action, version, frozen_at, held, (SELECT reason FROM refreshes r WHERE "
        "r.version = m.version AND r.outcome = 'promoted' LIMIT 1) FROM moves m "
        "ORDER BY id DESC LIMIT ?",
        (n,),
    )
    for at, action, version, frozen_at, held, reason in rows:
        text = f"{version or 'no version'} is live"
        if action == "promote" and reason:
            text += f": {reason}"
        if frozen_at is not None:
            text += f"; votes after event {frozen_at} are held back"
        if held:
            text += "; held until release"
        yield float(at), "promoted" if action == "promote" else action, text


def _rejections(conn: Connection, n: int) -> Iterable[Entry]:
    rows = conn.execute(
        "SELECT at, reason FROM refreshes WHERE outcome = 'rejected' ORDER BY id DESC LIMIT ?", (n,)
    )
    for at, reason in rows:
        yield float(at), "rejected", f"the new version failed its check: {reason}"


def _forgets(conn: Connection, n: int) -> Iterable[Entry]:
    rows = conn.execute("SELECT at, state, report FROM forgets ORDER BY id DESC LIMIT ?", (n,))
    for at, state, report in rows:
        found = json.loads(report)
        retrievals, votes = found["n_retrievals"], found["n_votes"]
        text = (
            f"{state}: a user with {counted(retrievals, 'retrieval')} and {counted(votes, 'vote')}"
        )
        yield float(at), "forget", text


def _reviews(conn: Connection, n: int, scope: TenantScope) -> Iterable[Entry]:
    within, values = scope.sql("v.tenant")
    rows = conn.execute(
        "SELECT v.at, v.decision, p.id, v.query FROM reviews v JOIN passages p ON p.pid = v.pid "
        f"WHERE 1 = 1{within} ORDER BY v.seq DESC LIMIT ?",
        (*values, n),
    )
    for at, decision, passage, query in rows:
        of = repr(query) if query else "a question whose words are not stored"
        yield float(at), "review", f"{decision}: passage {passage!r} for {of}"


def _pins(conn: Connection, n: int, scope: TenantScope) -> Iterable[Entry]:
    within, values = scope.sql("g.tenant")
    rows = conn.execute(
        "SELECT g.at, g.grade, p.id, g.query FROM golden g JOIN passages p ON p.pid = g.pid "
        f"WHERE g.source = 'pinned'{within} ORDER BY g.seq DESC LIMIT ?",
        (*values, n),
    )
    for at, grade, passage, query in rows:
        action = "pin" if grade else "unpin"
        yield float(at), "pin", f"{action}: passage {passage!r} for {query!r}"


def _looks(conn: Connection, n: int) -> Iterable[Entry]:
    rows = conn.execute(
        "SELECT at, version, n_votes, p, outcome, arm FROM looks ORDER BY id DESC LIMIT ?", (n,)
    )
    for at, version, n_votes, p, outcome, arm in rows:
        if outcome == "reset":
            text = "the gate counts its looks from the beginning again"
        elif outcome in _WITHOUT_TEST:
            text = _WITHOUT_TEST[outcome].format(_ARMS[arm])
        else:
            chance = "" if p is None else f", p = {p:.3g}"
            text = (
                f"{_ARMS[arm]} of {version}: {outcome}, {counted(n_votes, 'vote')} so far{chance}"
            )
        yield float(at), "look", text


def _failures(conn: Connection, n: int) -> Iterable[Entry]:
    every = attempts.newest(conn, _ATTEMPTS)
    for attempt in [attempt for attempt in every if attempt.state != "ended"][:n]:
        if attempt.state == "failed":
            yield (
                attempt.over_at or attempt.at,
                "failed",
                failure_text(attempt.reason, attempt.to_do),
            )
        elif attempt is every[0]:
            yield attempt.at, "begun", "a refresh began; it goes on, or was killed"
        else:
            yield attempt.at, "failed", failure_text(*KILLED)


def failure_text(reason: str | None, to_do: str | None) -> str:
    """The sentence on a refresh that failed."""
    return f"a refresh failed: {reason}; to do: {to_do}"


_SOURCES = (_live_changes, _rejections, _forgets, _looks, _failures)
