"""Refresh: the only writer of index versions. It walks the rooms in the order of the loop.

    embed what has no vector -> set theta from past queries, keep the other parameters -> build the
    indexes -> read the new version back and let sampled passages find themselves -> promote -> prune

A refresh that dies at any point leaves the live version serving; the next one cleans up.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rag_flywheel.build import Built, build_version, version_problems
from rag_flywheel.config import Config
from rag_flywheel.corpus import embed
from rag_flywheel.deploy import versions as deploy
from rag_flywheel.deploy.lock import refresh_lock
from rag_flywheel.deploy.moves import make_live, reconcile
from rag_flywheel.deploy.versions import Manifest
from rag_flywheel.disk import disk_errors
from rag_flywheel.errors import CorruptFileError
from rag_flywheel.improve.threshold import with_threshold
from rag_flywheel.index.encoder import Encoder
from rag_flywheel.rank.parameters import FILE_NAME, Parameters
from rag_flywheel.records import Current, Outcome, Progress, RefreshReport
from rag_flywheel.serve.loaded import load_parameters
from rag_flywheel.store import counts, events, journal, passages
from rag_flywheel.store import vectors as vector_store
from rag_flywheel.store.database import Database

log = logging.getLogger("rag_flywheel")
_QUERIES = 20_000  # past queries that theta is set from, the first voted on


@dataclass(frozen=True)
class When:
    """When a refresh is due, if anything changed: at this many new votes, or at this age.

    Neither given: whenever anything changed. Both: when either is reached.
    """

    if_votes: int | None = None
    max_age_s: float | None = None


@dataclass(frozen=True)
class _Live:
    """What is live; manifest is None when nothing is, or when its files are not sound."""

    current: Current | None
    manifest: Manifest | None


def refresh(
    root: Path,
    database: Database,
    config: Config,
    load_encoder: Callable[[], Encoder],
    *,
    when: When,
    progress: Progress | None = None,
) -> RefreshReport:
    """Build the next version from everything in the store, and make it live.

    Raises LockedError when another process refreshes. A version that fails its check is a result,
    "rejected", not an error.
    """
    began = time.monotonic()
    with disk_errors(root), refresh_lock(root):
        if left := deploy.clean_staging(root):
            log.info("refresh: cleaned up after %d unfinished", left)
        live = _look(root, database)
        idle = _nothing_to_do(database, live.manifest, when)
        if idle is not None:
            report = _report("unchanged", live, idle, began)
        else:
            report = _next_version(root, database, load_encoder(), live, began, progress)
        with database.transaction() as conn:
            journal.record_refresh(conn, report)
        if report.outcome == "promoted":
            never = {v for v in (report.version, live.current and live.current.version) if v}
            for version in deploy.prune(root, keep=config.keep_versions, never=never):
                log.info("refresh: pruned version %s", version)
    log.info("refresh: %s: %s (%.1f s)", report.outcome, report.reason, report.seconds)
    return report


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
    return _Live(current, deploy.read_manifest(root, current.version))


def _nothing_to_do(database: Database, live: Manifest | None, when: When) -> str | None:
    """Why a refresh is not due; None when it is."""
    if live is None:
        return None
    with database.snapshot() as conn:
        votes = events.count_votes(conn, live.watermark)
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
    root: Path,
    database: Database,
    encoder: Encoder,
    live: _Live,
    began: float,
    progress: Progress | None,
) -> RefreshReport:
    with database.reading() as conn:
        lacking = {
            t.text_hash: passages.encoded_text(t.passage)
            for t in passages.without_vector(conn, encoder.revision)
        }
    n_embedded = embed(database, encoder, lacking, progress)
    log.info("refresh: embedded %d passages that had no vector", n_embedded)
    staged = deploy.stage(root)
    try:
        kept = _live_parameters(root, live)
        parameters = _next_parameters(database, encoder, live, kept)
        parent = _parent(root, live, encoder)
        built = build_version(
            staged, database, encoder, parameters, parent=parent, progress=progress
        )
        log.info(
            "refresh: %s indexes of %d passages",
            "linked the unchanged" if built.linked else "built the",
            len(built.pids),
        )
        manifest = deploy.seal(staged, _manifest(root, encoder, live, built))
        problems = version_problems(staged, database, encoder, built, manifest.id)
        if problems:
            return _report("rejected", live, problems[0], began)
        log.info("refresh: read the new version back, sampled passages find themselves")
        deploy.publish(root, staged, manifest.id)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    frozen_at = live.current.frozen_at if live.current else None
    current = Current(manifest.id, frozen_at)
    make_live(root, database, "promote", current)
    reason = f"{len(built.pids)} passages" + (", none changed" if built.linked else "")
    if frozen_at is not None:
        reason += "; votes after the rollback stay held back until release"
    scores = {
        "n_passages": float(len(built.pids)),
        "n_embedded": float(n_embedded),
        "theta": parameters.kernel.theta,
    }
    live = _Live(current, manifest)
    return _report("promoted", live, reason, began, scores, new=parameters != kept)


def _next_parameters(
    database: Database, encoder: Encoder, live: _Live, kept: Parameters
) -> Parameters:
    """The kept parameters, theta set from the past queries; as they are while votes are held back."""
    if live.current is not None and live.current.frozen_at is not None:
        return kept
    with database.reading() as conn:
        queries = vector_store.voted_query_vectors(conn, encoder.revision, most=_QUERIES)
    found = with_threshold(kept, queries)
    if found != kept:
        log.info("refresh: theta %.3f -> %.3f", kept.kernel.theta, found.kernel.theta)
    return found


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


def _manifest(root: Path, encoder: Encoder, live: _Live, built: Built) -> Manifest:
    known = deploy.list_versions(root)
    frozen_at = live.current.frozen_at if live.current else None
    return Manifest(
        id=deploy.new_version_id(known[-1] if known else None),
        created=time.time(),
        parent=live.current.version if live.current else None,
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
