"""Who calls, and what they may do: a route says which scope it needs, and gets the index to use."""

import ipaddress
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypedDict

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from rag_flywheel.service.guards import is_for_browsers
from rag_flywheel.service.indexes import Indexes
from rag_flywheel.service.problems import Refused
from rag_flywheel.service.rates import Rates
from rag_flywheel.service.settings import Settings
from rag_flywheel.service.tokens import Tokens
from rag_flywheel.store.database import Database
from rag_flywheel.store.service.keys import SCOPES, Key, Scope, any_key, find_key
from rag_flywheel.store.service.requests import Seen
from rag_flywheel.store.tenants import Tenant

if TYPE_CHECKING:
    from rag_flywheel.service.observed import Observed

ANYBODY = Key("", "open access", SCOPES, None, None, False, 0.0)
"""Who calls without a key where none is needed: on loopback, as long as no key was made."""


@dataclass(frozen=True)
class Service:
    """What the routes share: `request.app.state.service`."""

    settings: Settings
    indexes: Indexes
    state: Database
    rates: Rates
    tokens: Tokens


class TenantArguments(TypedDict):
    """How a call of the library names a tenant, or asks for all."""

    tenant: Tenant | None
    all_tenants: bool


@dataclass(frozen=True)
class Call:
    """One allowed call: the index it is for, and who calls.

    tried: what the indexes held when the same request was first tried, if that ended without an answer, so
        that it may have been done; None: it was not.
    """

    service: Service
    name: str
    key: Key
    tried: Seen | None = None

    @property
    def fw(self) -> "Observed":
        """The index."""
        return self.service.indexes[self.name]

    def tenant(self, tenant: Tenant | None = None, all_tenants: bool = False) -> TenantArguments:
        """The tenant that the call is for: that of the key, where it is bound to one.

        Raises Refused when a key that is bound to a tenant asks for another one, or for all.
        """
        bound = self.key.tenant
        if bound is None:
            return {"tenant": tenant, "all_tenants": all_tenants}
        other = tenant is not None and (type(tenant), tenant) != (type(bound), bound)
        if other or all_tenants:
            raise Refused(
                403, "Forbidden", "this key is bound to another tenant than the one asked for"
            )
        return {"tenant": bound, "all_tenants": False}

    def require_first(self, what: str) -> None:
        """Raises Refused, with 409, where a first attempt may have done what must not be done twice.

        what: shows whether it did, as "GET /v1/versions".
        """
        if self.tried is not None:
            raise Refused(
                409,
                "OutcomeUnknown",
                "the first attempt ended without an answer, so this may be done; look at "
                f"{what}, and send it with another Idempotency-Key if it is not",
            )

    def count_votes(self, *votes: tuple[str | None, str]) -> None:
        """Count votes, given as (user id, retrieval id), towards the limits. Raises Refused with 429."""
        hashed = [(None if user is None else self.fw.hashed_user(user), id_) for user, id_ in votes]
        self.service.rates.votes(hashed, self.name, free=self.key is ANYBODY)


def service_of(request: Request) -> Service:
    """What the routes share."""
    service: Service = request.app.state.service
    return service


class KeyRoute(APIRoute):
    """A route that knows who calls before it reads what is sent."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler that asks for the key first."""
        handle = super().get_route_handler()

        async def known(request: Request) -> Response:
            if service_of(request).state.REMOTE:
                await run_in_threadpool(key_in, request)
            else:  # reading a file takes less than the way to another thread
                key_in(request)
            return await handle(request)

        return known


def key_in(request: Request) -> Key:
    """The key that a request comes with, read from its headers alone.

    A request is counted once, towards the calls of its key. Raises Refused, with 401 without a key that is
    known, and with 429 beyond the limit of its calls.
    A route has asked for it before its dependencies do, so that these never wait.
    """
    found: Key | None = getattr(request.state, "key", None)
    if found is None:
        service = service_of(request)
        found = _key_given(service, _given(request))
        if not found.public and found is not ANYBODY and _in_address(request):
            raise _unauthorized(
                "found a secret key in the address, where logs keep it; send it as a header, "
                "and revoke it"
            )
        use = service.rates.call(_counted_as(found, request), free=found is ANYBODY)
        request.state.key = found
        if use is not None:
            request.state.headers = use.headers
    return found


