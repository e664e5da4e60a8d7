"""Starts the service: one process, or several that share a port, and ends them without losing a call."""

import asyncio
import ctypes
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from rag_flywheel.deploy.folder import require_index
from rag_flywheel.errors import ConfigError
from rag_flywheel.service import logs, metrics
from rag_flywheel.service.app import create_app
from rag_flywheel.service.scratch import hold, scratch_folder
from rag_flywheel.service.settings import PREFIX, Settings
from rag_flywheel.store.service.keys import any_key
from rag_flywheel.store.service.state import open_state

_END_S = 20  # within which running calls may end
_IDLE_S = (
    75  # after which a connection is closed that asks nothing; proxies keep theirs for a minute
)
_STARTS_S = 120  # by then it answers, or is ended; on a busy machine imports take long
_PR_SET_PDEATHSIG = 1
_SETTINGS, _PARENT = PREFIX + "SETTINGS", PREFIX + "PARENT"  # from the first process to the others


class Prompt(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """HTTP that sends each packet at once, by httptools where it is installed.

    asyncio sees to that only where it opens the socket itself. Where processes share one, the second
    packet of an answer would wait 40 ms for the caller to acknowledge the first.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin a connection."""
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError when it may not listen there without a key."""
    check(settings)
    os.environ[_SETTINGS], os.environ[_PARENT] = settings.model_dump_json(), str(os.getpid())
    common = {
        "http": Prompt,
        "host": settings.host,
        "port": settings.port,
        "timeout_graceful_shutdown": _END_S,
        "timeout_keep_alive": _IDLE_S,
        "log_config": logs.config(settings.log_format),
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
    }
    if settings.workers == 1:
        uvicorn.run(create_app(settings), **common)  # type: ignore[arg-type]
    else:
        with scratch_folder() as counts:
            os.environ[metrics.FOLDER] = str(
                counts
            )  # for the other processes, which begin after this
            uvicorn.run(
                "rag_flywheel.service.run:worker_app",
                factory=True,
                workers=settings.workers,
                timeout_worker_healthcheck=_STARTS_S,
                **common,  # type: ignore[arg-type]
            )


def check(settings: Settings) -> None:
    """Raises NotAFlywheelError for a folder without an index, and ConfigError for settings that it would
    be unsafe to start with."""
    for folder in settings.indexes.values():
        require_index(folder)
    database = open_state(settings.records)
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
    hold(Path(os.environ[metrics.FOLDER]))  # for as long as this process lives
    return create_app(Settings.model_validate_json(os.environ[_SETTINGS]))


def _end_with(parent: int) -> None:
    """End this process as by SIGTERM when its parent dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before that
        sys.exit(f"the first process of the service, {parent}, is gone")
