"""Refreshes an index: builds a version and makes it live. No other module writes versions.

    embed passages without a vector -> build the indexes, from the version before where possible, and
    read them back -> learn parameters and memory from votes, and tune the encoder of queries when
    asked to -> check that sampled passages find themselves -> promote -> prune

A refresh that dies at any point leaves the live version serving; the next one cleans up.
"""

import logging
import time
from pathlib import Path

from rag_flywheel.curate.source import Source
from rag_flywheel.deploy import prune
from rag_flywheel.deploy import versions as deploy
from rag_flywheel.deploy.current import name_encoder, set_aside_foreign
from rag_flywheel.deploy.follow import locked
from rag_flywheel.deploy.prune import drop_dead_vectors
from rag_flywheel.deploy.shared import mend
from rag_flywheel.deploy.shared_settings import settle
from rag_flywheel.deploy.verify import note_checked
from rag_flywheel.disk import disk_errors
from rag_flywheel.encode.tower import TunableEncoder, require_tunable
from rag_flywheel.errors import (
    BusyError,
    DiskFullError,
    EncoderError,
    LockedError,
    StorageError,
    counted,
)
from rag_flywheel.evaluate.gate_file import tried_to_tune
from rag_flywheel.privacy.question_texts import drop_question_texts
from rag_flywheel.privacy.retention import FOLDED, fold_old
from rag_flywheel.privacy.wipe import wipe
from rag_flywheel.rank.raters import load_raters, weights_of
from rag_flywheel.records import RefreshReport
from rag_flywheel.refresh.due import When, nothing_to_do
from rag_flywheel.refresh.failures import Trace, traced
from rag_flywheel.refresh.job import Job, RunningJob, Tune
from rag_flywheel.refresh.looks import recount
from rag_flywheel.refresh.next_version import next_version
from rag_flywheel.refresh.start import Live, read_live, sound
from rag_flywheel.store import journal, mutes
from rag_flywheel.store.database import Database

log = logging.getLogger("rag_flywheel")
_MUTES = "mutes learned"  # the key of the event number
_PEOPLE = "memory_min_users learned"  # the key of the setting that the live version was built under
_WAIT_S = 2.0  # for readers of an older state of the database


def refresh(job: Job, when: When, *, tune: bool = False) -> RefreshReport:
    """Build the next version from everything in the store, and make it live.

    tune: tune the encoder of queries too, when a look of the gate is due. A version that fails its
    check is a result, "rejected", not an error. Raises LockedError when another process refreshes,
    and EncoderError when the encoder is to be tuned but cannot be.
    """
    with disk_errors(job.root), locked(job.root, job.database):
        return refresh_locked(job, when, tune=tune)


def refresh_locked(
    job: Job, when: When, *, anew: bool = False, tune: bool = False
) -> RefreshReport:
    """`refresh`, for the holder of the refresh lock.

    anew: refresh even when nothing is due, with parameters fitted without those of earlier versions, from
    the votes that the live ones rest on and that still count.
    """
    with traced(job.root, job.database) as trace, disk_errors(job.root):
        return _refresh(job, when, trace, anew=anew, tune=tune)


def _refresh(job: Job, when: When, trace: Trace, *, anew: bool, tune: bool) -> RefreshReport:
    began = time.monotonic()
    root, database = job.root, job.database
    if tune and job.config.store_queries == "hash":
        raise EncoderError(
            "the encoder is tuned to the words of questions, and config store_queries is 'hash': they are "
            "not stored. Refresh without tune"
        )
    settle(root, database, job.config)
    if left := prune.clean_staging(root):
        log.info("refresh: cleaned up after %d unfinished", left)
    set_aside_foreign(root, database)
    live = read_live(root, database)
    name_encoder(root, database)  # where what changed it was ended before it could
    mutes_until = _unlearned_mutes(database, live)
    people = _people_learned(database)
    changed = people != job.config.memory_min_users and _may_learn(live)
    fewer = changed and live.version is not None and people < job.config.memory_min_users
    anew = anew or mutes_until is not None or fewer
    asked = tune and _untried(root, live)
    language = job.config.language
    idle = None
    if not anew and not changed:
        lost = not _is_published(job, live)
        idle = nothing_to_do(database, live, when, tune=asked, language=language, lost=lost)
    live = sound(root, database, live, served=idle is not None)
    if idle is not None and live.manifest is not None:
        seconds = time.monotonic() - began
        report = RefreshReport("unchanged", live.version, "kept", idle, {}, seconds)
    else:
        trace.begin()
        encoder, config = job.load_encoder(), job.config
        source = Source(encoder, config)
        if tune:
            require_tunable(encoder).tower()  # better to fail before anything is built
        words = config.store_queries == "text"
        auto = config.tune == "auto" and words and not anew and isinstance(encoder, TunableEncoder)
        how: Tune = "asked" if tune else "auto" if auto else "off"
        if mutes_until is not None or fewer:  # what the gate let in rests on other votes
            recount(database, source, live.version)
        report = next_version(RunningJob(job, encoder, source, anew, how), live, began)
        if report.outcome == "promoted":
            if fewer:  # older versions hold what fewer people said
                prune.prune(root, database, keep=0, never={str(report.version)})
            with database.transaction() as conn:
                if mutes_until is not None:
                    journal.write_meta(conn, _MUTES, str(mutes_until))
                if changed:
                    journal.write_meta(conn, _PEOPLE, str(job.config.memory_min_users))
    try:
        finish(job, live, report)
    except (StorageError, LockedError) as error:
        if anew or report.outcome != "promoted":
            raise
        log.warning("refresh: %s is live; the rest has to wait: %s", report.version, error)
    if report.outcome == "promoted" and report.version is not None:
        # its files were hashed and read back; what was deleted since had links to some of them
        note_checked(root, database, report.version)
    log.info("refresh: %s: %s (%.1f s)", report.outcome, report.reason, report.seconds)
    return report


