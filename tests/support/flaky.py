"""A proxy before a server of HTTP that answers as a bad network or a busy store does."""

import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_HOP = {"connection", "transfer-encoding", "content-length", "keep-alive"}


@dataclass(frozen=True)
class Fault:
    """What is done to a request instead of passing it on.

    status: it is answered with it; wait_s: only after this time; cut: the server's answer ends after so many
    bytes of its body; lost: the request is passed on, its answer not: the connection is reset; body: another
    answer than the server's, under status 200.
    """

    status: int | None = None
    wait_s: float = 0.0
    cut: int | None = None
    lost: bool = False
    body: bytes | None = None


class Flaky:
    """The proxy: `faults` says what is done to a request of this method and path, None: it is passed on."""

    def __init__(self, target: str) -> None:
        self.target = urlsplit(target).netloc
        self.faults: Callable[[str, str], Fault | None] = lambda method, path: None
        self.requests: list[tuple[str, str]] = []
        self.n_bytes = 0  # of the bodies of answers
        self.url = ""
        self.ended = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    flaky: Flaky

    def log_message(self, *_: Any) -> None:
        pass

    def _any(self) -> None:
        flaky = self.flaky
        body = self._body()
        flaky.requests.append((self.command, self.path))
        fault = flaky.faults(self.command, self.path) or Fault()
        if fault.wait_s:
            flaky.ended.wait(fault.wait_s)
        if fault.body is not None:
            self._answer(200, {}, fault.body)
            return
        if fault.status is not None:
            self._answer(fault.status, {}, b"<Error><Code>SlowDown</Code></Error>")
            return
        status, headers, answer = self._passed_on(body)
        if fault.lost:
            self._reset()
        elif fault.cut is not None:
            self._answer(status, headers, answer, fault.cut)
            self._reset()
        else:
            self._answer(status, headers, answer)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _any  # noqa: N815 - names of http.server

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _passed_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        server = http.client.HTTPConnection(self.flaky.target, timeout=60)
        try:
            own = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
            server.request(self.command, self.path, body, own)
            answer = server.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            server.close()

    def _answer(
        self, status: int, headers: dict[str, str], body: bytes, cut: int | None = None
    ) -> None:
        self.send_response(status)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        for name, value in headers.items():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            sent = body if cut is None else body[:cut]
            with suppress(OSError):
                self.wfile.write(sent)
            self.flaky.n_bytes += len(sent)

    def _reset(self) -> None:
        """End the connection at once, without a goodbye."""
        with suppress(OSError):
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: Any) -> None:
        pass  # of connections that the test resets


@contextmanager
def flaky_before(target: str) -> Iterator[Flaky]:
    """The proxy before a server, on a port of its own."""
    flaky = Flaky(target)
    handler = type("Handler", (_Handler,), {"flaky": flaky})
    with _Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        flaky.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield flaky
        finally:
            flaky.ended.set()
            server.shutdown()
            thread.join()
