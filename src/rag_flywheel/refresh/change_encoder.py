"""Changes the encoder of an index: embeds all passages anew beside the live version, and the gate decides.

    note the change -> embed passages, some at a time, while the old version serves and is refreshed ->
    bring the old version up to date -> encode past questions, build a version, weigh both -> promote

Every part is committed before the next one begins. A change that dies at any point leaves the live version
serving; begun again it goes on, and embeds no text a second time.
"""

import logging
import os
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

from rag_flywheel.curate.source import Source
from rag_flywheel.deploy.current import name_encoder, read_current
from rag_flywheel.deploy.files import files_below
from rag_flywheel.deploy.follow import locked
from rag_flywheel.deploy.lock import change_lock
from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.deploy.prune import drop_vectors_of, revisions_in_use
from rag_flywheel.deploy.verify import note_checked
from rag_flywheel.deploy.versions import list_versions, version_folder
from rag_flywheel.disk import disk_errors
from rag_flywheel.encoder import Encoder, Encoders
from rag_flywheel.errors import (
    DiskFullError,
    EncoderError,
    EncoderNotFoundError,
    StorageError,
    counted,
)
from rag_flywheel.privacy.forget import finish_forgetting
from rag_flywheel.records import RefreshReport
from rag_flywheel.refresh.due import When
from rag_flywheel.refresh.job import Job, RunningJob
from rag_flywheel.refresh.next_version import next_version
from rag_flywheel.refresh.other_encoder import Change
from rag_flywheel.refresh.refresh import finish, refresh_locked
from rag_flywheel.refresh.start import read_live
from rag_flywheel.refresh.tuned_encoder import encode_questions
from rag_flywheel.store import encoders, golden, passages, votes, wall_clock
from rag_flywheel.store.corpus import embed
from rag_flywheel.store.database import Database
from rag_flywheel.store.encoders import EncoderChange, KnownEncoder
from rag_flywheel.store.vectors import noted_revisions

log = logging.getLogger("rag_flywheel")
_ANY_TEXT = ("a",)
_AT_ONCE = 16_384  # texts in memory
_WAIT_S = 600.0  # for a refresh that is running
_ROW = 100  # bytes of a stored vector besides its numbers
_TO_DO = (
    "its vectors are kept: try again with more votes or known answers, make it live with --force "
    "(force=True), or give it up with --drop (drop_encoder_change)"
)
_SPARE = 50_000_000  # bytes that stay free, for what others write


def change_encoder(
    job: Job, to: Encoder, spec: str, *, old_spec: str, forced: bool = False
) -> RefreshReport:
    """Build a version of another encoder beside the live one, and make it live if the gate lets it in.

    spec: makes the other encoder, "": it is an object; old_spec: the same of the live one; forced: make it
    live whatever the gate says. An encoder that the gate refuses is a result, "rejected": its vectors stay,
    so that the next call, which may be forced, has only new passages to embed. "unchanged": it is the
    live one already.
    Raises LockedError while another process changes the encoder, or refreshes for longer than ten minutes;
    StorageError while another change is under way or a rollback holds votes back; DiskFullError,
    EncoderError.
    """
    began = time.monotonic()
    root, database = job.root, job.database
    new = KnownEncoder(to.name, to.revision, to.dim, spec)
    with disk_errors(root), change_lock(root, database):
        with database.reading() as conn:
            live = encoders.identity(conn)
        if live == new.identity:
            return _already_live(job, new, began)
        _require_no_rollback(root)
        _begin(job, new, old_spec)
        n_embedded = _embed_beside(job, to)
        rebuilt = job  # of the live encoder
        finish_forgetting(
            root, database, rebuild=lambda: refresh_locked(rebuilt, When(), anew=True)
        )
        with locked(root, database, wait_s=_WAIT_S):
            _require_no_rollback(root)
            report = _changed(job, to, forced, began)
            scores = {**report.scores}
            scores["n_embedded"] = scores.get("n_embedded", 0.0) + n_embedded
            return replace(report, scores=scores, seconds=time.monotonic() - began)


def drop_change(root: Path, database: Database) -> int:
    """Give up the change of the encoder that is under way, and delete its vectors; returns how many.

    Raises LockedError while it is being made.
    """
    with disk_errors(root), change_lock(root, database):
        with database.reading() as conn:
            found, live = encoders.change(conn), encoders.identity(conn)
        if found is None:
            return 0
        used = {*revisions_in_use(root, database), *([live.revision] if live else [])}
        n = 0
        if found.to.revision not in used:
            n = drop_vectors_of(database, found.to.revision)
        with database.transaction() as conn:
            encoders.end_change(conn)
            if found.to.revision not in used:
                encoders.forget(conn, found.to.revision)
        return n


def prepare_encoder(job: Job, every: Encoders, manifest: Manifest) -> None:
    """Store what a version of another encoder lacks, which is to go live again: vectors of passages added,
    and of questions asked, since. Call only while holding the refresh lock.

    Raises EncoderMismatchError, EncoderNotFoundError, EncoderError when that encoder cannot be had.
    """
    encoder = every.of(manifest.encoder, manifest.revision, manifest.dim)
    source = Source(encoder, job.config)
    source.queries.encode(_ANY_TEXT)  # loads it, so that no version goes live that nobody can serve
    _embed_beside(job, encoder)
    if manifest.tuned is None:
        encode_questions(job.database, source, job.progress)


def _already_live(job: Job, new: KnownEncoder, began: float) -> RefreshReport:
    """Finish what a change that died after it went live left to do."""
    root, database = job.root, job.database
    with locked(root, database, wait_s=_WAIT_S):
        with database.transaction() as conn:
            found = encoders.change(conn)
            if found is not None and found.to.identity == new.identity:
                encoders.end_change(conn)
        name_encoder(root, database)
        current = read_current(root)
    why = f"the live version has the encoder {new.name!r} already"
    version = None if current is None else current.version
    return RefreshReport("unchanged", version, "kept", why, {}, time.monotonic() - began)


