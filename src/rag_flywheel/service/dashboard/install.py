"""Adds the dashboard to the application: at / for the default index, and at /indexes/{name}/ for each."""

from fastapi import FastAPI, Response
from fastapi.staticfiles import StaticFiles

from rag_flywheel.service.dashboard import (
    ask,
    overview,
    passages,
    questions,
    review,
    sign_in,
    versions,
    voters,
)
from rag_flywheel.service.dashboard.pages import STATIC

ROUTERS = (
    sign_in.own,
    ask.router,
    overview.router,
    questions.router,
    review.router,
    versions.router,
    passages.router,
    voters.router,
)


class _Files(StaticFiles):
    """The script and the style sheet, never taken for anything else."""

    def file_response(self, *args: object, **named: object) -> Response:
        response = super().file_response(*args, **named)  # type: ignore[arg-type]
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-cache"
        return response


def install(app: FastAPI) -> None:
    """Add the pages and their files."""
    app.mount("/dashboard", _Files(directory=STATIC), name="dashboard")
    app.include_router(sign_in.router)
    for router in ROUTERS:
        app.include_router(router)
        app.include_router(router, prefix="/indexes/{index}")
