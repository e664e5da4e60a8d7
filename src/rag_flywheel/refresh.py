"""Refresh: the only writer of index versions. It walks the rooms in the order of the loop.

    embed what has no vector -> build the indexes -> learn parameters and memory from votes -> read
    the new version back and let sampled passages find themselves -> promote -> prune

A refresh that dies at any point leaves the live version serving; the next one cleans up.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rag_flywheel.build import (
    Built,
    build_indexes,
    built_indexes,
    version_problems,
    write_learned,
    write_parameters,
)
from rag_flywheel.config import Config
from rag_flywheel.corpus import embed
from rag_flywheel.deploy import versions as deploy
from rag_flywheel.deploy.lock import refresh_lock
from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.deploy.moves import make_live, reconcile
from rag_flywheel.disk import disk_errors
from rag_flywheel.errors import CorruptFileError
from rag_flywheel.evaluate.gate import Looks
from rag_flywheel.gating import FILE_NAME as GATE_FILE
from rag_flywheel.gating import Gate
from rag_flywheel.golden import golden_items
from rag_flywheel.index.encoder import Encoder, encode
from rag_flywheel.learning import (
    Judging,
    Known,
    Learned,
    frozen,
    learned_from_votes,
    read_past,
)
from rag_flywheel.rank.parameters import FILE_NAME, Parameters
from rag_flywheel.records import Current, Outcome, Progress, RefreshReport, Vectors
from rag_flywheel.serve.candidates import Lookups
from rag_flywheel.serve.loaded import load_parameters, load_version
from rag_flywheel.serve.state import Judge
from rag_flywheel.store import counts, events, journal, passages
from rag_flywheel.store.database import Database
from rag_flywheel.store.journal import Look

log = logging.getLogger("rag_flywheel")


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

    @property
    def frozen_at(self) -> int | None:
        """The event number that evidence is frozen at."""
        return self.current.frozen_at if self.current is not None else None


@dataclass(frozen=True)
class _Folder:
    """The index folder that is refreshed, its encoder, how votes are judged in it, and what is
    known of its queries."""

    root: Path
    database: Database
    encoder: Encoder
    judge: Judge
    known: Known


def refresh(
    root: Path,
    database: Database,
    config: Config,
    load_encoder: Callable[[], Encoder],
    judge: Judge,
    lookups: Lookups,
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
        idle = _nothing_to_do(database, live, when)
        if idle is not None:
            report = _report("unchanged", live, idle, began)
        else:
            encoder = load_encoder()
            known = Known(lookups, config.n_candidates, encoder.revision, config.tenant_key)
            folder = _Folder(root, database, encoder, judge, known)
            report = _next_version(folder, live, began, progress)
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
        changes += counts.without_vector(conn, live.revision)
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
        kept = _live_parameters(root, live)
        learned = _learn(folder, staged, built, live, kept, progress)
        write_learned(staged, learned.parameters, learned.memory)
        if learned.gate is not None:
            (staged / GATE_FILE).write_text(learned.gate.text, encoding="utf-8")
        manifest = deploy.seal(staged, _manifest(root, encoder, live, built))
        problems = version_problems(staged, database, encoder, built, manifest.id)
        if problems:
            return _report("rejected", live, problems[0], began)
        log.info("refresh: read the new version back, sampled passages find themselves")
        deploy.publish(root, staged, manifest.id)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    held = live.current is not None and live.current.held  # rebuilt, its files being damaged
    current = Current(manifest.id, live.frozen_at, held)
    make_live(root, database, "promote", current, _look_of(learned.gate, manifest.id))
    reason = f"{len(built.pids)} passages" + (", none changed" if built.linked else "")
    scores = {"n_passages": float(len(built.pids)), "n_embedded": float(n_embedded)}
    return _report(
        "promoted",
        _Live(current, manifest),
        f"{reason}; {learned.why}",
        began,
        {**scores, **learned.scores},
        new=learned.new,
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
    """What votes teach; while some are held back by a rollback, parameters stay as they are."""
    encoder, frozen_at = folder.encoder, live.frozen_at
    until = built.watermark if frozen_at is None else min(built.watermark, frozen_at)
    database, known = folder.database, folder.known

    def encode_queries(texts: Sequence[str]) -> Vectors:
        return encode(encoder.encode_queries, texts, encoder.dim)

    def read_back(parameters: Parameters) -> Parameters:
        write_parameters(staged, parameters)
        return load_parameters(staged)

    past = read_past(
        database,
        folder.judge,
        encoder.revision,
        encode_queries,
        dim=encoder.dim,
        until=until,
    )
    version = built_indexes(staged, encoder, built, kept)
    if frozen_at is not None:
        learned = frozen(database, version, past, known, progress=progress)
    else:
        with database.reading() as conn:
            looks = Looks(*journal.looks(conn))
        judging = Judging(
            lambda: golden_items(
                database, encode_queries, encoder.revision, dim=encoder.dim, until=until
            ),
            read_back,
            looks,
        )
        learned = learned_from_votes(database, version, past, known, judging, progress=progress)
    log.info("refresh: parameters %s: %s", "new" if learned.new else "kept", learned.why)
    return learned


def _look_of(gate: Gate | None, version: str) -> Look | None:
    if gate is None or not gate.decision.look:
        return None
    found = gate.decision
    return Look(version, found.n_judged, found.alpha, found.p, found.outcome)


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
    frozen_at = live.frozen_at
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