def _require_no_rollback(root: Path) -> None:
    current = read_current(root)
    if current is not None and (current.held or current.frozen_at is not None):
        raise StorageError(
            f"version {current.version} of {root} was rolled back to, and votes or refreshes are held back; "
            "run `rag-flywheel release` first, so that the new encoder is weighed by all votes"
        )


def _begin(job: Job, new: KnownEncoder, old_spec: str) -> None:
    """Note the change, unless it is under way already. Raises StorageError, EncoderError, DiskFullError."""
    with job.database.reading() as conn:
        live, known = encoders.identity(conn), encoders.known(conn)
        under_way, tuned = encoders.change(conn), noted_revisions(conn)
        n_lacking = passages.count_without_vector(conn, new.revision)
        n = passages.count_passages(conn)
    if under_way is not None and under_way.to.identity != new.identity:
        raise StorageError(
            f"a change to the encoder {under_way.to.name!r} is under way in {job.root}; finish it, or give "
            "it up with `rag-flywheel change-encoder --drop`, before another one begins"
        )
    taken = [each.identity for each in known.values()] + ([live] if live else [])
    same = [each for each in taken if each.revision == new.revision and each != new.identity]
    if same or new.revision in tuned:
        name = same[0].name if same else "a tuned encoder"
        raise EncoderError(
            f"the encoder {new.name!r} has the revision {new.revision!r}, under which vectors of {name!r} "
            "are stored; expected a revision that no other encoder has"
        )
    _require_room(job.root, n_lacking, n, new.dim)
    noted = [new]
    if live is not None and live.revision not in known:
        noted.append(KnownEncoder(*live, old_spec))
    with job.database.transaction() as conn:
        encoders.note(conn, *noted)
        if under_way is None:
            encoders.write_change(conn, EncoderChange(new, wall_clock.now()))
    log.info("change of the encoder to %s: %s to embed", new.name, counted(n_lacking, "passage"))


def _require_room(root: Path, n_lacking: int, n: int, dim: int) -> None:
    """Raises DiskFullError unless the vectors, and a version, have room."""
    versions = list_versions(root)[-1:]
    sizes = [
        (version_folder(root, v) / name).stat().st_size
        for v in versions
        for name in files_below(version_folder(root, v))
    ]
    needed = n_lacking * (4 * dim + _ROW) + n * 4 * dim + sum(sizes) + _SPARE
    found = os.statvfs(root)
    free = found.f_bavail * found.f_frsize
    if free < needed:
        raise DiskFullError(
            f"the vectors of another encoder and a version of them take about {needed / 1e6:,.0f} MB; found "
            f"{free / 1e6:,.0f} MB free where {root} is. Free some, and begin again: nothing was changed"
        )


def _embed_beside(job: Job, to: Encoder) -> int:
    """Store the vectors that passages lack; returns how many. The live version serves, and may be
    refreshed, meanwhile."""
    database, progress, n = job.database, job.progress, 0
    with database.reading() as conn:
        total = passages.count_without_vector(conn, to.revision)

    def told(step: str, done: int, _: int) -> None:
        if progress is not None:
            progress(step, n + done, max(total, n + done))

    while True:
        with database.reading() as conn:
            some = {
                t.text_hash: passages.encoded_text(t.passage)
                for t in islice(passages.without_vector(conn, to.revision), _AT_ONCE)
            }
        if not some:
            return n
        n += embed(database, to, some, told)


def _changed(job: Job, to: Encoder, forced: bool, began: float) -> RefreshReport:
    """Bring the live version up to date, and build one of the other encoder beside it. Call only while
    holding the refresh lock."""
    root, database = job.root, job.database
    with database.reading() as conn:
        if (found := encoders.change(conn)) is None or found.to.revision != to.revision:
            raise StorageError(
                f"a backup of {root} was restored while its encoder was changed; run change-encoder again"
            )
    old_job = replace(job, config=replace(job.config, tune="off"))
    if read_current(root) is not None or _may_be_compared(database):
        try:
            report = refresh_locked(old_job, When())
        except EncoderNotFoundError:  # the model of the old encoder is gone
            if not forced:
                raise
        else:
            if report.outcome == "rejected":
                return report
    live = read_live(root, database)
    new_job = replace(old_job, load_encoder=lambda: to)
    running = RunningJob(new_job, to, Source(to, job.config), anew=False, tune="off")
    encoder = job.load_encoder()
    old = RunningJob(old_job, encoder, Source(encoder, job.config), anew=False, tune="off")
    report = next_version(running, live, began, Change(old, forced))
    if report.outcome != "promoted" or report.version is None:
        with database.transaction() as conn:
            found = encoders.change(conn)
            if found is not None:
                encoders.write_change(conn, replace(found, refused=report.reason))
        log.info("change of the encoder: not live: %s", report.reason)
        return replace(report, reason=f"{to.name} is not live: {report.reason}; {_TO_DO}")
    with database.transaction() as conn:
        encoders.end_change(conn)
    try:
        finish(job, live, report)
    except StorageError as error:
        log.warning(
            "change of the encoder: %s is live; the rest has to wait: %s", report.version, error
        )
    note_checked(root, database, report.version)
    log.info("change of the encoder: %s (%.1f s)", report.reason, report.seconds)
    return report


def _may_be_compared(database: Database) -> bool:
    """Whether there is feedback or a known answer by which two encoders can be told apart."""
    with database.reading() as conn:
        return bool(votes.count_votes(conn) or golden.known_queries(conn))
