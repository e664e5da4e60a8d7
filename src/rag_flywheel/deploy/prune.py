"""Deletes files that no version needs any more: old versions, staging, vectors, checkpoints."""

import logging
import re
from collections.abc import Collection
from pathlib import Path

from rag_flywheel import disk
from rag_flywheel.deploy.shared import (
    delete_shared,
    delete_shared_but,
    known_versions,
    manifest_of,
    manifests,
    prune_shared,
    store_of,
)
from rag_flywheel.deploy.versions import (
    CURRENT,
    QUARANTINE,
    STAGING,
    TUNING,
    VERSIONS,
    delete_versions,
    list_versions,
    strays,
)
from rag_flywheel.errors import FlywheelError, OlderFormatError, counted
from rag_flywheel.index.parts import DERIVED_FOLDER as DERIVED
from rag_flywheel.store import encoders
from rag_flywheel.store import vectors as vector_store
from rag_flywheel.store.database import Database

log = logging.getLogger("rag_flywheel")
CHECKPOINT = f"{TUNING}/checkpoint.safetensors"
_VECTORS_AT_ONCE = 2_000
_OWN = re.compile(r"\d{8}T\d{6}Z-.*|pruned-.*", re.ASCII)  # names in staging/


def drop_dead_vectors(root: Path, database: Database) -> None:
    """Delete the vectors of encoders, and of tuned ones, that no version has any more."""
    with database.reading() as conn:
        noted = vector_store.noted_revisions(conn)
        known, change = encoders.known(conn), encoders.change(conn)
        live = encoders.identity(conn)
    if not noted and not known:
        return
    try:
        used = revisions_in_use(root, database)
    except FlywheelError as error:
        log.warning("refresh: vectors of older encoders are kept: %s", error)
        return
    n = 0
    if noted - used:
        with database.transaction() as conn:
            n += vector_store.drop_revisions(conn, noted - used)
    used |= {each.revision for each in (live, change and change.to) if each}
    for revision in known.keys() - used:
        n += drop_vectors_of(database, revision)
        with database.transaction() as conn:
            encoders.forget(conn, revision)
    if n:
        log.info("refresh: dropped %s of encoders that no version has", counted(n, "vector"))


def revisions_in_use(root: Path, database: Database) -> set[str]:
    """The revisions of the encoders of all versions, and of those tuned from them. Raises FlywheelError when
    a version cannot be read."""
    every = manifests(root, database)
    return {found for m in every for found in (m.revision, m.tuned) if found is not None}


def drop_vectors_of(database: Database, revision: str) -> int:
    """Delete all vectors of an encoder, some at a time, so that votes need not wait; returns how many."""
    n = 0
    while True:
        with database.transaction(durable=False) as conn:
            some = vector_store.drop_some(conn, revision, _VECTORS_AT_ONCE)
        n += some
        if not some:
            return n


def forget_progress(root: Path) -> None:
    """Delete the checkpoint of a tuning. Raises OSError, for it was made from votes of users."""
    disk.delete(root, TUNING)


def clean_staging(root: Path, *, foreign: bool = False) -> int:
    """Delete the files of refreshes that died; returns the number of unfinished versions.

    foreign: whether to delete what no refresh made, too. Call only while holding the refresh lock.
    """
    for name in disk.names_in(root):
        if name.startswith(f".{CURRENT}."):
            disk.delete(root, name)
    left = [n for n in disk.names_in(root, STAGING) if foreign or _OWN.fullmatch(n)]
    for name in left:
        disk.delete(root, f"{STAGING}/{name}")
    return len(left)


def clean_quarantine(root: Path) -> None:
    """Delete the damaged versions that a repair moved away. Call only while holding the lock."""
    disk.delete(root, QUARANTINE)


def clean_strays(root: Path) -> None:
    """Delete everything in `versions/` that is no version. Call only while holding the lock."""
    for name in strays(root):
        disk.delete(root, f"{VERSIONS}/{name}")


def prune(root: Path, database: Database, *, keep: int, never: Collection[str]) -> list[str]:
    """Delete the oldest versions beyond the `keep` newest, but none in `never`; returns their ids. Where
    hosts share them, everywhere. Call only while holding the refresh lock."""
    if (store := store_of(database)) is not None:
        return prune_shared(root, database, store, keep=keep, never=never)
    known = list_versions(root)
    old = [v for v in known[: max(0, len(known) - keep)] if v not in never]
    delete_versions(root, old)
    return old


def delete_all_but(root: Path, database: Database, kept: Collection[str]) -> None:
    """Delete all versions but these; where hosts share them, everywhere, and at once all files that are in
    none of them. Call only while holding the refresh lock."""
    if (store := store_of(database)) is not None:
        delete_shared_but(root, database, store, kept)
    else:
        delete_versions(root, [v for v in list_versions(root) if v not in kept])


def prune_unreadable(root: Path, database: Database, *, never: Collection[str]) -> list[str]:
    """Delete the versions of earlier releases, to which nothing can roll back, but none in `never`;
    returns their ids. Those before format 4 hold hashes of questions without a key."""
    old = []
    for version in known_versions(root, database):
        try:
            manifest_of(root, database, version)
        except OlderFormatError:
            old.append(version)
        except FlywheelError:
            continue  # `verify` names it
    old = [v for v in old if v not in never]
    if old and (store := store_of(database)) is not None:
        delete_shared(root, database, store, old)
    else:
        delete_versions(root, old)
    return old


def drop_derived(root: Path, *, never: Collection[str]) -> None:
    """Delete what is computed from the other files of versions, but of none in `never`: what reads such a
    version computes it again."""
    for version in list_versions(root):
        if version not in never and DERIVED in disk.names_in(root, f"{VERSIONS}/{version}"):
            doomed = f"{STAGING}/pruned-{version}-{DERIVED}"  # renamed first: never half of them
            disk.move(root, f"{VERSIONS}/{version}/{DERIVED}", doomed)
            disk.delete(root, doomed)
