"""What every page shares: the session and its call of the library, templates, headers, and error pages."""

import time
from collections.abc import Callable, Coroutine, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, urlencode

from fastapi import Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from rag_flywheel.errors import FlywheelError
from rag_flywheel.flywheel import Flywheel
from rag_flywheel.formats.printable import printable
from rag_flywheel.service.calls import (
    ANYBODY,
    Call,
    Needs,
    Service,
    TenantArguments,
    is_open,
    service_of,
)
from rag_flywheel.service.dashboard.aged import FRESH_S, WAIT_S, Aged, AgedResults
from rag_flywheel.service.dashboard.session import Session, Sessions, new_session
from rag_flywheel.service.problems import Refused, status_of
from rag_flywheel.store.service.keys import Key, Scope, key_by_id
from rag_flywheel.store.service.names import tenant_named

_HERE = Path(__file__).parent
FILES = _HERE / "static"
PER_PAGE = 25
THEME = "fw_theme"
_SHORT = 400  # characters of a text in a list
_CONTROL = {c: "�" for c in [*range(32), *range(127, 160)] if chr(c) not in "\n\t\r"}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with none at all, browsers hide the origin of forms
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""On every page: nothing is loaded from elsewhere, no script or style stands in a page, none may frame it."""
SCREENS: tuple[tuple[str, str, Scope, bool], ...] = (
    ("/", "Ask", "read", False),
    ("/overview", "Overview", "read", False),
    ("/questions", "Questions", "review", False),
    ("/gaps", "Gaps", "review", False),
    ("/review", "Review", "review", False),
    ("/versions", "Versions", "read", True),
    ("/passages", "Passages", "read", False),
    ("/voters", "Voters", "review", True),
    ("/coverage", "Coverage", "review", False),
    ("/health", "Health", "read", True),
)
"""(path, name, the scope it needs, whether it concerns all tenants) of each screen."""
T = TypeVar("T")
Part = Annotated[int, Query(alias="part", ge=1, description="Of a list that has several.")]


def short(text: object, most: int = _SHORT) -> str:
    """A text to be read, cut where it is long, with what cannot be seen as escapes."""
    whole = str(text)
    return printable(whole[:most] + "…" if len(whole) > most else whole)


class Files(StaticFiles):
    """The script, the style sheet and the icon, never taken for anything else."""

    def file_response(self, *args: Any, **named: Any) -> Response:
        """The response with a file."""
        response = super().file_response(*args, **named)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-cache"
        return response


def without_controls(text: str) -> str:
    """A text with a mark in place of each control character, which no page may hold, not even in a field."""
    return text.translate(_CONTROL)


def bar(value: float, most: float, label: str) -> Markup:
    """A small bar from the middle, to the right above 0 and to the left below."""
    share = 0.0 if most <= 0 else min(1.0, abs(value) / most)
    x = 50.0 if value >= 0 else 50.0 - 50.0 * share
    side = "for" if value >= 0 else "against"
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="ground" width="100" height="8"/><rect class="{}" x="{}" width="{}" height="8"/></svg>'
    ).format(label, side, f"{x:.1f}", f"{50.0 * share:.1f}")


def share_bar(value: float, label: str) -> Markup:
    """A small bar of a share, from 0 to 1."""
    return Markup(
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="ground" width="100" height="8"/><rect class="for" width="{}" height="8"/></svg>'
    ).format(label, f"{100.0 * min(1.0, max(0.0, value)):.1f}")


_TEMPLATES = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["short"] = short
_TEMPLATES.globals |= {"bar": bar, "share_bar": share_bar}


@dataclass(frozen=True)
class Dashboard:
    """What the pages share: `request.app.state.dashboard`."""

    sessions: Sessions
    results: AgedResults


class SignInNeeded(Exception):  # noqa: N818 - it leads to the form
    """Nobody has signed in, and it is not open to everybody."""


def dashboard_of(request: Request) -> Dashboard:
    """What the pages share, made with the first of them."""
    state = request.app.state
    service = service_of(request)
    found: tuple[object, Dashboard] | None = getattr(state, "dashboard", None)
    if found is None or found[0] is not service:
        found = state.dashboard = (service, Dashboard(Sessions(service.state), AgedResults()))
    return found[1]


@dataclass(frozen=True)
class Page:
    """One visit of a page that the visitor may see."""

    request: Request
    call: Call
    began: float = field(default_factory=time.time)

    @cached_property
    def changed_here(self) -> float:
        """When the visitor last changed something, by the clock of this host."""
        if not self.session.changed:
            return 0.0
        clock = dashboard_of(self.request).sessions.clock
        return self.session.changed + time.time() - clock()

    @property
    def fw(self) -> Flywheel:
        """The index."""
        return self.call.fw

    @property
    def key(self) -> Key:
        """The key that the visitor acts by."""
        return self.call.key

    @property
    def session(self) -> Session:
        """The visitor's session."""
        session: Session = self.request.state.session
        return session

    def may(self, scope: Scope, *, whole_index: bool = False) -> bool:
        """Whether the visitor's key has a scope; whole_index: and is bound to no tenant."""
        return scope in self.key.scopes and not (whole_index and self.key.tenant is not None)

    @property
    def has_tenants(self) -> bool:
        """Whether the index has tenants."""
        return self.fw.config.tenant_key is not None

    @property
    def tenant_field(self) -> str:
        """The chosen tenant as the field for it is filled in."""
        chosen, stored = self.session.chosen_tenant, self.session.tenant
        if chosen is None or stored is None:
            return ""
        return str(chosen) if tenant_named(str(chosen)) == chosen else stored

    @property
    def tenant(self) -> TenantArguments:
        """Whose data the page shows: the tenant of the key, or the one that was chosen, or all."""
        if self.key.tenant is not None or not self.has_tenants:
            return self.call.tenant()
        chosen = self.session.chosen_tenant
        return self.call.tenant(chosen, chosen is None)

    @property
    def scope(self) -> Hashable:
        """What names the results that this visitor may be shown."""
        found = self.tenant
        return self.call.name, type(found["tenant"]).__name__, found["tenant"]

    def aged(
        self, what: Hashable, compute: Callable[[], T], *, fresh_s: float | None = None
    ) -> Aged[T]:
        """A result of the library for this visitor's index and tenant, which may take its time."""
        return dashboard_of(self.request).results.get(
            (self.scope, what),
            compute,
            since=self.changed_here,
            fresh_s=FRESH_S if fresh_s is None else fresh_s,
            until=self.began + WAIT_S,
        )

    def url(self, path: str, **query: object) -> str:
        """The address of a page of this index."""
        given = {name: value for name, value in query.items() if value not in (None, "")}
        base = self.request.scope.get("root_path", "")
        if "index" in self.request.path_params:
            base += f"/indexes/{quote(self.call.name)}"
        return f"{base}{path}" + (f"?{urlencode(given)}" if given else "")

    def render(self, template: str, *, status: int = 200, **context: object) -> Response:
        """A page from a template."""
        named = {
            "page": self,
            "url": self.url,
            "screens": [s for s in SCREENS if self._shows(*s)],
            "here": self._here(),
            "indexes": self._indexes(),
        }
        return _render(self.request, template, status, {**named, **context})

    def changed(self, path: str, notice: str, **query: object) -> Response:
        """Go to a page, which tells what was done and shows nothing older than that."""
        now = dashboard_of(self.request).sessions.clock()
        session = replace(self.session.with_notice(notice), changed=now)
        self.request.state.session = session
        return RedirectResponse(self.url(path, **query), status_code=303)

    def _shows(self, path: str, _: str, scope: Scope, whole_index: bool) -> bool:
        return self.may(scope, whole_index=whole_index) and (
            path != "/coverage" or hasattr(self.fw, "coverage")
        )

    def _here(self) -> str:
        base, path = self.url(""), self.request.url.path
        first = path.removeprefix(base).strip("/").split("/")[0]
        return "/" if first == "ask" else f"/{first}"

    def _indexes(self) -> list[tuple[str, str, bool]]:
        names = [
            name
            for name, _ in self.call.service.indexes
            if self.key.indexes is None or name in self.key.indexes
        ]
        base = self.request.scope.get("root_path", "")
        return [(n, f"{base}/indexes/{quote(n)}/", n == self.call.name) for n in names]


