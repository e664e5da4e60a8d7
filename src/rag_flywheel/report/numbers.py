"""The numbers of an index that monitoring follows, read in some milliseconds and not at every question."""

import bisect
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rag_flywheel.deploy.current import live_of
from rag_flywheel.deploy.versions import read_manifest
from rag_flywheel.errors import FlywheelError
from rag_flywheel.report.health import exit_code, health
from rag_flywheel.report.health_of_refreshes import lock_holder
from rag_flywheel.report.status import bytes_below
from rag_flywheel.store import attempts, journal, passages, votes, wall_clock
from rag_flywheel.store.database import Database

BOUNDS = (1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0)
"""Seconds up to which refreshes are counted."""
_LOOKED_AT = 100  # refreshes


@dataclass(frozen=True)
class IndexNumbers:
    """The numbers of an index.

    health: 0 ok, 1 degraded, 2 broken.
    n_votes_waiting: votes since the live version was built.
    last_success: when the last refresh ended that did not fail, in seconds since 1970, UTC; None: none did.
    n_failures: refreshes that failed in a row, up to now.
    running_s: how long a refresh has been running, 0: none.
    gate_lift: the gain of the weights that the gate tested last, None: it tested none.
    promotions, gate_decisions: counts by outcome, of all time.
    n_refreshes, refresh_buckets, refresh_seconds: the refreshes that came to a result, of all time; (seconds,
        how many of them took no longer); what all of them took.
    """

    n_passages: int
    bytes_on_disk: int
    bytes_free: int
    health: int
    n_votes_waiting: int
    last_success: float | None
    n_failures: int
    running_s: float
    gate_lift: float | None
    promotions: Mapping[str, int] = field(default_factory=dict)
    gate_decisions: Mapping[str, int] = field(default_factory=dict)
    n_refreshes: int = 0
    refresh_buckets: tuple[tuple[float, int], ...] = ()
    refresh_seconds: float = 0.0


def numbers(root: Path, database: Database) -> IndexNumbers:
    """The numbers of the index folder at `root`. Raises StorageError, CorruptFileError."""
    found = health(root, read_only=database.read_only)
    live = live_of(root, database)
    try:
        after = read_manifest(root, live.version).watermark if live is not None else 0
    except FlywheelError:  # which health has
        after = 0
    space = os.statvfs(root)
    with database.snapshot() as conn:
        ended = journal.refreshes(conn)
        newest = attempts.newest(conn, _LOOKED_AT)
        n_failed = attempts.count_failed(conn)
        outcomes = Counter(each.outcome for each in ended)
        seconds = sorted(each.seconds for each in ended)
        n_passages = passages.count_passages(conn)
        n_waiting = votes.count_votes(conn, after=after)
        decisions = journal.count_looks(conn)
    running = bool(newest) and newest[0].state == "open" and lock_holder(root) is not None
    last_success = max((each.at for each in ended if each.outcome != "rejected"), default=None)
    lifts = [each.gain for each in ended if each.gain is not None]
    return IndexNumbers(
        n_passages=n_passages,
        bytes_on_disk=bytes_below(root),
        bytes_free=space.f_bavail * space.f_frsize,
        health=exit_code(found),
        n_votes_waiting=n_waiting,
        last_success=last_success,
        n_failures=_failed_in_a_row(newest[int(running) :]),
        running_s=max(0.0, wall_clock.now() - newest[0].at) if running else 0.0,
        gate_lift=lifts[-1] if lifts else None,
        promotions={**outcomes, "failed": n_failed},
        gate_decisions=decisions,
        n_refreshes=len(seconds),
        refresh_buckets=tuple((bound, bisect.bisect_right(seconds, bound)) for bound in BOUNDS),
        refresh_seconds=sum(seconds),
    )


def _failed_in_a_row(newest: list[attempts.Attempt]) -> int:
    """How many of the newest attempts failed, or were killed, since one ended."""
    states = [each.state for each in newest]
    return states.index("ended") if "ended" in states else len(states)
