"""Tells in a fifth of a second whether an index can be served and is being refreshed; changes nothing.

What can be large (rows, hashes of files) is read as far as there is time (`store/time_limit.py`);
`verify` reads all. No text that users wrote is in what it says.
"""

import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rag_flywheel import config as settings
from rag_flywheel import disk
from rag_flywheel.deploy.versions import FOLDERS, VERSIONS
from rag_flywheel.disk import disk_errors
from rag_flywheel.errors import CorruptFileError, FlywheelError, ReadOnlyError, StorageError
from rag_flywheel.records import Current, Health, HealthCheck, HealthState
from rag_flywheel.report import health_of_hosts, health_of_refreshes, health_of_versions
from rag_flywheel.store import forgetting, passages
from rag_flywheel.store.database import FILE_NAME, ChangedError, Database
from rag_flywheel.store.place import is_linked, open_database
from rag_flywheel.store.time_limit import limited
from rag_flywheel.store.timeline import read_moment

_TRIES = 3
_ROOM = 64 * 2**20  # bytes that a disk should have left, whatever the size of the index
_RESTORE = "`rag-flywheel restore` a backup"
_BY_STATE: dict[HealthState, int] = {"ok": 0, "degraded": 1, "broken": 2}


def health(root: Path, *, read_only: bool = False, max_age_s: float | None = None) -> Health:
    """The state of the index folder at `root`, whatever is wrong with it.

    read_only: whether it is only served from here, so that nothing needs to be written. max_age_s: how
    long ago the last refresh may have ended, whatever it came to.
    """
    began = time.monotonic()
    used = open_database(root, read_only=True)
    try:
        for _ in range(_TRIES - 1):
            try:
                checks, current = _checks(root, used, read_only, max_age_s)
                break
            except ChangedError:
                continue
        else:
            checks, current = _checks(root, used, read_only, max_age_s)
    finally:
        used.close()
    worst = max((check.state for check in checks), key=_BY_STATE.__getitem__)
    version = None if current is None else current.version
    return Health(str(root), worst, tuple(checks), version, time.monotonic() - began)


def exit_code(found: Health) -> int:
    """0: ok, 1: degraded, 2: broken, as of the plugins of monitoring programs."""
    return _BY_STATE[found.state]


def _checks(
    root: Path, database: Database, read_only: bool, max_age_s: float | None
) -> tuple[list[HealthCheck], Current | None]:
    folder = _safely("folder", lambda: _folder(root))
    if folder.state == "broken":
        return [folder], None
    found = [folder, _safely("settings", lambda: _settings(root))]
    found.append(_safely("database", lambda: _database(root, database, read_only)))
    usable = database if found[-1].state == "ok" else None
    live = _live(root, usable)
    found += live.checks
    for name, check in (
        ("files of the live version", lambda: health_of_versions.live_files(root, usable, live)),
        ("older versions", lambda: health_of_versions.older(root, live)),
        ("refresh lock", lambda: health_of_refreshes.lock(root)),
    ):  # fmt: skip
        found.append(_safely(name, check))
    if usable is not None and live.manifest is not None:
        found += health_of_versions.published(root, usable, live.manifest)
    if usable is not None:
        found += health_of_hosts.shared(root, usable)
    if not read_only:
        found.append(_safely("disk space", lambda: _room(root)))
        found.append(_safely("permissions", lambda: _writable(root)))
    if usable is not None:
        if not read_only:
            found += _about_refreshes(root, usable, live, max_age_s)
        found.append(_safely("rows", lambda: _rows(usable)))
    return found, live.current


def _live(root: Path, database: Database | None) -> health_of_versions.Live:
    try:
        return health_of_versions.live(root, database)
    except ChangedError:
        raise
    except FlywheelError as error:
        name, said = health_of_versions.LIVE, without_values(str(error))
        check = HealthCheck(name, "broken", said, "that it can be read", _RESTORE)
        return health_of_versions.Live(checks=(check,))


