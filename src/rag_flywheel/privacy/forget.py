"""Forgets a user: deletes their rows, then whatever was learned from them.

    delete rows -> build a version from the remaining log alone -> delete all versions built since the
    first of the user's votes, and votes on their questions -> write the database anew

The first step is one transaction that also records an intent; after a crash, the next refresh does
the remaining steps.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from rag_flywheel.curate.judgments import judgments
from rag_flywheel.deploy import prune
from rag_flywheel.deploy.current import read_current
from rag_flywheel.deploy.follow import locked
from rag_flywheel.deploy.promote import make_none_live
from rag_flywheel.deploy.prune import drop_dead_vectors, forget_progress
from rag_flywheel.deploy.shared import known_versions, manifest_of
from rag_flywheel.deploy.versions import version_folder
from rag_flywheel.disk import disk_errors
from rag_flywheel.errors import CorruptFileError, FlywheelError, StorageError, counted
from rag_flywheel.rank.raters import load_raters, weights_of
from rag_flywheel.records import ForgetReport, RefreshReport
from rag_flywheel.store import forgetting, votes
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database

log = logging.getLogger("rag_flywheel")
Rebuild = Callable[[], RefreshReport]
_WAIT_S = 10.0  # for the lock, and for readers of an older state of the database
_NOTHING = ForgetReport(0, 0, 0, 0, 0, None)


def forget(
    root: Path,
    database: Database,
    user: str,
    *,
    rebuild: Rebuild,
    tenant_key: str | None = None,
) -> ForgetReport:
    """Delete what is stored of a user, given as a hash, and everything that was learned from it.

    rebuild: builds a version from the remaining log alone; called with the refresh lock held. tenant_key:
    of the settings.
    Raises LockedError, StorageError; after an error that came once rows were deleted, the next
    refresh does the remaining steps.
    """
    with disk_errors(root), locked(root, database, wait_s=_WAIT_S):
        report = _deleted(root, database, user, tenant_key)
        _finish(root, database, rebuild)
        return replace(report, version=_live(root))


def finish_forgetting(root: Path, database: Database, *, rebuild: Rebuild) -> RefreshReport | None:
    """Do the remaining steps of an interrupted `forget`; None when there are none.

    Raises LockedError, StorageError.
    """
    with database.reading() as conn:
        if not forgetting.unfinished(conn):
            return None
    with disk_errors(root), locked(root, database):
        return _finish(root, database, rebuild)


def _deleted(root: Path, database: Database, user: str, tenant_key: str | None) -> ForgetReport:
    with database.reading() as conn:
        if not forgetting.has_rows_of(conn, user):
            return _NOTHING
    weights = _weights(root)
    with database.transaction() as conn:
        first, queries = (
            forgetting.first_event_of(conn, user),
            forgetting.queries_of_user(conn, user),
        )
        n_counted = _counting(conn, queries, weights)
        report = forgetting.delete_user(conn, user, tenant_key)
        n_counted -= _counting(conn, queries, weights)
        forgetting.record_forget(conn, "begun", report, first_event=first, n_counted=n_counted)
    log.info(
        "forget: %s, %s", counted(report.n_retrievals, "retrieval"), counted(report.n_votes, "vote")
    )
    return report


def _weights(root: Path) -> dict[str, float]:
    """What the votes of users weigh in the live version, by their hashes."""
    try:
        live = _live(root)
        return {} if live is None else weights_of(load_raters(version_folder(root, live)))
    except CorruptFileError:
        return {}


def _counting(conn: Connection, queries: list[bytes], weights: Mapping[str, float]) -> int:
    """How many votes on these queries count."""
    cast = votes.votes_on_queries(conn, queries, forgetting.MOST_EVENTS)
    return len({seq for judgment in judgments(cast, weights) for seq in judgment.votes})


def _live(root: Path) -> str | None:
    try:
        current = read_current(root)
    except CorruptFileError:
        return None  # the refresh that follows replaces it
    return None if current is None else current.version


def _is_from_before(root: Path, database: Database, version: str, event: int) -> bool:
    """Whether no vote from this event number on counted for a version."""
    try:
        return manifest_of(root, database, version).votes_until < event
    except FlywheelError:
        return False


def _finish(root: Path, database: Database, rebuild: Rebuild) -> RefreshReport | None:
    with database.reading() as conn:
        begun, first = forgetting.unfinished(conn), forgetting.first_unfinished_event(conn)
    if not begun or first is None:
        return None
    known = known_versions(root, database)
    kept = {version for version in known if _is_from_before(root, database, version, first)}
    report = rebuild()
    rejected = report.outcome == "rejected"
    if not rejected:
        kept.add(str(report.version))
    elif _live(root) not in kept:  # it must not stay either: nothing is live until the next refresh
        make_none_live(root, database)
    prune.delete_all_but(root, database, kept)
    prune.clean_staging(root, foreign=True)
    prune.clean_quarantine(root)
    prune.clean_strays(root)
    forget_progress(root)
    drop_dead_vectors(root, database)
    emptied = database.compact(wait_s=_WAIT_S)
    if rejected:
        raise StorageError(
            f"the user's rows and every version that learned from them are deleted, but the new "
            f"version failed its check: {report.reason}. Answers come from the database alone, or from "
            "an older version, until `rag-flywheel refresh` builds one; `rag-flywheel verify` tells "
            "what is wrong"
        )
    if not emptied:
        raise StorageError(
            f"the user's rows are deleted, but {database.path}-wal may still hold them: another "
            "program has been reading an older state of the database; end it, then run "
            "`rag-flywheel refresh` to finish"
        )
    with database.transaction() as conn:
        for each in begun:
            forgetting.record_forget(conn, "done", replace(each, version=report.version))
    return report
