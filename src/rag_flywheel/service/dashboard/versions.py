"""The screens of versions: their story, comparing two, rolling back, and refreshing."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Form, Response
from fastapi.responses import RedirectResponse

from rag_flywheel.errors import UnknownIdError, quoted
from rag_flywheel.records import VersionInfo
from rag_flywheel.service import jobs
from rag_flywheel.service.dashboard.pages import Page, PageRoute, sees

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Watcher = Annotated[Page, sees("read", whole_index=True)]
Reviewer = Annotated[Page, sees("review", whole_index=True)]
Operator = Annotated[Page, sees("admin", whole_index=True)]
_HISTORY = 40
_COMPARED = 200  # questions
_MOST_CHANGED = 40  # that are listed
_COMPARED_FOR_S = 600.0


@router.get("/versions")
def versions(page: Watcher) -> Response:
    """The versions on disk, and what happened to the index."""
    status = page.aged("status", page.fw.status)
    found = page.fw.versions()
    return page.render(
        "versions.html",
        versions=found,
        live=next((each.id for each in found if each.live), ""),
        history=page.fw.history(_HISTORY, **page.tenant) if page.may("review") else [],
        numbers=status,
        jobs=jobs.listed(page.call.service.state, page.call.name)[:5] if page.may("admin") else [],
    )


@router.get("/versions/one")
def version(page: Watcher, id: str = "") -> Response:
    """How a version got its parameters."""
    return page.render(
        "version.html", info=_info(page, id), story=page.fw.explain_version(id), others=_ids(page)
    )


@router.get("/versions/compare")
def compare(page: Reviewer, before: str = "", after: str = "") -> Response:
    """The questions that two versions answer otherwise."""
    _info(page, before), _info(page, after)
    compute = partial(page.fw.compare, before, after, n=_COMPARED)
    found = page.aged(("compare", before, after), compute, fresh_s=_COMPARED_FOR_S)
    return page.render("compare.html", before=before, after=after, found=found, most=_MOST_CHANGED)


@router.get("/versions/rollback")
def confirm(page: Operator, id: str = "") -> Response:
    """Ask whether a version is to be live again."""
    live = next((each for each in page.fw.versions() if each.live), None)
    return page.render("confirm_rollback.html", info=_info(page, id), live=live)


@router.post("/versions/rollback")
def roll_back(
    page: Operator, id: Annotated[str, Form()] = "", hold: Annotated[str, Form()] = ""
) -> Response:
    """Make a version live again."""
    live = page.fw.rollback(_info(page, id).id, hold=bool(hold))
    return page.changed("/versions", f"Rolled back: {live} is live.")


@router.post("/versions/release")
def release(page: Operator) -> Response:
    """End a rollback."""
    done = page.fw.release()
    words = "Released: later votes count again." if done else "Nothing was held back."
    return page.changed("/versions", words)


@router.post("/versions/refresh")
def refresh(page: Operator, tune: Annotated[str, Form()] = "") -> Response:
    """Begin a refresh, and go to its progress."""
    folder = page.call.service.settings.indexes[page.call.name]
    job = jobs.begin(
        page.call.service.state, page.call.name, folder, "refresh", {"tune": bool(tune)}
    )
    return RedirectResponse(page.url("/versions/job", id=job.id), status_code=303)


@router.get("/versions/job")
def job(page: Operator, id: str = "") -> Response:
    """A job, and how far it is."""
    found = jobs.find(page.call.service.state, page.call.name, id)
    return page.render("job.html", job=found)


@router.post("/versions/cancel")
def cancel(page: Operator, id: Annotated[str, Form()] = "") -> Response:
    """Stop a job."""
    jobs.cancel(page.call.service.state, page.call.name, id)
    return RedirectResponse(page.url("/versions/job", id=id), status_code=303)


def _info(page: Page, id_: str) -> VersionInfo:
    for each in page.fw.versions():
        if each.id == id_:
            return each
    raise UnknownIdError(f"no version {quoted(id_)} is on the disk; expected one that is listed")


def _ids(page: Page) -> list[str]:
    return [each.id for each in page.fw.versions()]
