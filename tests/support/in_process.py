"""Indexes behind a service, for tests: an application in this process, and clients of it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from starlette.testclient import TestClient

from rag_flywheel.client import AsyncClient, Client
from rag_flywheel.service.app import create_app
from rag_flywheel.service.settings import Settings
from shared_state import state_of

URL = "http://127.0.0.1:8000"


def application(folder: Path, **settings: Any) -> FastAPI:
    """The service of one index, `kb`, without any variable of the environment."""
    settings = {
        "warm": False,
        "numbers_s": 3_600.0,
        "coverage_s": 0.0,
        "state": state_of(folder),
        **settings,
    }
    return create_app(Settings(indexes={"kb": folder}, **settings))


@contextmanager
def http_of(folder: Path, **settings: Any) -> Iterator[TestClient]:
    """The service of an index, to be called by plain HTTP."""
    app = application(folder, **settings)
    with TestClient(app, base_url=URL, raise_server_exceptions=False) as http:
        yield http


@contextmanager
def client_of(folder: Path, **settings: Any) -> Iterator[Client]:
    """A client of the service of an index."""
    with http_of(folder, **settings) as http, Client(URL, http=http) as client:
        yield client


class Blocking:
    """An object whose coroutines are run to their end."""

    def __init__(self, of: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._of, self._loop = of, loop

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._of, name)
        if not callable(value):
            return Blocking(value, self._loop)
        return lambda *given, **named: self._loop.run_until_complete(value(*given, **named))


@contextmanager
def async_client_of(folder: Path, **settings: Any) -> Iterator[Any]:
    """The same with an AsyncClient, each call of which is waited for."""
    app, loop = application(folder, **settings), asyncio.new_event_loop()
    lifespan = app.router.lifespan_context(app)
    loop.run_until_complete(lifespan.__aenter__())
    try:
        http = httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False))
        client = Blocking(AsyncClient(URL, http=http), loop)
        yield client
        client.close()
        loop.run_until_complete(http.aclose())
    finally:
        loop.run_until_complete(lifespan.__aexit__(None, None, None))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
