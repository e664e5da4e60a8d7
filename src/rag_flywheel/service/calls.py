"""Who calls, and what they may do: a route says which scope it needs, and gets the index to use."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from rag_flywheel.flywheel import Flywheel
from rag_flywheel.service.indexes import Indexes
from rag_flywheel.service.problems import Refused
from rag_flywheel.service.settings import Settings
from rag_flywheel.store.database import Database
from rag_flywheel.store.service.keys import SCOPES, Key, Scope, any_key, find_key
from rag_flywheel.store.tenants import Tenant

_BEARER = HTTPBearer(auto_error=False, description="An API key: Authorization: Bearer fw_...")
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same key as a header.")
ANYBODY = Key("", "open access", SCOPES, None, None, False, 0.0)
"""Who calls without a key where none is needed: on loopback, as long as no key was made."""


@dataclass(frozen=True)
class Service:
    """What the routes share: `request.app.state.service`."""

    settings: Settings
    indexes: Indexes
    state: Database


class TenantArguments(TypedDict):
    """How a call of the library names a tenant, or asks for all."""

    tenant: Tenant | None
    all_tenants: bool


@dataclass(frozen=True)
class Call:
    """One allowed call: the index it is for, and who calls."""

    service: Service
    name: str
    key: Key

    @property
    def fw(self) -> Flywheel:
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


def service_of(request: Request) -> Service:
    """What the routes share."""
    service: Service = request.app.state.service
    return service


async def caller(
    request: Request,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)] = None,
    header: Annotated[str | None, Security(_HEADER)] = None,
) -> Key:
    """The key that a request comes with. Raises Refused with 401 without one that is known.

    Not in a thread of its own: reading a key takes less than the way there.
    """
    given = [each for each in (bearer.credentials if bearer else None, header) if each is not None]
    return key_given(service_of(request), given)


def key_in(request: Request) -> Key:
    """The same, read from the headers alone, for what comes before a route."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    given = [bearer.strip()] if scheme.lower() == "bearer" else []
    if (header := request.headers.get("x-api-key")) is not None:
        given.append(header)
    return key_given(service_of(request), given)


def key_given(service: Service, given: Sequence[str]) -> Key:
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


def _unauthorized(message: str) -> Refused:
    return Refused(401, "Unauthorized", message, {"WWW-Authenticate": "Bearer"})


def is_open(service: Service) -> bool:
    """Whether callers without a key are served."""
    if service.settings.open_access is not None:
        return service.settings.open_access
    return service.settings.on_loopback and not any_key(service.state)


def needs(scope: Scope, *, whole_index: bool = False) -> Any:
    """A dependency: the call, allowed. whole_index: it concerns all tenants, so no bound key may do it."""
    return Depends(_allowed(scope, whole_index))


def _allowed(scope: Scope, whole_index: bool) -> Callable[..., Awaitable[Call]]:
    async def allowed(request: Request, key: Annotated[Key, Depends(caller)]) -> Call:
        service = service_of(request)
        if scope not in key.scopes:
            raise Refused(403, "Forbidden", f"this key lacks the scope {scope}")
        if whole_index and key.tenant is not None:
            raise Refused(
                403, "Forbidden", "this concerns all tenants, and the key is bound to one"
            )
        name = request.path_params.get("index", service.indexes.default)
        if key.indexes is not None and name not in key.indexes:
            raise Refused(403, "Forbidden", "this key is not for this index")
        service.indexes[name]  # or it is unknown
        return Call(service, name, key)

    return allowed
