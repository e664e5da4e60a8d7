"""Checks of `health` on refreshes: whether they run, succeed, and learn."""

import fcntl
import os
from pathlib import Path

from rag_flywheel.deploy.failure_file import noted_failures
from rag_flywheel.deploy.lock import FILE_NAME as LOCK
from rag_flywheel.errors import counted
from rag_flywheel.rank.posterior import NOISE_LIMIT
from rag_flywheel.records import HealthCheck
from rag_flywheel.report.health_of_versions import Live
from rag_flywheel.store import attempts, history, journal, votes, wall_clock
from rag_flywheel.store.attempts import Attempt
from rag_flywheel.store.database import Database

_LOOKED_AT = 100  # refreshes
_LONG_S = 6 * 3_600.0  # a refresh that runs longer may hang
_WAIT_S = 7 * 86_400.0  # votes that wait longer are not refreshed
_VETOES = 3  # in a row, which are no chance any more
_LOCKS = Path("/proc/locks")


def lock(root: Path) -> HealthCheck:
    """Whether a refresh can take its lock, or has it."""
    name, expected, path = "refresh lock", "a file, held only while a refresh runs", root / LOCK
    if path.is_symlink() or (path.exists() and not path.is_file()):
        return HealthCheck(name, "degraded", f"{LOCK} is a link or no file", expected, f"rm {path}")
    holder = lock_holder(root)
    said = "it is free" if holder is None else f"process {holder} holds it"
    return HealthCheck(name, "ok", said, expected)


def lock_holder(root: Path) -> int | None:
    """The process that holds the refresh lock, by Linux's own list; None: none, or it cannot be told.

    The lock itself is not tried: a refresh that begins at that moment would find it taken.
    """
    try:
        found = (root / LOCK).stat()
        lines = _LOCKS.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in lines:
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5] == place:
            return int(words[4])
    return None


def refreshes(root: Path, database: Database, max_age_s: float | None) -> HealthCheck:
    """How the last refreshes went, and how long ago that was."""
    name, expected = "refreshes", "that the last one did not fail"
    if max_age_s is not None:
        expected += f" and ended at most {_age(max_age_s)} ago"
    with database.snapshot() as conn:
        every = attempts.newest(conn, _LOOKED_AT)
        row = journal.last_result(conn)
    running = bool(every) and every[0].state == "open" and _goes_on(root)
    done_at = max([each.over_at or 0.0 for each in every if each.state == "ended"], default=0.0)
    done_at = max(done_at, row[0] if row else 0.0)
    failed = [each for each in every[int(running) :] if each.state != "ended" and each.at > done_at]
    words = [(each.over_at or each.at, *_words(each)) for each in failed]
    words += [
        (each.at, each.reason, each.to_do) for each in noted_failures(root) if each.at > done_at
    ]
    if words:
        at, reason, to_do = max(words)
        n = counted(len(words), "refresh", "refreshes")
        said = f"{n} failed in a row; the last one {_ago(at)}: {reason}"
        return HealthCheck(name, "degraded", said, expected, to_do)
    if running and wall_clock.now() - every[0].at > _LONG_S:
        said = f"one has been running for {_age(wall_clock.now() - every[0].at)}"
        return HealthCheck(
            name, "degraded", said, expected, f"see what process {every[0].pid} does, or end it"
        )
    if row is None:
        said = "one is running" if running else "none has run yet"
        return HealthCheck(name, "ok", said, expected)
    return _last(name, expected, row, running, max_age_s)


def _last(
    name: str, expected: str, row: tuple[float, str, str], running: bool, max_age_s: float | None
) -> HealthCheck:
    at, outcome, reason = row
    said = f"the last one ended {_ago(at)}: {outcome}" + ("; one is running" if running else "")
    if outcome == "rejected":
        to_do = "`rag-flywheel verify`; the version before it is live"
        return HealthCheck(name, "degraded", f"{said}, {reason}", expected, to_do)
    if max_age_s is not None and wall_clock.now() - at > max_age_s and not running:
        to_do = "see that cron or the timer runs `rag-flywheel refresh`"
        return HealthCheck(name, "degraded", said, expected, to_do)
    return HealthCheck(name, "ok", said, expected)


def _words(attempt: Attempt) -> tuple[str, str]:
    if attempt.state == "failed" and attempt.reason is not None:
        return attempt.reason, attempt.to_do or ""
    return history.KILLED


def _goes_on(root: Path) -> bool:
    """Whether some process holds the refresh lock.

    It is asked for in order to share it, for a moment: a refresh that begins at that moment is told that
    it is taken, and comes again.
    """
    try:
        descriptor = os.open(
            root / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def learning(database: Database) -> HealthCheck:
    """Whether the last version learned from votes, or found too many of them wrong."""
    name, expected = "learning", f"at most {NOISE_LIMIT:.0%} of votes that look wrong"
    with database.snapshot() as conn:
        noise = journal.last_noise(conn)
    if noise is None:
        return HealthCheck(name, "ok", "no weights were fitted to votes yet", expected)
    said = f"{noise:.0%} of votes look wrong"
    if noise > NOISE_LIMIT:
        to_do = "see who votes with `rag-flywheel raters`, and leave out with `mute` who votes by chance"
        return HealthCheck(
            name, "degraded", f"{said}: nothing is learned from them", expected, to_do
        )
    return HealthCheck(name, "ok", said, expected)


def gate(database: Database) -> HealthCheck:
    """Whether the gate keeps refusing weights that gain, because something else loses by them."""
    name, expected = "gate", f"fewer than {_VETOES} vetoes in a row"
    with database.snapshot() as conn:
        outcomes = journal.last_outcomes(conn, _LOOKED_AT)
    n = next((i for i, outcome in enumerate(outcomes) if outcome != "vetoed"), len(outcomes))
    if n >= _VETOES:
        to_do = "`rag-flywheel versions --explain ID` says which queries would lose"
        return HealthCheck(
            name, "degraded", f"{n} vetoes in a row: weights stay as they are", expected, to_do
        )
    last = f"its last decision: {outcomes[0]}" if outcomes else "it has not decided yet"
    return HealthCheck(name, "ok", last, expected)


def votes_waiting(database: Database, live: Live) -> HealthCheck:
    """How many votes came since the live version was built, and for how long they wait.

    They act on their own question at once; what waits is what is learned from them.
    """
    name, expected = "votes that wait", f"none that waits for a refresh longer than {_age(_WAIT_S)}"
    after = live.manifest.watermark if live.manifest is not None else 0
    with database.snapshot() as conn:
        n, first = votes.waiting(conn, after)
    if not n:
        return HealthCheck(name, "ok", "none", expected)
    said = f"{counted(n, 'vote')}, the first {_ago(first)}"
    if live.current is not None and live.current.frozen_at is not None:
        return HealthCheck(name, "ok", f"{said}, held back until `rag-flywheel release`", expected)
    if wall_clock.now() - first > _WAIT_S:
        return HealthCheck(
            name, "degraded", said, expected, "`rag-flywheel refresh`, from cron best"
        )
    return HealthCheck(name, "ok", said, expected)


def _ago(at: float) -> str:
    return f"{_age(max(wall_clock.now() - at, 0.0))} ago"


def _age(seconds: float) -> str:
    for unit, n in (("day", 86_400.0), ("hour", 3_600.0), ("minute", 60.0)):
        if seconds >= n:
            return counted(round(seconds / n), unit)
    return counted(round(seconds), "second")