def _about_refreshes(
    root: Path, database: Database, live: health_of_versions.Live, max_age_s: float | None
) -> Iterator[HealthCheck]:
    of = health_of_refreshes
    yield _safely("refreshes", lambda: of.refreshes(root, database, max_age_s))
    yield _safely("learning", lambda: of.learning(database))
    yield _safely("gate", lambda: of.gate(database))
    yield _safely("votes that wait", lambda: of.votes_waiting(database, live))
    yield _safely("users to forget", lambda: _forgets(database))


def _safely(name: str, check: Callable[[], HealthCheck]) -> HealthCheck:
    """The check; what it cannot read is a check that failed."""
    try:
        with disk_errors(Path(name)):
            return check()
    except ChangedError:
        raise
    except FlywheelError as error:
        said = without_values(str(error))
        return HealthCheck(name, "broken", said, "that it can be read", "`rag-flywheel verify`")


def without_values(sentence: str) -> str:
    """A sentence of an error without what it quotes from a row."""
    return re.split(r"(?<!\bit) holds |; the first", sentence)[0]


def _folder(root: Path) -> HealthCheck:
    name, expected = "folder", "an index folder that this user may read"

    def broken(found: str, to_do: str) -> HealthCheck:
        return HealthCheck(name, "broken", found, expected, to_do)

    if not root.is_dir():
        what = "is a file" if root.exists() else "is not there"
        return broken(
            f"{root} {what}", "give the folder of the index; `rag-flywheel add` makes one"
        )
    if not os.access(root, os.R_OK | os.X_OK) or not root.stat().st_mode & 0o500:
        return broken(f"{root} cannot be read by this user", f"chmod u+rwx {root}")
    if not (root / settings.FILE_NAME).exists():
        if any(disk.names_in(root)):
            return broken(f"{settings.FILE_NAME} is missing", f"{_RESTORE}, or write it anew")
        return broken(f"{root} holds no index", "`rag-flywheel add` makes one")
    try:
        disk.require_no_links(root, (*FOLDERS, FILE_NAME))
    except StorageError as error:
        return broken(str(error).split("; ")[0], "put the real one in its place")
    return HealthCheck(name, "ok", f"{root} is one", expected)


def _settings(root: Path) -> HealthCheck:
    name, path = "settings", root / settings.FILE_NAME
    try:
        settings.read_config(path)
    except FlywheelError as error:
        return HealthCheck(name, "broken", str(error), "settings of this release", f"mend {path}")
    return HealthCheck(name, "ok", f"{settings.FILE_NAME} can be read", "settings of this release")


def _database(root: Path, database: Database, read_only: bool) -> HealthCheck:
    """Whether it opens, is of this release, and is sound as far as is read."""
    name, expected = "database", "a sound database of this release"
    path, on_server = root / FILE_NAME, is_linked(root)

    def broken(found: str, to_do: str = _RESTORE) -> HealthCheck:
        return HealthCheck(name, "broken", found, expected, to_do)

    if on_server:
        pass
    elif not path.exists() or not path.stat().st_size:
        used = bool(disk.names_in(root, VERSIONS))
        if path.exists() or used:
            return broken(f"{FILE_NAME} is {'empty' if path.exists() else 'missing'}")
        said = f"{FILE_NAME} is missing: the index was not used yet, or it is lost"
        state: HealthState = "broken" if read_only else "degraded"
        return HealthCheck(name, state, said, expected, f"add passages, or {_RESTORE}")
    elif not path.stat().st_mode & 0o400:
        return broken(f"{path} cannot be read by its owner", f"chmod u+rw {path}")
    from rag_flywheel.store.migrations import (  # sqlite-utils takes 50 ms to load
        NotMigratedError,
        require_migrated,
    )

    try:
        require_migrated(database)
        with database.reading() as conn:
            read_moment(conn)
        wrong, whole = database.quick_problems()
        if wrong:
            return broken(wrong[0])
    except ChangedError:
        raise
    except (NotMigratedError, ReadOnlyError) as error:  # which opening it for writing mends
        state = "broken" if read_only else "degraded"
        said, to_do = (
            str(error).split(", and")[0].split(": open")[0],
            "open the index once for writing",
        )
        return HealthCheck(name, state, said, expected, to_do)
    except CorruptFileError as error:
        return broken(without_values(str(error)))
    except FlywheelError as error:
        return broken(str(error), "see what the message says")
    if on_server:
        return HealthCheck(name, "ok", "PostgreSQL answers", expected)
    part = "SQLite finds it sound" if whole else "it was looked through in part"
    return HealthCheck(name, "ok", f"{FILE_NAME} can be read; {part}", expected)


