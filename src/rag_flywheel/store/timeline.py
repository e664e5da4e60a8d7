"""Ties index versions to the database that they were built from.

Event and passage numbers repeat when an old copy of the database takes the place of a newer one. So a
version and the database share a random token: a database that holds it also holds every event before
the build, since SQLite loses none but the newest commits. The timeline is another random name, which a
restore changes, so that a running process notices that its events are no longer those of the database.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from rag_flywheel.store import column_checks, journal, wall_clock
from rag_flywheel.store.column_checks import HASH_BYTES
from rag_flywheel.store.connection import Connection, scalar
from rag_flywheel.store.passages import ALL_PRESENT

_FROM = "timeline_goes_on"
"""The key of [the timeline before, its newest event, the timeline that goes on from there], in `meta`."""


class Moment(NamedTuple):
    """A state of the database: the number of its newest event, on its timeline."""

    timeline: str
    seq: int


def read_moment(conn: Connection) -> Moment:
    """The state of the database, by one small query."""
    timeline, seq = conn.execute("SELECT timeline, seq FROM clock").fetchone() or (None, None)
    return Moment(
        column_checks.text("clock.timeline", timeline), column_checks.whole("clock.seq", seq)
    )


def read_moment_and_change(conn: Connection) -> tuple[Moment, int]:
    """The same, with the number of the last change of the live version, 0: there was none; by one query."""
    sql = "SELECT timeline, seq, (SELECT coalesce(max(id), 0) FROM moves) FROM clock"
    timeline, seq, change = conn.execute(sql).fetchone() or (None, None, None)
    moment = Moment(
        column_checks.text("clock.timeline", timeline), column_checks.whole("clock.seq", seq)
    )
    return moment, column_checks.whole("moves.id", change)


def begin_timeline(conn: Connection, *, goes_on: bool = False) -> None:
    """Make the events from now on others than those that any process knows.

    goes_on: all up to the newest one stay what they were, as after a crash that may have taken later ones.
    """
    before, token = read_moment(conn), new_token()
    conn.execute("UPDATE clock SET timeline = ?", (token,))
    if goes_on:
        journal.write_meta(conn, _FROM, json.dumps([*before, token]))


def is_of(conn: Connection, moment: Moment) -> bool:
    """Whether the events up to this moment are those of the database."""
    timeline = read_moment(conn).timeline
    if timeline == moment.timeline:
        return True
    noted = journal.read_meta(conn, _FROM)
    found = None if noted is None else column_checks.parsed(f"meta {_FROM!r}", noted)
    if not isinstance(found, list) or len(found) != 3:
        return False
    before, seq, after = found
    return [before, after] == [moment.timeline, timeline] and moment.seq <= seq


def new_token() -> str:
    """32 random hex digits."""
    return secrets.token_hex(16)


def record_build(conn: Connection, version: str, token: str) -> None:
    """Note that a version was built from this database; before it can be found on the disk."""
    conn.execute(
        "INSERT INTO builds (version, token, at) VALUES (?, ?, ?) "
        "ON CONFLICT (version) DO UPDATE SET token = excluded.token, at = excluded.at",
        (version, token, wall_clock.now()),
    )


def token_of(conn: Connection, version: str) -> str | None:
    """The token of a version that was built from this database; None for any other."""
    value = scalar(conn, "SELECT token FROM builds WHERE version = ?", (version,))
    return column_checks.optional_text("builds.token", value)


def builds(conn: Connection) -> list[str]:
    """The versions that were built from this database, the oldest first: where hosts have folders of their
    own, those that were not deleted since."""
    rows = conn.execute("SELECT version FROM builds ORDER BY version")
    return [column_checks.text("builds.version", row[0]) for row in rows]


def drop_builds(conn: Connection, versions: Iterable[str]) -> None:
    """Note no more that these versions were built from this database."""
    conn.executemany("DELETE FROM builds WHERE version = ?", [(version,) for version in versions])


def digest_now(conn: Connection) -> str:
    """A digest of (number, text) of the passages that are in the index now."""
    return _digest(conn.execute(f"SELECT pid, text_hash FROM {ALL_PRESENT}").fetchall())


def digest_at(conn: Connection, seq: int) -> str:
    """The same of those that were in the index at event number `seq`; reads every row."""
    rows = conn.execute(
        "SELECT pid, text_hash FROM passages WHERE origin = 'index' AND born <= ? "
        "AND (ended IS NULL OR ended > ?)",
        (seq, seq),
    )
    return _digest(rows.fetchall())


def _digest(rows: list[tuple[int, bytes]]) -> str:
    hashes = [column_checks.hashed("passages.text_hash", text_hash) for _, text_hash in rows]
    names = np.frombuffer(b"".join(hashes), dtype=f"V{HASH_BYTES}")
    both = np.empty(len(rows), dtype=[("pid", "<i8"), ("text", f"V{HASH_BYTES}")])
    both["pid"], both["text"] = [pid for pid, _ in rows], names
    ordered = both[np.argsort(both["pid"])]
    return hashlib.blake2b(ordered.tobytes(), digest_size=16).hexdigest()
