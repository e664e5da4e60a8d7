"""MCP over HTTP: who may call, and from where.

On loopback it serves this machine until a key is made; elsewhere it wants one. Keys are those of the service.
"""

import json
import signal
import sys
import threading
from typing import Any

import uvicorn
from anyio import to_thread
from mcp.server import MCPServer
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp, Receive, Scope, Send

from rag_flywheel.errors import ConfigError, StorageError
from rag_flywheel.store.database import Database
from rag_flywheel.store.service.addresses import is_local_name, on_loopback, same_origin
from rag_flywheel.store.service.keys import Key, any_key, find_key

PATH = "/mcp"
_KEY = "rag_flywheel.key"
_END_S = 10
_MOST_BYTES = 2**20  # of a request


def key_of(request: Any) -> Key | None:
    """The key that a request came with; None where none is needed."""
    return None if request is None else request.scope["state"].get(_KEY)


class Guard:
    """Answers what may not ask: another host's name, a page of another site, a key that is not known.

    keys: the records that hold the keys; None: there are none, and only loopback is served. index: the name
    that keys may be limited to.
    """

    def __init__(self, app: ASGIApp, host: str, keys: Database | None, index: str) -> None:
        self._app, self._keys, self._index = app, keys, index
        self._loopback = on_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            headers = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in scope["headers"]
            }
            refused = self._of_another_site(headers) or await self._refused(headers, scope)
            if refused is not None:
                await _refuse(send, *refused)
                return
        await self._app(scope, receive, send)

    async def _refused(self, headers: dict[str, str], scope: Scope) -> tuple[int, str] | None:
        """As `_without_key`, in a thread of its own: the keys may be on a server, and that may be gone."""
        try:
            return await to_thread.run_sync(self._without_key, headers, scope)
        except StorageError as error:
            return 503, str(error)

    def _of_another_site(self, headers: dict[str, str]) -> tuple[int, str] | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._loopback and not is_local_name(host):
            return 421, "found the name of another host; expected this machine's own"
        if origin is not None and not same_origin(origin, host):
            return 403, "found the origin of another site; pages may not call this"
        return None

    def _without_key(self, headers: dict[str, str], scope: Scope) -> tuple[int, str] | None:
        """Also notes the key that is found."""
        state = scope.setdefault("state", {})
        if self._keys is None:
            return None
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        if not given:
            if self._loopback and not any_key(self._keys, revoked=True):
                return None
            return 401, "found no key; send one as Authorization: Bearer KEY"
        key = find_key(self._keys, given)
        if key is None:
            return 401, "this key is unknown or revoked"
        if key.public or not {"read", "vote"} & set(key.scopes):
            return 403, "this key is not for searching"
        if key.indexes is not None and self._index not in key.indexes:
            return 403, "this key is for another index"
        state[_KEY] = key
        token = AccessToken(token=key.id, client_id=key.id, scopes=list(key.scopes))
        scope["user"] = AuthenticatedUser(token)  # so that sessions stay those of their key
        return None


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 503:
        headers.append((b"retry-after", b"2"))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def check_address(host: str, keys: Database | None) -> None:
    """Raises ConfigError where others could call, and nothing asks them for a key."""
    if on_loopback(host):
        return
    if keys is None:
        raise ConfigError(
            f"{host} can be reached from other machines, and a server in front of a service has no keys of "
            "its own; name a file of keys with --state, or listen on 127.0.0.1"
        )
    if not any_key(keys):
        raise ConfigError(
            f"{host} can be reached from other machines, and there is no key; make one by "
            "`rag-flywheel keys add NAME --scope read --scope vote`"
        )


def http_app(
    server: "MCPServer[Any]", host: str, keys: Database | None = None, index: str = ""
) -> ASGIApp:
    """The server as an ASGI application, guarded as for this host; its address ends in /mcp."""
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        stateless_http=True,
        max_request_body_size=_MOST_BYTES,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    return Guard(app, host, keys, index)


def run_http(
    server: "MCPServer[Any]", host: str, port: int, keys: Database | None, index: str
) -> None:
    """Serve over HTTP until SIGTERM or SIGINT. Raises ConfigError."""
    check_address(host, keys)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it again at its end
    uvicorn.run(
        http_app(server, host, keys, index),
        host=host,
        port=port,
        access_log=False,  # it would go to standard output
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_END_S,
    )
