"""The ASGI application: what the routes share is opened at the start and closed at the end."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

import rag_flywheel
from rag_flywheel.errors import ConfigError
from rag_flywheel.service import description, problems
from rag_flywheel.service.calls import Service
from rag_flywheel.service.dashboard import (
    ask,
    overview,
    questions,
    review,
    sign_in,
    versions,
    voters,
)
from rag_flywheel.service.dashboard import passages as passage_pages
from rag_flywheel.service.dashboard.pages import FILES, Files
from rag_flywheel.service.guards import BrowserOrigins, Guards
from rag_flywheel.service.indexes import Indexes
from rag_flywheel.service.observe import Observe
from rag_flywheel.service.observed import Observed
from rag_flywheel.service.rates import Rates
from rag_flywheel.service.routes import (
    browser,
    feedback,
    knowledge,
    log,
    operations,
    passages,
    retrieval,
    thumbs,
    ubi,
    uploads,
    watching,
)
from rag_flywheel.service.settings import Settings
from rag_flywheel.service.tokens import SECRET, Tokens
from rag_flywheel.service.watch import Watch
from rag_flywheel.store.database import Database
from rag_flywheel.store.postgres import PostgresDatabase
from rag_flywheel.store.service.counts import Counts, FileCounts, ServerCounts
from rag_flywheel.store.service.state import now, open_state, secret

logger = logging.getLogger("rag_flywheel")
ROUTERS = (
    retrieval.router,
    feedback.router,
    browser.router,
    ubi.router,
    passages.router,
    knowledge.router,
    log.router,
    operations.router,
    uploads.router,
)
PAGES = (
    sign_in.own,
    ask.router,
    overview.router,
    questions.router,
    review.router,
    versions.router,
    passage_pages.router,
    voters.router,
)
"""The dashboard: at / of the default index, and at /indexes/{name}/ of each."""


def _telemetry(traced: bool) -> TelemetryConfig:
    """What FastAPI itself may send: where nothing is traced, no request looks for where to send it; and never
    a record of a refused body, which may quote what users wrote."""
    return {"tracing": traced, "metrics": traced, "logs": False}


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service as an ASGI application; None: the settings of the environment.

    The indexes are opened when it starts. Raises ConfigError.
    """
    settings = Settings() if settings is None else settings
    kind = _kind(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        state = open_state(settings.records)
        try:
            indexes = Indexes.open(settings.indexes, kind)
            try:
                counts = _counts(settings, state)
                rates = Rates(counts, settings.calls_per_minute, settings.votes_per_minute)
                clock = partial(now, state)
                tokens = Tokens(secret(state, SECRET), settings.token_s, clock)
                app.state.ready_limiter = CapacityLimiter(2)
                app.state.service = Service(settings, indexes, state, rates, tokens)
                app.state.watch = watch = Watch(indexes, settings, state)
                watch.start()
                try:
                    yield
                finally:
                    watch.close()
                    rates.close()
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
        redirect_slashes=False,
        telemetry=_telemetry(settings.trace),
    )
    problems.install(app)
    app.add_middleware(Guards, settings=settings)
    app.add_middleware(BrowserOrigins, origins=settings.origins)
    if settings.trace:
        from rag_flywheel.service.traces import InTrace

        app.add_middleware(InTrace)
    app.add_middleware(Observe, default_index=next(iter(settings.indexes), ""))
    for router in ROUTERS:
        app.include_router(router, prefix="/v1")
        app.include_router(router, prefix="/v1/indexes/{index}", include_in_schema=False)
    app.include_router(ubi.router, include_in_schema=False)  # where its collectors expect it
    app.include_router(thumbs.router, prefix="/v1")
    app.include_router(watching.router)
    description.install(app, ROUTERS, "/v1")
    app.mount("/dashboard", Files(directory=FILES), name="dashboard")
    app.include_router(sign_in.router)
    for router in PAGES:
        app.include_router(router)
        app.include_router(router, prefix="/indexes/{index}")
    return app


def _counts(settings: Settings, state: Database) -> Counts:
    """The counters of the limits, shared by as many as share the records."""
    if isinstance(state, PostgresDatabase):
        return ServerCounts(state)
    return FileCounts(settings.local_file.with_suffix(".rates.db"))


def _kind(settings: Settings) -> type[Observed]:
    """What the indexes are opened as. Raises ConfigError without the extra `otel`, where it traces."""
    if not settings.trace:
        return Observed
    try:
        from rag_flywheel.service.traces import ObservedAndTraced
        from rag_flywheel.tracing.flywheel import set_up_exporter
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed; install the extra: pip install 'rag-flywheel[otel]'"
        ) from None
    if not set_up_exporter("rag-flywheel"):
        logger.warning(
            "spans go where the application sends them: no exporter was set up, since opentelemetry-sdk or "
            "opentelemetry-exporter-otlp-proto-http is not installed"
        )
    return ObservedAndTraced