def finish(job: Job, live: Live, report: RefreshReport) -> None:
    """Record a refresh and delete what is no longer needed; on an error its version stays live."""
    with job.database.transaction() as conn:
        journal.record_refresh(conn, report)
    if report.outcome != "promoted":
        mend(job.root, job.database)
    else:
        never = {v for v in (report.version, live.current and live.current.version) if v}
        for version in prune.prune(
            job.root, job.database, keep=job.config.keep_versions, never=never
        ):
            log.info("refresh: pruned version %s", version)
        for version in prune.prune_unreadable(job.root, job.database, never={str(report.version)}):
            log.info("refresh: deleted version %s, which an earlier release built", version)
        prune.drop_derived(job.root, never={str(report.version)})
        if job.published is not None:
            job.published.clean(job.root, job.database)
    drop_dead_vectors(job.root, job.database)
    _fold(job, live, report)
    if job.config.store_queries == "hash":
        drop_question_texts(job.database)


def _is_published(job: Job, live: Live) -> bool:
    """Whether the live version is where passages are found. Raises EngineError."""
    if job.published is None or live.manifest is None:
        return True
    if not job.published.holds(job.root, live.manifest):
        return False
    return job.published.lacks(job.root, live.manifest) is None


def _unlearned_mutes(database: Database, live: Live) -> int | None:
    """The number of the last event by which users were muted or heard again, when the live version has
    not been learned anew since; None also while a rollback keeps parameters as they are."""
    if live.current is None or not _may_learn(live):
        return None
    with database.reading() as conn:
        last, learned = mutes.last_change(conn), journal.read_meta(conn, _MUTES)
    done = int(learned) if learned is not None and learned.isascii() and learned.isdigit() else 0
    return last if last > done else None


def _may_learn(live: Live) -> bool:
    """Whether no rollback keeps parameters as they are."""
    return live.frozen_at is None and not (live.current is not None and live.current.held)


def _people_learned(database: Database) -> int:
    """How many people it took, when the live version was built, for what they said to move rankings."""
    with database.reading() as conn:
        text = journal.read_meta(conn, _PEOPLE)
    return int(text) if text is not None and text.isascii() and text.isdigit() else 1


def _untried(root: Path, live: Live) -> bool:
    """Whether the live version was built without trying to tune, from votes that all count."""
    if live.manifest is None or live.frozen_at is not None:
        return False
    return not tried_to_tune(deploy.version_folder(root, live.manifest.id))


def _fold(job: Job, live: Live, report: RefreshReport) -> None:
    """Make anonymous the retrievals older than the settings allow, with votes the version counted.

    This comes last, since it leaves the judgments as they are, and a refresh that dies before it has
    lost no vote that the live version did not count.
    """
    days = job.config.retention_days
    if days is None:
        return
    manifest = live.manifest
    if report.outcome == "promoted" and report.version is not None:
        manifest = deploy.read_manifest(job.root, report.version)
    until = manifest.votes_until if manifest is not None else 0
    weights: dict[str, float] = {}
    if manifest is not None:
        weights = weights_of(load_raters(deploy.version_folder(job.root, manifest.id)))
    if n := fold_old(job.database, job.config, days=days, until=until, weights=weights):
        log.info("refresh: folded %s older than %g days", counted(n, "retrieval"), days)
    try:
        emptied = wipe(job.database, FOLDED, wait_s=_WAIT_S)
    except (BusyError, DiskFullError) as error:
        log.warning("refresh: what was folded is in unused bytes until the next refresh: %s", error)
        return
    if not emptied:
        log.warning(
            "refresh: %s-wal may still hold what was folded, until the next refresh: another program has "
            "been reading an older state of the database",
            job.database.path,
        )
