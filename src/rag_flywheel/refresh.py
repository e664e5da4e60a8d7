"""Refresh: the only writer of index versions. It walks the rooms in the order of the loop.

    embed what has no vector -> build the indexes -> learn parameters and memory from votes -> read
    the new version back and let sampled passages find themselves -> promote -> prune

A refresh that dies at any point leaves the live version serving; the next one cleans up.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rag_flywheel.build import (
    Built,
    build_indexes,
    built_indexes,
    version_problems,
    write_learned,
)
from rag_flywheel.config import Config
from rag_flywheel.corpus import embed
from rag_flywheel.deploy import versions as deploy
from rag_flywheel.deploy.lock import refresh_lock
from rag_flywheel.deploy.moves import make_live, reconcile
from rag_flywheel.deploy.versions import Manifest
from rag_flywheel.disk import disk_errors
from rag_flywheel.errors import CorruptFileError
from rag_flywheel.improve.learn import Learned
from rag_flywheel.index.encoder import Encoder, encode
from rag_flywheel.learning import Known, learned_from_votes, read_past
from rag_flywheel.rank.parameters import FILE_NAME, Parameters
from rag_flywheel.records import Current, Outcome, Progress, RefreshReport
from rag_flywheel.retention import fold_old
from rag_flywheel.serve.candidates import Lookups
from rag_flywheel.serve.loaded import load_parameters, load_version
from rag_flywheel.serve.state import Judge
from rag_flywheel.store import counts, events, journal, passages
from rag_flywheel.store.database import Database

log = logging.getLogger("rag_flywheel")


@dataclass(frozen=True)
class When:
    """When a refresh is due, if anything changed: at this many new votes, or at this age.

    Neither given: whenever anything changed. Both: when either is reached.
    """

    if_votes: int | None = None
    max_age_s: float | None = None


@dataclass(frozen=True)
class Job:
    """The index folder that is refreshed, its settings, encoder, how votes are judged in it, what is
    remembered of its queries, and who is told how far it is."""

    root: Path
    database: Database
    config: Config
    load_encoder: Callable[[], Encoder]
    judge: Judge
    lookups: Lookups
    progress: Progress | None = None


@dataclass(frozen=True)
class _Live:
    """What is live; manifest is None when nothing is, or when its files are not sound."""

    current: Current | None
    manifest: Manifest | None

    @property
    def frozen_at(self) -> int | None:
        """The event number that evidence is frozen at."""
        return self.current.frozen_at if self.current is not None else None


@dataclass(frozen=True)
class _Folder:
    """A Job under way: its encoder is there, and what is known of queries; anew: parameters are
    learned from the shipped ones, as if no version had been before."""

    root: Path
    database: Database
    encoder: Encoder
    judge: Judge
    known: Known
    anew: bool


def refresh(job: Job, when: When) -> RefreshReport:
    """Build the next version from everything in the store, and make it live.

    Raises LockedError when another process refreshes. A version that fails its check is a result,
    "rejected", not an error.
    """
    with disk_errors(job.root), refresh_lock(job.root):
        return refresh_locked(job, when)


def refresh_locked(job: Job, when: When, *, anew: bool = False) -> RefreshReport:
    """`refresh`, for the holder of the refresh lock.

    anew: whatever is due, and with parameters that owe nothing to those of earlier versions.
    """
    began = time.monotonic()
    root, database = job.root, job.database
    if left := deploy.clean_staging(root):
        log.info("refresh: cleaned up after %d unfinished", left)
    live = _look(root, database)
    idle = None if anew else _nothing_to_do(database, live, when)
    if idle is not None:
        report = _report("unchanged", live, idle, began)
    else:
        known = Known(job.lookups, job.config.n_candidates)
        folder = _Folder(root, database, job.load_encoder(), job.judge, known, anew)
        report = _next_version(folder, live, began, job.progress)
    with database.transaction() as conn:
        journal.record_refresh(conn, report)
    if report.outcome == "promoted":
        never = {v for v in (report.version, live.current and live.current.version) if v}
        for version in deploy.prune(root, keep=job.config.keep_versions, never=never):
            log.info("refresh: pruned version %s", version)
    _fold(job, live, report)
    log.info("refresh: %s: %s (%.1f s)", report.outcome, report.reason, report.seconds)
    return report


def _fold(job: Job, live: _Live, report: RefreshReport) -> None:
    """Fold what is older than the settings say, of what the live version has heard.

    Last, since folding leaves the judgments as they are, and a refresh that dies before it has lost
    no vote that the live version does not know.
    """
    days = job.config.retention_days
    if days is None:
        return
    manifest = live.manifest
    if report.outcome == "promoted" and report.version is not None:
        manifest = deploy.read_manifest(job.root, report.version)
    heard = manifest.votes_until if manifest is not None else 0
    if n := fold_old(job.database, job.judge, days=days, heard=heard):
        log.info("refresh: folded %d retrievals older than %g days", n, days)


def _look(root: Path, database: Database) -> _Live:
    try:
        current = deploy.read_current(root)
    except CorruptFileError as error:
        log.warning("refresh: %s", error)
        current = None
    if current is None:
        with database.reading() as conn:
            return _Live(journal.last_move(conn), None)  # what it was: rollbacks stay in force
    reconcile(root, database)
    problems = deploy.check(root, current.version)
    if problems:
        log.warning("refresh: the live version is not sound, all is built anew: %s", problems[0])
        return _Live(current, None)
    manifest = deploy.read_manifest(root, current.version)
    try:
        load_version(
            deploy.version_folder(root, manifest.id),
            version=manifest.id,
            watermark=manifest.watermark,
            dim=manifest.dim,
            n_passages=manifest.n_passages,
        )
    except CorruptFileError as error:  # whole, but not as this release has it
        log.warning("refresh: the live version cannot be read, all is built anew: %s", error)
        return _Live(current, None)
    return _Live(current, manifest)


def _nothing_to_do(database: Database, found: _Live, when: When) -> str | None:
    """Why a refresh is not due; None when it is. Votes that a release let count again are new."""
    live = found.manifest
    if live is None:
        return None
    if found.current is not None and found.current.held:
        return f"version {live.id} is held live until release"
    heard = live.votes_until if found.frozen_at is None else live.watermark
    with database.snapshot() as conn:
        votes = events.count_votes(conn, heard)
        changes = counts.corpus_changes(conn, live.watermark)
    age_s = time.time() - live.created
    if not votes and not changes:
        return "no passage and no vote since the live version was built"
    enough = when.if_votes is not None and votes >= when.if_votes
    old = when.max_age_s is not None and age_s >= when.max_age_s
    if enough or old or when == When():
        return None
    return (
        f"not due: {votes} new votes (asked for: {when.if_votes}), live version {age_s:.0f} s old "
        f"(asked for: {when.max_age_s})"
    )


def _next_version(
    folder: _Folder, live: _Live, began: float, progress: Progress | None
) -> RefreshReport:
    root, database, encoder = folder.root, folder.database, folder.encoder
    n_embedded = _embed(folder, progress)
    staged = deploy.stage(root)
    try:
        parent = _parent(root, live, encoder)
        built = build_indexes(staged, database, encoder, parent=parent, progress=progress)
        log.info(
            "refresh: %s indexes of %d passages",
            "linked the unchanged" if built.linked else "built the",
            len(built.pids),
        )
        kept = Parameters() if folder.anew else _live_parameters(root, live)
        learned = _learn(folder, staged, built, live, kept, progress)
        write_learned(staged, learned.parameters, learned.memory)
        manifest = deploy.seal(staged, _manifest(folder, live, built))
        problems = version_problems(staged, database, encoder, built, manifest.id)
        if problems:
            return _report("rejected", live, problems[0], began)
        log.info("refresh: read the new version back, sampled passages find themselves")
        deploy.publish(root, staged, manifest.id)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    held = live.current is not None and live.current.held  # rebuilt, its files being damaged
    current = Current(manifest.id, live.frozen_at, held)
    make_live(root, database, "promote", current)
    reason = f"{len(built.pids)} passages" + (", none changed" if built.linked else "")
    scores = {"n_passages": float(len(built.pids)), "n_embedded": float(n_embedded)}
    return _report(
        "promoted",
        _Live(current, manifest),
        f"{reason}; {learned.why}",
        began,
        {**scores, **learned.scores},
        new=learned.parameters != kept,
    )


def _embed(folder: _Folder, progress: Progress | None) -> int:
    with folder.database.reading() as conn:
        lacking = {
            t.text_hash: passages.encoded_text(t.passage)
            for t in passages.without_vector(conn, folder.encoder.revision)
        }
    n_embedded = embed(folder.database, folder.encoder, lacking, progress)
    log.info("refresh: embedded %d passages that had no vector", n_embedded)
    return n_embedded


def _learn(
    folder: _Folder,
    staged: Path,
    built: Built,
    live: _Live,
    kept: Parameters,
    progress: Progress | None,
) -> Learned:
    """What votes teach; while some are held back by a rollback, parameters stay as they are, unless
    they are learned anew: then from the votes that are not."""
    encoder, frozen_at = folder.encoder, live.frozen_at
    until = built.watermark if frozen_at is None else min(built.watermark, frozen_at)
    past = read_past(
        folder.database,
        folder.judge,
        encoder.revision,
        lambda texts: encode(encoder.encode_queries, texts, encoder.dim),
        until=until,
    )
    version = built_indexes(staged, encoder, built, kept)
    learned = learned_from_votes(
        folder.database,
        version,
        past,
        folder.known,
        fit=frozen_at is None or folder.anew,
        progress=progress,
    )
    log.info("refresh: %s", learned.why)
    return learned


def _live_parameters(root: Path, live: _Live) -> Parameters:
    """The live parameters, else the newest older ones that are sound, else the shipped ones."""
    if live.current is None:
        return Parameters()
    older = [v for v in reversed(deploy.list_versions(root)) if v < live.current.version]
    for version in (live.current.version, *older):
        try:
            if deploy.sound_file(root, version, FILE_NAME):
                return load_parameters(deploy.version_folder(root, version))
            why = f"{version}/{FILE_NAME} is missing or not what its manifest says"
        except CorruptFileError as error:
            why = str(error)
        log.warning("refresh: parameters not used: %s", why)
    return Parameters()


def _parent(root: Path, live: _Live, encoder: Encoder) -> tuple[Path, int] | None:
    manifest = live.manifest
    if manifest is None or (manifest.revision, manifest.dim) != (encoder.revision, encoder.dim):
        return None
    return deploy.version_folder(root, manifest.id), manifest.watermark


def _manifest(folder: _Folder, live: _Live, built: Built) -> Manifest:
    encoder, frozen_at = folder.encoder, live.frozen_at
    known = deploy.list_versions(folder.root)
    return Manifest(
        id=deploy.new_version_id(known[-1] if known else None),
        created=time.time(),
        parent=live.current.version if live.current and not folder.anew else None,
        encoder=encoder.name,
        revision=encoder.revision,
        dim=encoder.dim,
        n_passages=len(built.pids),
        watermark=built.watermark,
        votes_until=built.watermark if frozen_at is None else min(built.watermark, frozen_at),
        files={},
    )


def _report(
    outcome: Outcome,
    live: _Live,
    reason: str,
    began: float,
    scores: Mapping[str, float] | None = None,
    *,
    new: bool = False,
) -> RefreshReport:
    version = live.current.version if live.current else None
    seconds = time.monotonic() - began
    parameters: Literal["new", "kept"] = "new" if new else "kept"
    return RefreshReport(outcome, version, parameters, reason, scores or {}, seconds)
