"""Signing in by a key, signing out, and choosing the tenant to look at."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from rag_flywheel.errors import InputError
from rag_flywheel.service.calls import service_of
from rag_flywheel.service.dashboard.pages import (
    Page,
    PageRoute,
    key_of,
    plain_page,
    sees,
)
from rag_flywheel.service.dashboard.session import new_session
from rag_flywheel.store.service.keys import find_key
from rag_flywheel.store.service.names import tenant_named

router = APIRouter(route_class=PageRoute, include_in_schema=False)
own = APIRouter(route_class=PageRoute, include_in_schema=False)
"""The routes of one index; `router` has those of the service."""
_REFUSED = "this key is unknown, revoked, or for browsers only; `rag-flywheel keys add` makes one"


@router.get("/sign-in")
def form(request: Request) -> Response:
    """The form that asks for a key."""
    return plain_page(request, "sign_in.html", error="")


@router.post("/sign-in")
def sign_in(request: Request, key: Annotated[str, Form()] = "") -> Response:
    """Begin a session by a key, whose text is not kept."""
    found = find_key(service_of(request).state, key.strip())
    if found is None or found.public:
        return plain_page(request, "sign_in.html", 401, error=_REFUSED)
    request.state.session = new_session(found.id)
    return _to_start(request)


@router.post("/sign-out")
def sign_out(request: Request) -> Response:
    """End the session."""
    request.state.session = new_session()
    is_open = key_of(service_of(request), request.state.session) is not None
    return _to_start(request) if is_open else RedirectResponse(_root(request) + "/sign-in", 303)


@own.post("/tenant")
def tenant(page: Annotated[Page, sees("read")], tenant: Annotated[str, Form()] = "") -> Response:
    """Look at one tenant's data alone; blank: at all."""
    chosen = tenant_named(tenant.strip() or None)
    if chosen is not None and len(str(chosen)) > 200:
        raise InputError("the tenant has more than 200 characters; expected fewer")
    page.request.state.session = replace(page.session.with_tenant(chosen))
    words = "all tenants" if chosen is None else f"tenant {chosen}"
    return page.changed("/", f"This shows {words} now.")


def _root(request: Request) -> str:
    root: str = request.scope.get("root_path", "")
    return root


def _to_start(request: Request) -> Response:
    return RedirectResponse(_root(request) + "/", status_code=303)