def _given(request: Request) -> list[str]:
    """The keys that a request names; a page may name a public one in its address, as sendBeacon sends no
    headers."""
    given = [
        words.partition(" ")[2].strip()
        for words in request.headers.getlist("authorization")
        if words.partition(" ")[0].lower() == "bearer"
    ]
    given += request.headers.getlist("x-api-key")
    return given + _in_address(request)


def _in_address(request: Request) -> list[str]:
    asked = is_for_browsers(request.scope["path"])
    return request.query_params.getlist("key") if asked else []


def _key_given(service: Service, given: Sequence[str]) -> Key:
    """The key with these texts, which must be one. Raises Refused with 401 without one that is known."""
    if not given:
        if is_open(service):
            return ANYBODY
        raise _unauthorized("found no key; send one as Authorization: Bearer KEY or X-API-Key: KEY")
    if len(set(given)) > 1:
        raise _unauthorized("found two different keys in one request; send one")
    key = find_key(service.state, given[0])
    if key is None:
        raise _unauthorized("this key is unknown or revoked")
    return key


def _counted_as(key: Key, request: Request) -> str:
    """Whose calls a request counts towards: those of its key, or of an address where all share the key."""
    if not key.public and key is not ANYBODY:
        return key.id
    return f"{key.id} {_household(request.client.host if request.client is not None else '')}"


@lru_cache(maxsize=1024)
def _household(host: str) -> str:
    """An address; of version 6 its network, as a household has so many that each could be used once. A socket
    of both versions writes one of version 4 as ::ffff:10.0.0.1, of which all would be one network."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def _unauthorized(message: str) -> Refused:
    return Refused(401, "Unauthorized", message, {"WWW-Authenticate": "Bearer"})


def is_open(service: Service) -> bool:
    """Whether callers without a key are served.

    On loopback they are until the first key is made; revoking it does not open the service again.
    """
    if service.settings.open_access is not None:
        return service.settings.open_access
    return service.settings.on_loopback and not any_key(service.state, revoked=True)


def needs(scope: Scope, *, whole_index: bool = False) -> Any:
    """A dependency: the call, allowed. whole_index: it concerns all tenants, so no bound key may do it."""
    return Depends(Needs(scope, whole_index))


@dataclass(frozen=True)
class Needs:
    """What the key of a call must be for; the walk of the tests over all routes reads it."""

    scope: Scope
    whole_index: bool = False

    async def __call__(self, request: Request) -> Call:
        """The call of the key that the request comes with. Raises Refused, UnknownIdError."""
        return self.allowed(request, key_in(request))

    def allowed(self, request: Request, key: Key) -> Call:
        """The call of this key. Raises Refused, UnknownIdError."""
        if key.public:
            raise Refused(
                403,
                "Forbidden",
                "this key is public, and votes at /v1/browser/ alone, by feedback tokens",
            )
        if self.scope not in key.scopes:
            raise Refused(403, "Forbidden", f"this key lacks the scope {self.scope}")
        if self.whole_index and key.tenant is not None:
            raise Refused(
                403, "Forbidden", "this concerns all tenants, and the key is bound to one"
            )
        service = service_of(request)
        return call_on(request, request.path_params.get("index", service.indexes.default), key)


def call_on(request: Request, index: str, key: Key) -> Call:
    """A call on an index. Raises Refused when the key is not for it, UnknownIdError when there is none."""
    service = service_of(request)
    if key.indexes is not None and index not in key.indexes:
        raise Refused(403, "Forbidden", "this key is not for this index")
    service.indexes[index]  # or it is unknown
    return Call(service, index, key, getattr(request.state, "tried", None))
