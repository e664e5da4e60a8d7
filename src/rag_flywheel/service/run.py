"""Starts the service: one process, or several that share a port, and ends them without losing a call."""

import ctypes
import os
import signal
import sys

import uvicorn

from rag_flywheel.deploy.folder import require_index
from rag_flywheel.errors import ConfigError
from rag_flywheel.service.app import create_app
from rag_flywheel.service.settings import PREFIX, Settings
from rag_flywheel.store.service.file import open_file
from rag_flywheel.store.service.keys import any_key

_END_S = 20  # within which running calls may end
_IDLE_S = (
    75  # after which a connection is closed that asks nothing; proxies keep theirs for a minute
)
_PR_SET_PDEATHSIG = 1
_SETTINGS, _PARENT = PREFIX + "SETTINGS", PREFIX + "PARENT"  # from the first process to the others


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError when it may not listen there without a key."""
    check(settings)
    os.environ[_SETTINGS], os.environ[_PARENT] = settings.model_dump_json(), str(os.getpid())
    common = {
        "host": settings.host,
        "port": settings.port,
        "timeout_graceful_shutdown": _END_S,
        "timeout_keep_alive": _IDLE_S,
        "log_level": "info",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
    }
    if settings.workers == 1:
        uvicorn.run(create_app(settings), **common)  # type: ignore[arg-type]
    else:
        uvicorn.run(
            "rag_flywheel.service.run:worker_app",
            factory=True,
            workers=settings.workers,
            **common,  # type: ignore[arg-type]
        )


def check(settings: Settings) -> None:
    """Raises NotAFlywheelError for a folder without an index, and ConfigError for settings that it would
    be unsafe to start with."""
    for folder in settings.indexes.values():
        require_index(folder)
    database = open_file(settings.state_file)
    try:
        has_key = any_key(database)
    finally:
        database.close()
    if not settings.on_loopback and not has_key and not settings.open_access:
        raise ConfigError(
            f"{settings.host} can be reached from other machines, and there is no key; make one by "
            "`rag-flywheel keys add NAME --scope read --scope vote`"
        )


def worker_app() -> object:
    """The application of one of several processes, which ends when the first process is gone."""
    _end_with(int(os.environ[_PARENT]))
    return create_app(Settings.model_validate_json(os.environ[_SETTINGS]))


def _end_with(parent: int) -> None:
    """End this process as by SIGTERM when its parent dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before that
        sys.exit(f"the first process of the service, {parent}, is gone")
