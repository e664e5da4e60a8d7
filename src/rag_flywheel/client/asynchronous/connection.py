"""The connection of a client: sends requests, repeats those that may be repeated, and reads the answers."""

import asyncio
import secrets
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from rag_flywheel.checks import check_text
from rag_flywheel.client.decoding import decoded
from rag_flywheel.client.problems import Retries, error_of, is_transient
from rag_flywheel.client.sending import Named, as_json
from rag_flywheel.errors import ClosedError, InputError, ServiceError, quoted

JSON = "application/json"


class AsyncConnection:
    """One service, one index of it, and one key."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None,
        index: str | None,
        timeout_s: float,
        retries: Retries,
        http: httpx.AsyncClient | None,
    ) -> None:
        if not isinstance(url, str) or not _is_of_web(url):
            raise InputError(
                f"url is {quoted(url)}; expected an address such as http://127.0.0.1:8000"
            )
        self._retries = retries
        self._headers = {"Accept": JSON}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {_header('key', key)}"
        self._root = f"{url.rstrip('/')}/v1"
        if index is not None:
            self._root += f"/indexes/{quote(check_text('index', index), safe='')}"
        self._timeout_s = timeout_s
        self._own = http is None
        self._http = httpx.AsyncClient() if http is None else http
        self._closed = False

    async def close(self) -> None:
        """Close the connection; every later call raises ClosedError."""
        self._closed = True
        if self._own:
            await self._http.aclose()

    async def get(self, kind: Any, path: str, params: Named | None = None) -> Any:
        """What the service answers to a question, as this type."""
        response = await self._answer("GET", path, params or {}, b"", {})
        return self._read(kind, response)

    async def send(
        self,
        kind: Any,
        path: str,
        body: object = None,
        *,
        method: str = "POST",
        params: Named | None = None,
        content: bytes | None = None,
        content_type: str = JSON,
    ) -> Any:
        """What the service answers to a body, as this type; None: nothing is expected.

        However often it is sent, it is done once: all attempts have one Idempotency-Key.
        """
        sent = as_json(body) if content is None else content
        headers = {"Content-Type": content_type, "Idempotency-Key": secrets.token_hex(16)}
        response = await self._answer(method, path, params or {}, sent, headers)
        return None if kind is None else self._read(kind, response)

    async def upload(
        self, kind: Any, path: str, files: list[tuple[str, bytes]], params: Named
    ) -> Any:
        """What the service answers to files, each with its name and bytes, as this type."""
        form = [("files", (name, data, "application/octet-stream")) for name, data in files]
        made = httpx.Request("POST", self._root, files=form)
        headers = {
            "Content-Type": made.headers["Content-Type"],
            "Idempotency-Key": secrets.token_hex(16),
        }
        response = await self._answer("POST", path, params, made.read(), headers)
        return self._read(kind, response)

    async def reach(self) -> None:
        """Connect, whatever is answered. Raises ServiceError where nothing answers."""
        await self._attempts("GET", "", {}, b"", {})

    async def _answer(
        self, method: str, path: str, params: Named, content: bytes, headers: dict[str, str]
    ) -> httpx.Response:
        response = await self._attempts(method, path, params, content, headers)
        if response.is_success:
            return response
        raise error_of(response)

    async def _attempts(
        self, method: str, path: str, params: Named, content: bytes, headers: dict[str, str]
    ) -> httpx.Response:
        """The answer of the first attempt that has one which is not to be asked for again.

        Raises ServiceError when the service cannot be reached, and ClosedError.
        """
        attempt = 0
        while True:
            if self._closed:
                raise ClosedError("the client was closed; make a new one")
            response, error = None, None
            try:
                request = self._http.build_request(
                    method,
                    self._root + path,
                    params=params,
                    content=content,
                    headers={**self._headers, **headers},
                    timeout=self._timeout_s,
                )
                response = await self._http.send(request)
            except httpx.TransportError as found:
                error = found
            except (httpx.InvalidURL, httpx.HTTPError) as found:
                raise ServiceError(f"{self._root} cannot be used: {found}") from found
            if response is not None and not is_transient(response):
                return response
            wait_s = self._retries.wait_s(attempt, response)
            if wait_s is None:
                if response is not None:
                    return response
                raise ServiceError(
                    f"{self._root} cannot be reached ({type(error).__name__}: {error}) after "
                    f"{attempt + 1} attempts; is the service running there?"
                ) from error
            attempt += 1
            await asyncio.sleep(wait_s)

    def _read(self, kind: Any, response: httpx.Response) -> Any:
        try:
            found = msgspec.json.decode(response.content)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ServiceError(
                f"{response.url} answered {quoted(response.text[:200])}; expected JSON of a "
                "rag-flywheel service: look at the address"
            ) from error
        return decoded(kind, found)


def _header(name: str, value: object) -> str:
    """A string that a header can hold. Raises InputError."""
    found = check_text(name, value)
    if not found.isascii() or not found.isprintable() or not found.strip():
        raise InputError(f"{name} is not one that a header can hold; expected such as fw_...")
    return found


def _is_of_web(url: str) -> bool:
    """Whether this is a URL of HTTP."""
    try:
        return urlsplit(url).scheme in ("http", "https")
    except ValueError:
        return False
