"""The script that puts thumbs under answers, and a page that shows it where access is open."""

import hashlib
from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request, Response

from rag_flywheel.service.calls import is_open, service_of
from rag_flywheel.service.problems import Refused

router = APIRouter(include_in_schema=False)
SCRIPT = "thumbs.js"
_KEPT = "public, max-age=3600"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


@router.get("/thumbs.js")
async def script(request: Request) -> Response:
    """The script, for pages of any origin."""
    headers = {"Cache-Control": _KEPT, "Cross-Origin-Resource-Policy": "cross-origin"}
    return _file(request, SCRIPT, "text/javascript", headers)


@router.get("/thumbs-demo")
async def demo(request: Request) -> Response:
    """A page that asks questions and takes votes. Raises Refused where a key is needed."""
    return _open_file(request, "thumbs-demo.html", "text/html")


@router.get("/thumbs-demo.js")
async def demo_script(request: Request) -> Response:
    """The script of that page."""
    return _open_file(request, "thumbs-demo.js", "text/javascript")


def _open_file(request: Request, name: str, kind: str) -> Response:
    if not is_open(service_of(request)):
        raise Refused(
            404, "HTTPError", "found no page here; the demo is served only where no key is needed"
        )
    return _file(
        request, name, kind, {"Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
    )


def _file(request: Request, name: str, kind: str, headers: dict[str, str]) -> Response:
    content, tag = _read(name)
    headers = {**headers, "ETag": tag, "X-Content-Type-Options": "nosniff"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=kind)


@cache
def _read(name: str) -> tuple[bytes, str]:
    """The bytes of a file of this package, and what names them."""
    content = (files("rag_flywheel.service") / "static" / name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:16]}"'
