"""Checks of `health` on what is live, and on the files of versions."""

import hashlib
import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from rag_flywheel import config as settings
from rag_flywheel.deploy.current import live_of, read_current
from rag_flywheel.deploy.files import entries_below
from rag_flywheel.deploy.loaded import load_parameters, published_of
from rag_flywheel.deploy.manifest import Manifest
from rag_flywheel.deploy.origin import is_own
from rag_flywheel.deploy.shared import store_of
from rag_flywheel.deploy.verify import checked_before, encoder_identity, stray_problems
from rag_flywheel.deploy.versions import (
    CURRENT,
    MANIFEST,
    VERSIONS,
    list_versions,
    read_manifest,
    version_folder,
)
from rag_flywheel.disk import regular_file
from rag_flywheel.errors import (
    CorruptFileError,
    EngineError,
    FlywheelError,
    NewerFormatError,
    OlderFormatError,
    UnknownIdError,
    counted,
)
from rag_flywheel.records import Current, HealthCheck
from rag_flywheel.store import encoders, journal, timeline, wall_clock
from rag_flywheel.store.database import ChangedError, Database
from rag_flywheel.store.time_limit import Limit, limited

LIVE, _FILES, _ENGINE = "live version", "files of the live version", "engine"
_BUILD = "`rag-flywheel refresh` builds a version from the database"
_OLD_S = 7 * 86_400.0  # a rollback that lasts longer may have been forgotten
_AT_ONCE = 2**18  # bytes


@dataclass(frozen=True)
class Live:
    """What is live: CURRENT's, the manifest that can be read, and the checks that led there."""

    current: Current | None = None
    manifest: Manifest | None = None
    checks: tuple[HealthCheck, ...] = ()


def live(root: Path, database: Database | None) -> Live:
    """What CURRENT names, and whether it can be served; database: None: it cannot be used."""
    expected = "a version that was built from this database"
    found = Live()

    def with_check(state: str, said: str, to_do: str = "", of: Live = found) -> Live:
        check = HealthCheck(LIVE, state, said, expected, to_do)  # type: ignore[arg-type]
        return replace(of, checks=(*of.checks, check))

    try:
        current = read_current(root)
    except (FlywheelError, OSError) as error:
        to_do = f"{_BUILD}; `rag-flywheel rollback ID` takes an earlier one"
        return with_check("broken", str(error), to_do)
    if current is None:
        return with_check(*_none(database))
    found = Live(current)
    try:
        found = replace(found, manifest=read_manifest(root, current.version))
    except (CorruptFileError, NewerFormatError, UnknownIdError, OSError) as error:
        gone = isinstance(error, UnknownIdError)
        said = f"{CURRENT} names {current.version}, which is not there" if gone else str(error)
        older = isinstance(error, OlderFormatError)
        to_do = _BUILD if older or gone else "`rag-flywheel repair`, or `rag-flywheel rollback`"
        return with_check("broken", said, to_do, found)
    if database is None:
        return with_check("ok", f"{CURRENT} names {current.version}", of=found)
    return with_check(*_against_database(root, database, found), of=found)


def _none(database: Database | None) -> tuple[str, str, str]:
    if database is None:
        return "ok", f"there is no {CURRENT}", ""
    with database.snapshot() as conn:
        promoted = journal.last_promoted(conn)
    if promoted is not None and store_of(database) is not None:
        return "degraded", f"{promoted} was not fetched yet", "ask a question, which fetches it"
    if promoted is None:
        return "ok", "none was built yet: answers come from the database", ""
    said = f"{CURRENT} is missing, though {promoted} was made live: what votes taught does not act"
    return "broken", said, f"{_BUILD}; `rag-flywheel rollback {promoted}` takes that one"


def _against_database(root: Path, database: Database, found: Live) -> tuple[str, str, str]:
    current, manifest = found.current, found.manifest
    assert current is not None and manifest is not None
    with database.snapshot() as conn:
        own, known = is_own(conn, manifest), journal.was_intended(conn, current)
        noted = encoders.known(conn)
        live = encoder_identity(conn)
        since = journal.last_live_change_at(conn)
        same_texts = True
        with limited(conn):
            same_texts = timeline.digest_at(conn, manifest.watermark) == manifest.texts
    name = current.version
    if not own:
        return _foreign(root, database, name)
    # another one is noted for the moment in which a version of it goes live
    if (manifest.revision, manifest.dim) != live and manifest.revision not in noted:
        return "broken", f"{name} was built with another encoder than the database names", _BUILD
    if not same_texts:
        return (
            "broken",
            f"{name} holds other passages than the database had then",
            "`rag-flywheel repair`",
        )
    if not known:
        said = f"{CURRENT} names {name}, which the journal in the database does not know as live"
        return "degraded", said, "nothing, if it was put there by hand: the next open notes it"
    said, to_do = _rolled_back(current), "`rag-flywheel release` ends it"
    if said:
        old = since is not None and wall_clock.now() - since > _OLD_S
        return (
            ("degraded", f"{name}, {said} for more than 7 days", to_do)
            if old
            else ("ok", f"{name}, {said}", "")
        )
    return "ok", f"{CURRENT} names {name}", ""


def _rolled_back(current: Current) -> str:
    if current.frozen_at is None:
        return "held by hand" if current.held else ""
    held = ", and refreshes are held back," if current.held else ""
    return f"after a rollback{held} votes after event {current.frozen_at} do not count"


