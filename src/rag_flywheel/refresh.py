"""Refresh: the only writer of index versions. It walks the rooms in the order of the loop.

    embed what has no vector -> build the indexes, of the version before as far as it goes, and read
    them back -> learn parameters and memory from votes, and tune the encoder of queries when asked
    to -> let sampled passages find themselves -> promote -> prune

A refresh that dies at any point leaves the live version serving; the next one cleans up.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from rag_flywheel.config import Config
from rag_flywheel.curate.golden import golden_items
from rag_flywheel.curate.source import Source, judge_of, source_of
from rag_flywheel.curate.trust import calibrate
from rag_flywheel.deploy import prune
from rag_flywheel.deploy import versions as deploy
from rag_flywheel.deploy.build import (
    Built,
    build_indexes,
    built_indexes,
    write_learned,
    write_parameters,
)
from rag_flywheel.deploy.current import make_live
from rag_flywheel.deploy.loaded import LoadedVersion, load_parameters
from rag_flywheel.deploy.lock import refresh_lock
from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.deploy.prune import CHECKPOINT, drop_dead_vectors, forget_progress
from rag_flywheel.disk import disk_errors
from rag_flywheel.due import Kept, Live, When, live_model, look, nothing_to_do
from rag_flywheel.encode.tower import FILE_NAME as TUNED_FILE
from rag_flywheel.encode.tower import TunableEncoder, require_tunable
from rag_flywheel.encoder import Encoder
from rag_flywheel.errors import FlywheelError, StorageError
from rag_flywheel.evaluate.gate import Looks
from rag_flywheel.evaluate.gate_file import FILE_NAME as GATE_FILE
from rag_flywheel.evaluate.gate_file import tried_to_tune
from rag_flywheel.evaluate.integrity import integrity_problems
from rag_flywheel.learning import Judging, Learned, frozen, learned_from_votes
from rag_flywheel.past_queries import Known, kept_vectors, read_past
from rag_flywheel.privacy.retention import fold_old
from rag_flywheel.rank.memory import load_memory
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.rank.stored_evidence import load_heard
from rag_flywheel.records import Current, Outcome, Progress, RefreshReport
from rag_flywheel.serve.heard import write_heard
from rag_flywheel.serve.lookups import Lookups
from rag_flywheel.store import journal, passages, votes
from rag_flywheel.store import vectors as vector_store
from rag_flywheel.store.corpus import embed
from rag_flywheel.store.database import Database
from rag_flywheel.store.journal import Look
from rag_flywheel.tuned_version import put_queries, queries_of
from rag_flywheel.tuning import Tuning

log = logging.getLogger("rag_flywheel")
New = Literal["new", "kept"]
_Tune = Literal["asked", "auto", "off"]
_ARMS = "weights", "encoder"


@dataclass(frozen=True)
class Job:
    """The index folder that is refreshed, its settings and encoder, what is remembered of its
    queries, and who is told how far it is."""

    root: Path
    database: Database
    config: Config
    load_encoder: Callable[[], Encoder]
    lookups: Lookups
    progress: Progress | None = None


@dataclass(frozen=True)
class _Folder:
    """A Job under way: its encoder is there, and what is known of queries; anew: parameters are
    learned from the shipped ones, as if no version had been before; tune: whether queries are to be
    encoded by what votes teach, and whether somebody asked for it."""

    root: Path
    database: Database
    encoder: Encoder
    source: Source
    known: Known
    anew: bool
    tune: _Tune


def refresh(job: Job, when: When, *, tune: bool = False) -> RefreshReport:
    """Build the next version from everything in the store, and make it live.

    tune: teach the encoder of queries too, when a look of the gate is due. Raises LockedError when
    another process refreshes, EncoderError when an encoder cannot be tuned and is to be. A version
    that fails its check is a result, "rejected", not an error.
    """
    with disk_errors(job.root), refresh_lock(job.root):
        return refresh_locked(job, when, tune=tune)


def refresh_locked(
    job: Job, when: When, *, anew: bool = False, tune: bool = False
) -> RefreshReport:
    """`refresh`, for the holder of the refresh lock.

    anew: whatever is due, and with parameters that owe nothing to those of earlier versions.
    """
    began = time.monotonic()
    root, database = job.root, job.database
    if left := prune.clean_staging(root):
        log.info("refresh: cleaned up after %d unfinished", left)
    live = look(root, database)
    idle = None if anew else nothing_to_do(database, live, when, tune=tune and _untried(root, live))
    if idle is not None:
        report = _report("unchanged", live, idle, began)
    else:
        encoder, config = job.load_encoder(), job.config
        source = source_of(encoder, config)
        known = Known(job.lookups, config.n_candidates, config.tenant_key)
        if tune:
            require_tunable(encoder).tower()  # better to fail before anything is built
        auto = config.tune == "auto" and not anew and isinstance(encoder, TunableEncoder)
        how: _Tune = "asked" if tune else "auto" if auto else "off"
        folder = _Folder(root, database, encoder, source, known, anew, how)
        report = _next_version(folder, live, began, job.progress)
    try:
        _finish(job, live, report)
    except StorageError as error:
        if anew or report.outcome != "promoted":
            raise
        log.warning("refresh: %s is live; the rest has to wait: %s", report.version, error)
    log.info("refresh: %s: %s (%.1f s)", report.outcome, report.reason, report.seconds)
    return report


def _finish(job: Job, live: Live, report: RefreshReport) -> None:
    """Note what a refresh did, and drop what it left behind; what it made live stays so anyway."""
    with job.database.transaction() as conn:
        journal.record_refresh(conn, report)
    if report.outcome == "promoted":
        never = {v for v in (report.version, live.current and live.current.version) if v}
        for version in prune.prune(job.root, keep=job.config.keep_versions, never=never):
            log.info("refresh: pruned version %s", version)
    drop_dead_vectors(job.root, job.database)
    _fold(job, live, report)


def _untried(root: Path, live: Live) -> bool:
    """Whether the live version was made without trying to tune, from votes that all count."""
    if live.manifest is None or live.frozen_at is not None:
        return False
    return not tried_to_tune(deploy.version_folder(root, live.manifest.id))


def _fold(job: Job, live: Live, report: RefreshReport) -> None:
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
    if n := fold_old(job.database, judge_of(job.config), days=days, heard=heard):
        log.info("refresh: folded %d retrievals older than %g days", n, days)


def _next_version(
    folder: _Folder, live: Live, began: float, progress: Progress | None
) -> RefreshReport:
    root, database, encoder = folder.root, folder.database, folder.encoder
    n_embedded = _embed(folder, progress)
    staged = deploy.stage(root)
    try:
        # vectors made again are not those that the parent's index was built of
        parent = _parent(root, live, encoder) if not n_embedded else None
        built = build_indexes(staged, database, encoder, parent=parent, progress=progress)
        what = "linked the unchanged" if built.linked else "built the"
        log.info("refresh: %s indexes of %d passages", what, len(built.pids))
        kept = Kept() if folder.anew else live_model(root, live)
        version = built_indexes(staged, encoder, built, kept.parameters)
        learned = _learn(folder, staged, version, live, kept, progress)
        write_learned(staged, learned.parameters, learned.memory)
        (staged / GATE_FILE).write_text(learned.gate_text, encoding="utf-8")
        tuned = put_queries(database, folder.source, staged, kept, learned.tuned, progress)
        queries = learned.queries or queries_of(encoder, kept)
        until = live.votes_until(built.watermark)
        source = folder.source.under(queries)
        write_heard(staged, database, source, learned.judged, until=until)
        manifest = deploy.seal(staged, _manifest(folder, live, built, tuned))
        problems = version_problems(staged, database, encoder, built, version)
        if problems:
            return _report("rejected", live, problems[0], began)
        log.info("refresh: read the new version back, sampled passages find themselves")
        deploy.publish(root, staged, manifest.id)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    held = live.current is not None and live.current.held  # rebuilt, its files being damaged
    current = Current(manifest.id, live.frozen_at, held)
    make_live(root, database, "promote", current, _looks(learned, manifest.id))
    reason = f"{len(built.pids)} passages" + (", none changed" if built.linked else "")
    scores = {"n_passages": float(len(built.pids)), "n_embedded": float(n_embedded)}
    return _report(
        "promoted",
        Live(current, manifest),
        "; ".join([reason, learned.why, *([learned.tuned.why] if learned.tuned else [])]),
        began,
        {**scores, **learned.scores},
        learned,
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
    version: LoadedVersion,
    live: Live,
    kept: Kept,
    progress: Progress | None,
) -> Learned:
    """What votes teach; while some are held back by a rollback, parameters stay as they are, unless
    they are learned anew: then from the votes that are not."""
    encoder, frozen_at = folder.encoder, live.frozen_at
    until = live.votes_until(version.watermark)
    database, known = folder.database, folder.known

    def read_back(parameters: Parameters) -> Parameters:
        write_parameters(staged, parameters)
        return load_parameters(staged)

    if frozen_at is None or folder.anew:
        calibrate(database, until=until)
    source = folder.source.under(queries_of(encoder, kept))
    past = read_past(database, source, until=until)
    if frozen_at is not None and not folder.anew:
        learned = frozen(database, version, past, known, progress=progress)
    else:
        with database.reading() as conn:
            looks, looks_at_encoders = (Looks(*journal.looks(conn, arm)) for arm in _ARMS)
            n_votes = votes.count_votes(conn)
        checkpoint = folder.root / CHECKPOINT
        base = (
            past.vectors
            if kept.tuned is None
            else kept_vectors(database, folder.source, past.texts)
        )
        judging = Judging(
            lambda: golden_items(database, folder.source, until=until),
            source.encode_queries,
            read_back,
            n_votes,
            looks,
            Tuning(
                encoder,
                staged / TUNED_FILE,
                checkpoint,
                folder.source,
                looks_at_encoders,
                asked=folder.tune == "asked",
            )
            if folder.tune != "off"
            else None,
        )
        learned = learned_from_votes(
            database, version, past, base, known, judging, progress=progress
        )
    log.info("refresh: parameters %s: %s", "new" if learned.new else "kept", learned.why)
    if learned.tuned is not None:
        log.info("refresh: %s", learned.tuned.why)
        forget_progress(folder.root)
    return learned


def _looks(learned: Learned, version: str) -> list[Look]:
    tuned = learned.tuned
    gates = learned.gate, tuned.gate if tuned is not None else None
    decided = [
        Look(version, g.decision.n_votes, g.decision.alpha, g.decision.p, g.decision.outcome, arm)
        for arm, g in zip(_ARMS, gates, strict=True)
        if g is not None and g.decision.look
    ]
    if tuned is not None and tuned.n_votes and "encoder" not in {look.arm for look in decided}:
        # nothing was spent on it, but the same votes need not be taught again
        decided.append(Look(version, tuned.n_votes, 0.0, None, "no better", "encoder"))
    return decided


def _parent(root: Path, live: Live, encoder: Encoder) -> tuple[Path, int] | None:
    manifest = live.manifest
    if manifest is None or (manifest.revision, manifest.dim) != (encoder.revision, encoder.dim):
        return None
    return deploy.version_folder(root, manifest.id), manifest.watermark


def _manifest(folder: _Folder, live: Live, built: Built, tuned: str | None) -> Manifest:
    encoder = folder.encoder
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
        votes_until=live.votes_until(built.watermark),
        files={},
        tuned=tuned,
    )


def _report(
    outcome: Outcome,
    live: Live,
    reason: str,
    began: float,
    scores: Mapping[str, float] | None = None,
    learned: Learned | None = None,
) -> RefreshReport:
    version = live.current.version if live.current else None
    seconds = time.monotonic() - began
    parameters: New = "new" if learned is not None and learned.new else "kept"
    tuned = learned.tuned if learned is not None else None
    encoder: New = "new" if tuned is not None and tuned.queries is not None else "kept"
    return RefreshReport(outcome, version, parameters, reason, scores or {}, seconds, encoder)


_SAMPLE = 256  # passages that must find themselves before a version goes live
_SAMPLE_LINKED = 32  # where they did so in the version whose index this one has


def version_problems(
    staged: Path, database: Database, encoder: Encoder, built: Built, version: LoadedVersion
) -> list[str]:
    """What is wrong with a staged version; version: its indexes, as they were read back."""
    try:
        load_parameters(staged)
        load_memory(staged)
        load_heard(staged, dim=encoder.dim)
    except FlywheelError as error:
        return [str(error)]
    if not np.array_equal(version.pids, built.pids):
        return ["the dense index does not hold exactly the passages of the store"]
    chosen = np.random.default_rng(built.watermark).permutation(built.pids)
    chosen = chosen[: _SAMPLE_LINKED if built.linked else _SAMPLE]
    with database.reading() as conn:
        pids, vectors = vector_store.some_vectors(
            conn, chosen.tolist(), encoder.revision, encoder.dim
        )
    if len(pids) != len(chosen):
        return [f"{len(chosen) - len(pids)} of {len(chosen)} sampled passages have no vector"]
    return integrity_problems(pids, vectors, version.dense.search_many, version.dense.vectors)
