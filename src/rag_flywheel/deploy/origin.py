"""Tells versions that were built from this very database from versions of another state of it.

Such pairs come from a restored backup of the database alone, from a lost write-ahead log, or from a
folder `versions/` of another copy of the index.
"""

from pathlib import Path

from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.deploy.versions import VERSIONS, list_versions, read_manifest
from rag_flywheel.errors import CorruptFileError, NewerFormatError, UnknownIdError
from rag_flywheel.store import timeline
from rag_flywheel.store.connection import Connection


def is_own(conn: Connection, manifest: Manifest) -> bool:
    """Whether a version was built from this database and what it holds; one indexed lookup."""
    return timeline.token_of(conn, manifest.id) == manifest.token


def is_foreign(root: Path, conn: Connection, version: str) -> bool:
    """Whether a version with a sound manifest was built from another database, or from events that this
    one does not have."""
    try:
        return not is_own(conn, read_manifest(root, version))
    except (CorruptFileError, NewerFormatError, UnknownIdError):
        return False  # which is another problem


def foreign_versions(root: Path, conn: Connection) -> list[str]:
    """The versions on disk that are foreign, the oldest first."""
    return [version for version in list_versions(root) if is_foreign(root, conn, version)]


def origin_problems(conn: Connection, manifest: Manifest) -> list[str]:
    """Whether a version is foreign, or holds other passages than the database, which is read whole."""
    name = f"{VERSIONS}/{manifest.id}"
    if not is_own(conn, manifest):
        return [
            f"{name} was built from another state of the database than flywheel.db holds (a backup put in "
            "its place, a lost flywheel.db-wal, or a copy of the folder); it is not used: `rag-flywheel "
            "refresh` moves it to quarantine/ and builds a version"
        ]
    if timeline.digest_at(conn, manifest.watermark) != manifest.texts:
        return [
            f"{name} holds other passages than flywheel.db had when it was built; `rag-flywheel repair` "
            "builds a version anew"
        ]
    return []
