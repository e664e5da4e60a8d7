"""Makes an earlier version live again, and releases the votes that a rollback held back."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rag_flywheel.deploy.current import live_now
from rag_flywheel.deploy.follow import locked
from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.deploy.origin import origin_problems
from rag_flywheel.deploy.promote import make_live
from rag_flywheel.deploy.shared import bring, manifest_of
from rag_flywheel.deploy.versions import check, existing_version, read_manifest
from rag_flywheel.disk import disk_errors
from rag_flywheel.errors import CorruptFileError, EngineError, StorageError, UnknownIdError
from rag_flywheel.records import Current
from rag_flywheel.store import encoders, forgetting
from rag_flywheel.store.database import Database

if TYPE_CHECKING:
    from rag_flywheel.deploy.published import Published

_WAIT_S = 10.0


def roll_back(
    root: Path,
    database: Database,
    version: str | None,
    *,
    hold: bool,
    prepare: Callable[[Manifest], None],
    published: "Published | None" = None,
) -> Current:
    """Make `version` (None: the parent of the live one) live again, its files checked first.

    Votes that came after it was built stay stored and stop counting until `release`. hold: no
    refresh replaces it until then. prepare: called before a version of another encoder than the live one's
    goes live; what it raises leaves all as it is. published: the database of vectors that it has to be in.
    Raises UnknownIdError, CorruptFileError, EngineError, LockedError; StorageError while a user is being
    forgotten.
    """
    with disk_errors(root), locked(root, database, wait_s=_WAIT_S):
        with database.reading() as conn:
            unfinished = forgetting.unfinished(conn)
        if unfinished:
            raise StorageError(
                f"a user of {root} is to be forgotten, and its versions still hold what was learned "
                "from them; run `rag-flywheel refresh` to finish that. Older versions are deleted "
                "by it"
            )
        target = version if version is not None else _parent(root, database)
        bring(root, database, target)
        existing_version(root, target)
        problems = check(root, target)
        if not problems:
            with database.snapshot() as conn:
                problems = origin_problems(conn, read_manifest(root, target))
        if problems:
            raise CorruptFileError(
                f"version {target} cannot be rolled back to: {problems[0]}"
                + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
                + ". Choose another (see `rag-flywheel versions`)"
            )
        manifest = read_manifest(root, target)
        if published is not None and (lacking := published.lacks(root, manifest)):
            raise EngineError(f"version {target} cannot be rolled back to: {lacking}")
        with database.reading() as conn:
            live = encoders.identity(conn)
        if live is not None and (live.revision, live.dim) != (manifest.revision, manifest.dim):
            prepare(manifest)
        current = Current(target, manifest.votes_until, hold)
        make_live(root, database, "rollback", current, published=published)
    return current


def release(root: Path, database: Database) -> bool:
    """Let every stored vote count and refreshes go on again; False when neither was held back.

    Raises LockedError.
    """
    with disk_errors(root), locked(root, database, wait_s=_WAIT_S):
        current = live_now(root, database)
        if current is None or (current.frozen_at is None and not current.held):
            return False
        make_live(root, database, "release", Current(current.version))
    return True


def _parent(root: Path, database: Database) -> str:
    current = live_now(root, database)
    parent = manifest_of(root, database, current.version).parent if current else None
    if parent is None:
        raise UnknownIdError(
            f"{root} has no version before the live one to roll back to; "
            "each refresh that changes something makes one"
        )
    return parent