def _rows(database: Database) -> HealthCheck:
    """Whether the rows can be used, as far as they are read."""
    from rag_flywheel.deploy.verify import encoder_identity
    from rag_flywheel.store.row_checks import row_problems

    name, expected = "rows", "rows that this release can use, and a vector for each passage"
    found: list[str] = []
    with database.snapshot() as conn:
        revision, dim = encoder_identity(conn)
        with limited(conn) as left:
            found = row_problems(conn, revision, dim)
        lacking = 0
        with limited(conn):
            lacking = passages.count_without_vector(conn, revision) if revision else 0
    if found:
        to_do = f"`rag-flywheel verify` names them; {_RESTORE}"
        if all("vectors:" in each for each in found):
            return HealthCheck(
                name, "degraded", without_values(found[0]), expected, "`rag-flywheel repair`"
            )
        return HealthCheck(name, "broken", without_values(found[0]), expected, to_do)
    if lacking:
        said = f"{lacking} passages have no vector"
        return HealthCheck(name, "degraded", said, expected, "`rag-flywheel refresh` makes them")
    how = "those looked at" if left.over else "all"
    return HealthCheck(name, "ok", f"{how} can be used", expected)


def _room(root: Path) -> HealthCheck:
    """Whether there is room for records and for another version."""
    name, found = "disk space", os.statvfs(root)
    free = found.f_bavail * found.f_frsize
    live = sum(_sizes(root))
    expected = f"{_mb(live + _ROOM)} free, to record and to build another version"
    said, to_do = f"{_mb(free)} free", f"free some space where {root} is"
    if disk.is_full(root) or (found.f_files and not found.f_favail):
        said = said if disk.is_full(root) else "no file can be made: no inode is free"
        return HealthCheck(name, "broken", f"{said}: nothing can be recorded", expected, to_do)
    state: HealthState = "degraded" if free < live + _ROOM else "ok"
    return HealthCheck(name, state, said, expected, to_do if state != "ok" else "")


def _sizes(root: Path) -> Iterable[int]:
    """The bytes of the files of the newest version."""
    from rag_flywheel.deploy.files import entries_below
    from rag_flywheel.deploy.versions import list_versions, version_folder

    for version in list_versions(root)[-1:]:
        try:
            yield from (s.st_size for s in entries_below(version_folder(root, version)).values())
        except (OSError, ValueError):
            return


def _mb(n: float) -> str:
    return f"{n / 1e6:,.0f} MB"


def _writable(root: Path) -> HealthCheck:
    """Whether what is written to may be written to, by its owner and by this user."""
    name, expected = "permissions", "that this user may write to the folder"
    for path in (root, root / FILE_NAME, root / VERSIONS):
        if not path.exists():
            continue
        mode = path.stat().st_mode
        needed = os.W_OK | os.X_OK if stat.S_ISDIR(mode) else os.W_OK
        if not os.access(path, needed) or not mode & 0o200:
            to_do = f"chmod u+w {path}, or run as its owner; to serve alone, open it with read_only=True"
            return HealthCheck(name, "degraded", f"{path} cannot be written to", expected, to_do)
    return HealthCheck(name, "ok", "it may", expected)


def _forgets(database: Database) -> HealthCheck:
    name, expected = (
        "users to forget",
        "that all is gone that was learned from users who were deleted",
    )
    with database.snapshot() as conn:
        n = len(forgetting.unfinished(conn))
    if n:
        said = f"{n} were deleted, but not what was learned from them"
        return HealthCheck(name, "degraded", said, expected, "`rag-flywheel refresh` finishes it")
    return HealthCheck(name, "ok", "none is unfinished", expected)
