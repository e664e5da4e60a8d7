"""Deletes files that no version needs any more: old versions, staging, vectors, checkpoints."""

import logging
import shutil
from collections.abc import Collection
from pathlib import Path

from rag_flywheel.deploy.versions import (
    CURRENT,
    QUARANTINE,
    STAGING,
    VERSIONS,
    list_versions,
    read_manifest,
    strays,
    version_folder,
)
from rag_flywheel.errors import FlywheelError, counted
from rag_flywheel.store import vectors as vector_store
from rag_flywheel.store.database import Database

log = logging.getLogger("rag_flywheel")
_TUNING = "tuning"
CHECKPOINT = f"{_TUNING}/checkpoint.safetensors"


def drop_dead_vectors(root: Path, database: Database) -> None:
    """Delete the vectors of tuned encoders that no version has any more."""
    with database.reading() as conn:
        noted = vector_store.noted_revisions(conn)
    if not noted:
        return
    try:
        live = {read_manifest(root, v).tuned for v in list_versions(root)}
    except FlywheelError as error:
        log.warning("refresh: vectors of older encoders are kept: %s", error)
        return
    if noted - live:
        with database.transaction() as conn:
            n = vector_store.drop_revisions(conn, noted - live)
        log.info("refresh: dropped %s of encoders that no version has", counted(n, "vector"))


def forget_progress(root: Path) -> None:
    """Delete the checkpoint of a tuning. Raises OSError, for it was made from votes of users."""
    _delete(root / _TUNING)


def clean_staging(root: Path) -> int:
    """Delete the files of refreshes that died; returns the number of unfinished versions.

    Call only while holding the refresh lock.
    """
    for unfinished in root.glob(f".{CURRENT}.*"):
        _delete(unfinished)
    folder = root / STAGING
    left = list(folder.iterdir()) if folder.is_dir() else []
    for path in left:
        _delete(path)
    return len(left)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def clean_quarantine(root: Path) -> None:
    """Delete the damaged versions that a repair moved away. Call only while holding the lock."""
    _delete(root / QUARANTINE)


def clean_strays(root: Path) -> None:
    """Delete everything in `versions/` that is no version. Call only while holding the lock."""
    for name in strays(root):
        _delete(root / VERSIONS / name)


def prune(root: Path, *, keep: int, never: Collection[str]) -> list[str]:
    """Delete the oldest versions beyond the `keep` newest, but none in `never`; returns their ids."""
    known = list_versions(root)
    old = [v for v in known[: max(0, len(known) - keep)] if v not in never]
    for version in old:
        doomed = root / STAGING / f"pruned-{version}"  # renamed first: never half a version
        doomed.parent.mkdir(exist_ok=True)
        version_folder(root, version).rename(doomed)
        shutil.rmtree(doomed)
    return old
