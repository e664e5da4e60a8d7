"""A line to a server that can be cut, and made to hang: for tests of what is not there for a while."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Line:
    """Passes connections on to a server of this machine, from a port of its own; url: at which it is
    reached."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._to = (parts.hostname or "", parts.port or 0)
        self._hangs = False
        self._connections: list[socket.socket] = []
        self._listen(0)
        self.url = f"http://127.0.0.1:{self._port}"

    def _listen(self, port: int) -> None:
        self._server = socket.create_server(("127.0.0.1", port))
        self._port = self._server.getsockname()[1]
        threading.Thread(target=self._serve, args=(self._server,), daemon=True).start()

    def _serve(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                here, _ = server.accept()
                there = socket.create_connection(self._to)
                self._connections += [here, there]
                for pair in ((here, there), (there, here)):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                while self._hangs:
                    time.sleep(0.02)
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Nobody is reached in the block."""
        self.close()
        try:
            yield
        finally:
            self._listen(self._port)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Nothing comes through in the block."""
        self._hangs = True
        try:
            yield
        finally:
            self._hangs = False

    def close(self) -> None:
        """End all connections, and take no other."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for each in self._connections:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._connections.clear()
