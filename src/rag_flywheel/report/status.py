"""Reports the status, versions and history of an index folder, without loading an index."""

import contextlib
import time
from pathlib import Path
from typing import Any

from rag_flywheel.config import Config
from rag_flywheel.deploy.current import live_now, live_of
from rag_flywheel.deploy.failure_file import noted_failures
from rag_flywheel.deploy.files import files_below
from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.deploy.shared import known_versions, manifest_of, store_of
from rag_flywheel.deploy.versions import read_manifest, version_folder
from rag_flywheel.deploy.waiting import questions_waiting
from rag_flywheel.errors import (
    CorruptFileError,
    FlywheelError,
    NewerFormatError,
    UnknownIdError,
    counted,
)
from rag_flywheel.index.graph import recall_of
from rag_flywheel.privacy.audit import count_masked
from rag_flywheel.records import Current, HistoryEntry, Status, TenantScope, VersionInfo
from rag_flywheel.report.health import health
from rag_flywheel.store import encoders, journal, passages, retrievals, votes
from rag_flywheel.store import history as log
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database


def utc(seconds: float) -> str:
    """Seconds since 1970 as UTC text."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def status(root: Path, database: Database, config: Config) -> Status:
    """The folder's state in numbers."""
    current, manifest = _live(root, database)
    found = health(root, read_only=database.read_only)
    watermark = manifest.watermark if manifest else 0
    with database.snapshot() as conn:
        refreshed = journal.last_refresh_at(conn)
        encoder = journal.read_meta(conn, "encoder") or config.encoder
        return Status(
            path=str(root),
            encoder=encoder,
            version=current.version if current else None,
            frozen_at=current.frozen_at if current else None,
            held=current is not None and current.held,
            n_versions=len(known_versions(root, database)),
            n_passages=passages.count_passages(conn),
            n_indexed=manifest.n_passages if manifest else 0,
            n_waiting=passages.count_passages(conn, after=watermark),
            n_retrievals=retrievals.count_retrievals(conn),
            n_votes=votes.count_votes(conn),
            votes_since_refresh=votes.count_votes(conn, after=watermark),
            last_refresh=None if refreshed is None else utc(refreshed),
            bytes_on_disk=bytes_below(root),
            health=found.state,
            problems=tuple(f"{c.name}: {c.found}; to do: {c.to_do}" for c in found.problems),
            masked=count_masked(conn),
            encoder_change=_encoder_change(conn),
            n_questions_waiting=questions_waiting(conn, manifest),
            engine=config.engine,
            **_shared(database, current),
            **_dense(root, manifest),
        )


def _shared(database: Database, current: Current | None) -> dict[str, Any]:
    """Where hosts share versions, and since when another one is live than this folder has; None: it is
    not."""
    store = store_of(database)
    if store is None:
        return {}
    with database.reading() as conn:
        change = journal.last_change(conn)
    live = None if change is None or change.current is None else change.current.version
    behind = change is not None and change.current != current
    since = utc(change.at) if behind and change is not None else None
    return {"objects": str(store), "live_version": live, "behind_since": since}


def n_questions_waiting(root: Path, database: Database) -> int:
    """How many questions with votes the next refresh will embed."""
    _, manifest = _live(root, database)
    with database.snapshot() as conn:
        return questions_waiting(conn, manifest)


def _live(root: Path, database: Database) -> tuple[Current | None, Manifest | None]:
    """What is live, and its manifest; None for what cannot be read, as the problems say."""
    try:
        current = live_of(root, database)
    except (CorruptFileError, OSError):
        return None, None
    try:
        return current, read_manifest(root, current.version) if current else None
    except (CorruptFileError, NewerFormatError, UnknownIdError, OSError):
        return current, None


def _encoder_change(conn: Connection) -> str | None:
    """How far a change to another encoder is; None: there is none."""
    found = encoders.change(conn)
    if found is None:
        return None
    n, lacking = (
        passages.count_passages(conn),
        passages.count_without_vector(conn, found.to.revision),
    )
    said = f"to {found.to.name}, {n - lacking} of {counted(n, 'passage')} embedded"
    return f"{said}; not live: {found.refused}" if found.refused else said


def _dense(root: Path, manifest: Manifest | None) -> dict[str, Any]:
    """How dense search works, exactly or by a graph, and its recall."""
    if manifest is None:
        return {}
    try:
        recall = recall_of(version_folder(root, manifest.id), manifest.n_passages)
    except (CorruptFileError, OSError):
        return {}
    return {
        "dense_search": "every passage" if recall is None else "a graph",
        "dense_recall": 1.0 if recall is None else recall,
    }


def bytes_below(folder: Path) -> int:
    """The bytes of all files in a folder."""
    total = 0
    for name in files_below(folder):
        with contextlib.suppress(FileNotFoundError):
            total += (folder / name).lstat().st_size
    return total


def versions(root: Path, database: Database) -> list[VersionInfo]:
    """The versions there are, the newest first; one whose manifest cannot be read is left out."""
    current = live_now(root, database)
    infos = []
    for version in reversed(known_versions(root, database)):
        try:
            manifest = manifest_of(root, database, version)
        except FlywheelError:
            continue  # `verify` names it
        infos.append(
            VersionInfo(
                id=version,
                live=current is not None and current.version == version,
                parent=manifest.parent,
                created=utc(manifest.created),
                n_passages=manifest.n_passages,
                watermark=manifest.watermark,
            )
        )
    return infos


def history(root: Path, database: Database, n: int, scope: TenantScope) -> list[HistoryEntry]:
    """The n newest events in the history of the index, the newest first; reviews and pins are those in
    the scope."""
    with database.snapshot() as conn:
        found = log.entries(conn, n, scope)
    noted = noted_failures(root)
    found += [(each.at, "failed", log.failure_text(each.reason, each.to_do)) for each in noted]
    newest = sorted(found, key=lambda entry: -entry[0])[:n]
    return [HistoryEntry(utc(at), kind, text) for at, kind, text in newest]
