"""Finds every problem of an index folder, and changes nothing.

It hashes every byte and reads every part of every version, one version at a time.
"""

import json
import logging
from contextlib import closing
from importlib import metadata
from pathlib import Path

from rag_flywheel import config as settings
from rag_flywheel.deploy.current import live_now, read_current
from rag_flywheel.deploy.loaded import load_version, published_of
from rag_flywheel.deploy.origin import origin_problems
from rag_flywheel.deploy.shared import lacking_in, store_of
from rag_flywheel.deploy.versions import (
    CURRENT,
    VERSIONS,
    check,
    fingerprint,
    list_versions,
    read_manifest,
    strays,
    version_folder,
)
from rag_flywheel.encode.tower import FILE_NAME as TUNED_FILE
from rag_flywheel.encode.tower import read_taught
from rag_flywheel.errors import (
    ConfigError,
    CorruptFileError,
    EngineError,
    FlywheelError,
    StorageError,
    counted,
)
from rag_flywheel.rank.stored_lookups import load_stored_lookups
from rag_flywheel.store import encoders, forgetting, journal, passages
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.row_checks import row_problems

log = logging.getLogger("rag_flywheel")
_CHECKED = "checked"  # the key of the note


def problems(root: Path, database: Database) -> list[str]:
    """Every problem of the folder, one sentence each; empty when it is sound."""
    found = []
    try:
        settings.read_config(root / settings.FILE_NAME)
    except (FlywheelError, OSError) as error:
        found.append(str(error))
    found += database_problems(database)
    found += _other_encoder(root, database) if not found else []
    try:
        found += _live_problems(root, database)
    except FlywheelError as error:
        if not any(str(error) in known for known in found):
            found.append(str(error))
    found += stray_problems(root)
    for version in list_versions(root):
        wrong = version_problems(root, version, database)
        if wrong and version in list_versions(root):  # else another process pruned it meanwhile
            found += wrong
    return found + _shared_problems(root, database) + _published_problems(root, database)


def _shared_problems(root: Path, database: Database) -> list[str]:
    """What the object store lacks of the live version, where hosts share versions."""
    store = store_of(database)
    if store is None:
        return []
    try:
        live = live_now(root, database)
        if live is None:
            return []
        lacking = lacking_in(store, live.version)
    except FlywheelError as error:
        return [str(error)]
    return [f"{store}: {each}; `rag-flywheel refresh` sends it again" for each in lacking]


def _published_problems(root: Path, database: Database) -> list[str]:
    """What a database of vectors lacks of the versions, where the settings name one."""
    try:
        published = published_of(settings.read_config(root / settings.FILE_NAME), database)
        if published is None:
            return []
        with closing(published):
            every = [read_manifest(root, version) for version in list_versions(root)]
            return [said for manifest in every if (said := published.lacks(root, manifest))]
    except (EngineError, ConfigError) as error:
        return [str(error)]
    except (FlywheelError, OSError):
        return []  # it was named before


def _other_encoder(root: Path, database: Database) -> list[str]:
    """Whether the settings still name the encoder before a change, or before a rollback."""
    with database.reading() as conn:
        live, known = encoders.identity(conn), encoders.known(conn)
    named = settings.read_config(root / settings.FILE_NAME).encoder
    others = {each.spec for each in known.values() if each.identity != live}
    if (
        live is None
        or live.revision not in known
        or named not in others - {known[live.revision].spec}
    ):
        return []
    return [
        f"{settings.FILE_NAME} names the encoder {named!r}, while the live version has {live.name!r}, which "
        "is used; `rag-flywheel refresh` writes it there, unless the file is a link"
    ]


def database_problems(database: Database) -> list[str]:
    """What is wrong with the database, as SQLite sees it and then row by row."""
    try:
        found = database.problems()
        if not found:
            with database.snapshot() as conn:
                found = row_problems(conn, *encoder_identity(conn))
    except FlywheelError as error:
        return [str(error)]
    return found