def sees(scope: Scope, *, whole_index: bool = False) -> Any:
    """A dependency: the visit of a page by a key with this scope."""
    return Depends(Sees(scope, whole_index))


@dataclass(frozen=True)
class Sees:
    """What the key of a visitor must be for. whole_index: it must be bound to no tenant."""

    scope: Scope
    whole_index: bool = False

    async def __call__(self, request: Request) -> Page:
        """The visit, allowed by the rule of the API. Raises SignInNeeded, Refused, UnknownIdError."""
        key = await run_in_threadpool(key_of, service_of(request), request.state.session)
        if key is None:
            raise SignInNeeded
        return Page(request, Needs(self.scope, self.whole_index).allowed(request, key))


def key_of(service: Service, session: Session) -> Key | None:
    """The key that a session acts by; None: one has to sign in."""
    if session.key_id is not None:
        found = key_by_id(service.state, session.key_id)
        if found is not None and not found.public:
            return found
    return ANYBODY if is_open(service) else None


def part(items: Sequence[T], number: int) -> tuple[Sequence[T], int, int]:
    """The items of one part of a list, its number and how many parts there are."""
    n = max(1, -(-len(items) // PER_PAGE))
    number = min(max(1, number), n)
    return items[(number - 1) * PER_PAGE : number * PER_PAGE], number, n


def _render(request: Request, template: str, status: int, context: dict[str, object]) -> Response:
    session: Session = request.state.session
    theme = request.cookies.get(THEME, "")
    shared = {
        "root": request.scope.get("root_path", ""),
        "form_token": dashboard_of(request).sessions.form_token(session),
        "signed_in": session.key_id is not None,
        "notice": session.notice,
        "theme": theme if theme in ("light", "dark") else "",
    }
    if session.notice:
        request.state.session = replace(session, notice="")
    text = _TEMPLATES.get_template(template).render(**shared, **context)
    return HTMLResponse(without_controls(text).encode("utf-8", "replace"), status)


def plain_page(request: Request, template: str, status: int = 200, **context: object) -> Response:
    """A page for somebody who may not have signed in."""
    return _render(request, template, status, {"page": None, **context})


class PageRoute(APIRoute):
    """A route of pages: forms must have the session's token, and errors are pages too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler that reads the session first, and sets its cookie at the end."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            sessions = (await run_in_threadpool(dashboard_of, request)).sessions
            stored = await run_in_threadpool(sessions.read, request)
            session = request.state.session = stored or new_session()
            try:
                if request.method == "POST":
                    form = await request.form()
                    if not sessions.is_form_token(session, form.get("form_token")):
                        raise Refused(
                            403,
                            "Forbidden",
                            "this form is not of your session; go back, reload the page, and send it again",
                        )
                response = await handle(request)
            except SignInNeeded:
                response = RedirectResponse(
                    request.scope.get("root_path", "") + "/sign-in", status_code=303
                )
            except (Refused, FlywheelError, RequestValidationError, HTTPException) as error:
                response = _error_page(request, error)
            if request.state.session != stored:
                session = request.state.session
                await run_in_threadpool(sessions.write, request, response, session)
            response.headers.update(HEADERS)
            return response

        return handled


def _error_page(request: Request, error: Exception) -> Response:
    if isinstance(error, Refused):
        status, message = error.status, error.message
    elif isinstance(error, RequestValidationError):
        first = error.errors()[0]
        status, message = 422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    elif isinstance(error, HTTPException):
        status, message = error.status_code, str(error.detail)
    else:
        assert isinstance(error, FlywheelError)
        status, message = status_of(error), str(error)
    title = HTTPStatus(status).phrase
    return plain_page(request, "error.html", status, title=title, message=message)
