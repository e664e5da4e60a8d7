"""Embeds texts on the workers of a Dask cluster, part by part, whatever becomes of workers and scheduler.

It knows of parts and of vectors; which texts lack one, and that vectors are stored, is the caller's.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING

from rag_flywheel.errors import EncoderError, InputError, counted, quoted
from rag_flywheel.records import Vectors

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger("rag_flywheel")
_ADDRESS = re.compile(
    r"(?:tcp|tls|ucx|ws|wss)://(?:\[[^]\s]+\]|[^][:\s]+):\d{1,5}(?:/\S*)?", re.ASCII
)
_AHEAD = 2  # parts that a thread of a worker has been given: one that it works on, one that waits
_LOOK_S = 2.0  # how often it is looked whether there still are workers
_PAUSE_S = 0.5
_PATIENCE_S = 120.0
_TRY_S = 10.0  # for which one connection is tried
_KEPT = "What was embedded is kept, and a repeated call goes on from there"
Embed = Callable[[Sequence[str]], Vectors]
"""float32 (n, dim) of n texts; a function that can be pickled."""


class Cluster:
    """The workers of a Dask scheduler.

    address: of the scheduler, as tcp://host:8786 or tls://host:8786; certificates are found as Dask's
    configuration says. patience_s: for how long to wait for a scheduler that does not answer, or that has
    no worker, before it is an error. Raises InputError for what is no address.
    """

    def __init__(self, address: str, *, patience_s: float = _PATIENCE_S) -> None:
        if not isinstance(address, str) or not _ADDRESS.fullmatch(address):
            raise InputError(
                f"dask is {quoted(address)}; expected the address of a scheduler, as tcp://host:8786 or "
                "tls://host:8786"
            )
        self.address = address
        self._patience_s = patience_s
        self._told = False  # whether the log says that something is waited for

    def encode(self, embed: Embed, parts: Sequence[Sequence[str]]) -> Iterator[tuple[int, Vectors]]:
        """(number of a part, its vectors float32 (n, dim)), in the order in which they are done.

        embed: what a worker does with a part. A part whose worker dies is given to another one; when the
        scheduler dies, all that is not done goes to the one that comes up at its address.
        Raises EncoderError when there is no scheduler, or no worker, for as long as is waited for it, and
        when a part has ended several workers; and what `embed` raises.
        """
        todo = dict(enumerate(parts))
        since = time.monotonic()
        self._told = False
        while todo:
            n_before = len(todo)
            try:
                with self._connected(since) as client:
                    for number, vectors in self._rounds(client, embed, todo):
                        del todo[number]
                        yield number, vectors
            except _SchedulerLostError as error:
                log.warning(
                    "the Dask scheduler at %s is gone (%s); %s for another one there",
                    self.address,
                    error,
                    counted(len(todo), "batch of texts waits", "batches of texts wait"),
                )
                self._told = True
                if len(todo) < n_before:
                    since = time.monotonic()

    def _connected(self, since: float) -> "Client":
        """A connection to the scheduler, once there is one. Raises EncoderError."""
        try:
            from distributed import Client
        except ModuleNotFoundError as error:
            raise EncoderError(
                f"{error.name} is not installed; expected the packages of the extra dask: "
                "pip install 'rag-flywheel[dask]'"
            ) from error
        while True:
            left = since + self._patience_s - time.monotonic()
            try:
                return Client(
                    self.address, timeout=max(1.0, min(left, _TRY_S)), set_as_default=False
                )
            except OSError as error:  # also what times out
                if time.monotonic() - since > self._patience_s:
                    raise EncoderError(
                        f"no Dask scheduler answers at {self.address} ({type(error).__name__}); start "
                        f"one there (dask scheduler), or leave dask out. {_KEPT}"
                    ) from error
                self._tell("no Dask scheduler answers at %s; waiting for one")
                time.sleep(_PAUSE_S)
            except Exception as error:  # as where tls:// is given, and no certificates
                raise EncoderError(
                    f"no connection to {self.address} can be made ({type(error).__name__}: {error}); "
                    "expected an address, and certificates for tls://, that the Dask installed here can use. "
                    f"{_KEPT}"
                ) from error

    def _tell(self, what: str) -> None:
        """Log once in a call what is waited for, at the address."""
        if not self._told:
            log.warning(what + ", for %.0f s at most", self.address, self._patience_s)
        self._told = True

    def _rounds(
        self, client: "Client", embed: Embed, todo: Mapping[int, Sequence[str]]
    ) -> Iterator[tuple[int, Vectors]]:
        """Give the workers as many parts as they have threads, and as many to wait; more as some are done."""
        waiting = iter(list(todo))
        running: dict[Future[Vectors], int] = {}
        seen = time.monotonic()
        while True:
            with _lost_scheduler(client):
                n_threads = sum(client.nthreads().values())
                for number in islice(waiting, max(0, _AHEAD * n_threads - len(running))):
                    running[client.submit(embed, todo[number], pure=False)] = number
            if n_threads:
                seen = time.monotonic()
            elif time.monotonic() - seen > self._patience_s:
                raise EncoderError(
                    f"the Dask scheduler at {self.address} has had no worker for "
                    f"{self._patience_s:.0f} s; start some (dask worker {self.address}) where "
                    f"rag-flywheel and the model are installed. {_KEPT}"
                )
            else:
                self._tell("the Dask scheduler at %s has no worker; waiting for one")
            if not running and n_threads:
                return
            for future in _finished(client, running):
                yield running.pop(future), self._result(client, future)

    def _result(self, client: "Client", future: "Future[Vectors]") -> Vectors:
        """The vectors of a part that is done. Raises EncoderError, and what the encoder raised."""
        from distributed import KilledWorker

        with _lost_scheduler(client):
            error = future.exception()
            if error is None:
                vectors: Vectors = future.result()
                return vectors
        if isinstance(error, KilledWorker):
            raise EncoderError(
                f"several workers of {self.address} died while they embedded the same texts, which often "
                f"means too little memory; see their logs. {_KEPT}"
            ) from error
        if isinstance(error, ModuleNotFoundError):
            raise EncoderError(
                f"the workers of {self.address} have no module {error.name}; expected the same release of "
                "rag-flywheel on each of them, and the module of the encoder"
            ) from error
        raise error


class _SchedulerLostError(Exception):
    """The scheduler died, or cannot be reached any more."""


@contextmanager
def _lost_scheduler(client: "Client") -> Iterator[None]:
    """Raises _SchedulerLostError for what the client raises when it has no scheduler any more."""
    try:
        yield
    except (OSError, CancelledError) as error:
        raise _SchedulerLostError(type(error).__name__) from error
    except Exception as error:
        if client.status == "running":
            raise
        raise _SchedulerLostError(type(error).__name__) from error


def _finished(client: "Client", running: Iterable["Future[Vectors]"]) -> list["Future[Vectors]"]:
    """The futures that are done, after a while at most."""
    from distributed import wait

    futures = list(running)
    if not futures:
        time.sleep(_PAUSE_S)
        return []
    with (
        _lost_scheduler(client),
        client.as_current(),
    ):  # which is not the default one of the process
        try:
            return list(wait(futures, timeout=_LOOK_S, return_when="FIRST_COMPLETED").done)
        except TimeoutError:
            return []