def encoder_identity(conn: Connection) -> tuple[str | None, int | None]:
    """(revision, width) of the encoder of an index, as the database stores them."""
    revision, dim = (journal.read_meta(conn, key) for key in ("revision", "dim"))
    if revision is None or dim is None:
        return None, None
    if not (dim.isascii() and dim.isdigit() and len(dim) <= 5):
        raise CorruptFileError(f"flywheel.db: meta 'dim' is {dim[:40]!r}; expected a width")
    return revision, int(dim)


def version_problems(root: Path, version: str, database: Database) -> list[str]:
    """What is wrong with one version: its files against its manifest, if they can be read, and whether
    it is of this database."""
    if wrong := check(root, version):
        return wrong
    try:
        manifest = read_manifest(root, version)
        load_version(
            version_folder(root, version),
            version=version,
            watermark=manifest.watermark,
            dim=manifest.dim,
            n_passages=manifest.n_passages,
        )
        load_stored_lookups(version_folder(root, version))
        if manifest.tuned is not None:
            read_taught(version_folder(root, version) / TUNED_FILE)
        with database.snapshot() as conn:
            return origin_problems(conn, manifest)
    except FlywheelError as error:
        return [f"{version}: {error}"]


def checked_before(root: Path, database: Database, version: str) -> bool:
    """Whether this release hashed and read these very files of a version before.

    Files are identified by inode, size and times, which no program can set back unnoticed.
    """
    with database.reading() as conn:
        return journal.read_meta(conn, _CHECKED) == _signature(root, version)


def note_checked(root: Path, database: Database, version: str) -> None:
    """Record that the files of a version were hashed and read, and are sound.

    Nobody waits for it: not while another program writes.
    """
    try:
        with database.transaction(durable=False, wait_s=0.0) as conn:
            journal.write_meta(conn, _CHECKED, _signature(root, version))
    except StorageError as error:  # only a note that spares the next reader the work
        log.debug("could not note that version %s was checked: %s", version, error)


def _signature(root: Path, version: str) -> str:
    return json.dumps([metadata.version("rag-flywheel"), version, fingerprint(root, version)])


def stray_problems(root: Path) -> list[str]:
    """A sentence for each entry of `versions/` that is no version."""
    folder = root / VERSIONS
    if folder.exists() and not folder.is_dir():
        return [f"{VERSIONS} is no folder; `rag-flywheel repair` moves it away"]
    return [
        f"{VERSIONS}/{name[:100]} is no version folder; `rag-flywheel repair` moves it away"
        for name in strays(root)
    ]


def _live_problems(root: Path, database: Database) -> list[str]:
    """What is wrong with CURRENT, and between it and the journal."""
    found = []
    current = read_current(root)
    with database.snapshot() as conn:
        known = current is None or journal.was_intended(conn, current)
        promoted = journal.last_promoted(conn)
        revision = journal.read_meta(conn, "revision")
        lacking = passages.count_without_vector(conn, revision) if revision else 0
        unfinished = forgetting.unfinished(conn)
    shared = store_of(database) is not None
    if current is None and promoted is not None and not shared:
        found.append(
            f"{CURRENT} is missing, though version {promoted} was made live; `rag-flywheel refresh` "
            f"builds a new version, `rag-flywheel rollback {promoted}` takes that one"
        )
    gone = current is not None and current.version not in list_versions(root)
    if current is not None and gone and read_current(root) == current:  # else moved on meanwhile
        found.append(
            f"{CURRENT} names {current.version}, which is not in {root / 'versions'}; "
            "`rag-flywheel refresh` builds a new version"
        )
    if current is not None and not gone and not known:
        found.append(
            f"{CURRENT} names {current.version}, which the journal in the database does not know; the "
            f"next open writes down there what {CURRENT} says"
        )
    if unfinished:
        found.append(
            f"{counted(len(unfinished), 'user was', 'users were')} deleted, but what was learned from "
            "them was not; `rag-flywheel refresh` finishes it"
        )
    if lacking:
        which = counted(lacking, "passage has", "passages have")
        found.append(f"{which} no vector; `rag-flywheel refresh` makes what is missing")
    return found