def _foreign(root: Path, database: Database, name: str) -> tuple[str, str, str]:
    said = f"{name} was built from another state of the database, and is not used"
    try:
        instead = live_of(root, database)
    except ChangedError:
        raise
    except FlywheelError:
        instead = None
    if instead is None:
        return "broken", f"{said}: what votes taught does not act", _BUILD
    return "degraded", f"{said}; {instead.version} answers instead", _BUILD


def live_files(root: Path, database: Database | None, found: Live) -> HealthCheck:
    """Whether the files of the live version are those of its manifest: hashed, unless they have not
    changed since that was done, as far as there is time."""
    expected, to_do = (
        "the files of its manifest",
        "`rag-flywheel repair`, or `rag-flywheel rollback`",
    )
    manifest = found.manifest
    if manifest is None:
        return HealthCheck(_FILES, "ok", "there are none to look at", expected)
    if wrong := _wrong_sizes(root, manifest):
        return HealthCheck(_FILES, "broken", wrong, expected, to_do)
    folder = version_folder(root, manifest.id)
    if database is not None and checked_before(root, database, manifest.id):
        said = "they have not changed since they were hashed"
        return HealthCheck(_FILES, "ok", said, expected)
    limit, n_bytes = Limit(), 0
    files = _there(folder, manifest)
    for name, (digest, size) in sorted(files.items(), key=lambda item: item[1][1]):
        hashed = _hashed(folder / name, limit)
        if hashed is None:
            total = sum(size for _, size in files.values())
            said = f"their sizes are right; {n_bytes / 1e6:.1f} of {total / 1e6:.1f} MB were hashed"
            return HealthCheck(_FILES, "ok", said, expected)
        if hashed != digest:
            said = f"{manifest.id}/{name} is not what its manifest says"
            return HealthCheck(_FILES, "broken", said, expected, to_do)
        n_bytes += size
    load_parameters(folder)
    return HealthCheck(_FILES, "ok", f"all {len(files)} have the right hash", expected)


def _there(folder: Path, manifest: Manifest) -> Mapping[str, tuple[str, int]]:
    """The files of a version without those that may be missing and are."""
    derived = {n: of for n, of in manifest.derived.items() if os.path.lexists(folder / n)}
    return {**manifest.files, **derived}


def _hashed(path: Path, limit: Limit) -> str | None:
    """The hash of a file; None when the time is over."""
    whole = hashlib.sha256()
    with regular_file(path) as (file, _):
        while part := file.read(_AT_ONCE):
            whole.update(part)
            if limit.reached():
                return None
    return whole.hexdigest()


def _wrong_sizes(root: Path, manifest: Manifest) -> str:
    """The first file that is missing, too many, unreadable, or of another size; "" where there is none."""
    folder = version_folder(root, manifest.id)
    try:
        present = entries_below(folder)
    except (OSError, ValueError) as error:
        return f"{manifest.id} cannot be looked through ({error})"
    for name, (_, size) in sorted(manifest.every.items()):
        state = present.pop(name, None)
        if state is None:
            if name in manifest.derived:
                continue
            return f"{manifest.id}/{name} is missing"
        if state.st_size != size:
            return f"{manifest.id}/{name} has {state.st_size} bytes; its manifest says {size}"
        if not os.access(folder / name, os.R_OK) or not state.st_mode & 0o400:
            return f"{manifest.id}/{name} cannot be read"
    extra = sorted(present.keys() - {MANIFEST})
    return f"{manifest.id}/{extra[0]} is not in its manifest" if extra else ""


def older(root: Path, found: Live) -> HealthCheck:
    """Whether the other versions have the files of their manifests, by their sizes."""
    name, expected = "older versions", "versions that `rollback` can make live"
    wrong = stray_problems(root)
    versions = [
        v for v in list_versions(root) if found.current is None or v != found.current.version
    ]
    for version in versions:
        try:
            problem = _wrong_sizes(root, read_manifest(root, version))
        except (FlywheelError, OSError) as error:
            problem = f"{VERSIONS}/{version}: {error}"
        if problem and version in list_versions(root):  # else it was pruned meanwhile
            wrong.append(problem)
    if wrong:
        return HealthCheck(name, "degraded", wrong[0], expected, "`rag-flywheel repair`")
    return HealthCheck(
        name, "ok", f"{counted(len(versions), 'version')} besides the live one", expected
    )


def published(root: Path, database: Database, manifest: Manifest) -> list[HealthCheck]:
    """Whether the live version is in the database of vectors that the settings name; none without one."""
    expected = "the passages of the live version, in what `engine` in the settings names"
    try:
        config = settings.read_config(root / settings.FILE_NAME)
        found = published_of(config, database)
        if found is None:
            return []
        with closing(found):
            if not found.holds(root, manifest):
                said = f"version {manifest.id} was built before the settings named {config.engine}"
                return [HealthCheck(_ENGINE, "degraded", said, expected, "`rag-flywheel refresh`")]
            if (lacking := found.lacks(root, manifest)) is not None:
                return [HealthCheck(_ENGINE, "broken", lacking, expected, "`rag-flywheel refresh`")]
    except EngineError as error:
        return [HealthCheck(_ENGINE, "broken", str(error), expected, "see what the message says")]
    except FlywheelError:
        return []  # another check names it
    return [HealthCheck(_ENGINE, "ok", f"{config.engine} holds them", expected)]
