"""The ASGI application: what the routes share is opened at the start and closed at the end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

import rag_flywheel
from rag_flywheel.service import description, problems
from rag_flywheel.service.calls import Service
from rag_flywheel.service.guards import Guards
from rag_flywheel.service.indexes import Indexes
from rag_flywheel.service.routes import (
    feedback,
    knowledge,
    log,
    operations,
    passages,
    retrieval,
    thumbs,
    uploads,
)
from rag_flywheel.service.settings import Settings
from rag_flywheel.store.service.file import open_file

ROUTERS = (
    retrieval.router,
    feedback.router,
    passages.router,
    knowledge.router,
    log.router,
    operations.router,
    uploads.router,
    thumbs.router,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service as an ASGI application; None: the settings of the environment.

    The indexes are opened when it starts. Raises ConfigError.
    """
    settings = Settings() if settings is None else settings

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state = open_file(settings.state_file)
        try:
            indexes = Indexes.open(settings.indexes)
            try:
                app.state.service = Service(settings, indexes, state)
                yield
            finally:
                indexes.close()
        finally:
            state.close()

    app = FastAPI(
        title="rag-flywheel",
        version=rag_flywheel.__version__,
        summary="Retrieval that gets better from the people who use it.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    problems.install(app)
    app.add_middleware(Guards, settings=settings)
    for router in ROUTERS:
        app.include_router(router, prefix="/v1")
        app.include_router(router, prefix="/v1/indexes/{index}", include_in_schema=False)
    description.install(app, ROUTERS, "/v1")
    return app
