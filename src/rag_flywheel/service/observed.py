"""An index whose calls are counted where the service makes them, whichever route they come from."""

import inspect
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from rag_flywheel.capture.runs import Run
from rag_flywheel.errors import (
    BusyError,
    FlywheelError,
    InputError,
    StorageError,
    UnknownIdError,
)
from rag_flywheel.flywheel import Flywheel
from rag_flywheel.records import Retrieval
from rag_flywheel.report.numbers import IndexNumbers, numbers
from rag_flywheel.report.ready import Readiness, readiness
from rag_flywheel.service import metrics
from rag_flywheel.store.tenants import Tenant
from rag_flywheel.store.timeline import read_moment
from rag_flywheel.tracing.feedback import RECORDS, Arguments, Feedback

_SOURCES = "retrieve", "retrieve_many", "rank_many", "rerank"
_REASONS: dict[type[FlywheelError], str] = {
    UnknownIdError: "unknown_id",
    InputError: "invalid",
    BusyError: "busy",
    StorageError: "storage",
    FlywheelError: "other",
}
Method = Callable[..., Any]


class Observed(Flywheel):
    """A Flywheel that counts its calls under the name of the index."""

    name = ""

    @classmethod
    def opened(cls, folder: Path, name: str) -> "Observed":
        """Open an index folder, which is not made, to be counted under a name. Raises as `open` does."""
        found = cls.open(folder, create=False)
        assert isinstance(found, cls)
        found.name = name
        return found

    def numbers(self) -> IndexNumbers:
        """What monitoring follows. Raises StorageError, CorruptFileError."""
        with self._files():
            return numbers(self._root, self._database)

    def run(
        self,
        retrieval_id: str | None,
        run: str,
        *,
        tenant: Tenant | None = None,
        all_tenants: bool = False,
    ) -> Run:
        """The run that feedback names in place of a retrieval. Raises InputError, UnknownIdError."""
        return self._run(retrieval_id, run, tenant, all_tenants)

    def newest_event(self) -> int:
        """The number of the newest event of the index. Raises StorageError."""
        with self._database.reading() as conn:
            return read_moment(conn).seq

    def readiness(self) -> Readiness:
        """Whether questions can be answered and recorded now, as far as can be told in milliseconds."""
        return readiness(self._root, self._database, self._published)


def _retrieving(source: str, method: Method) -> Method:
    """The method, which counts and times what it answers."""

    @wraps(method)
    def call(self: Observed, *args: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        found = method(self, *args, **named)
        metrics.retrieve_seconds.labels(self.name).observe(time.perf_counter() - begun)
        answers: Sequence[object] = [found] if isinstance(found, Retrieval) else found
        metrics.retrievals.labels(self.name, source).inc(len(answers))
        moved = sum(isinstance(each, Retrieval) and _is_moved(each) for each in answers)
        if moved:
            metrics.with_evidence.labels(self.name).inc(moved)
        return found

    return call


def _is_moved(found: Retrieval) -> bool:
    return any(hit.explanation.evidence for hit in found.hits)


def _capturing(recorded: Callable[[Arguments], list[Feedback]], method: Method) -> Method:
    """The method, which counts what it records, or that it is refused."""
    signature = inspect.signature(method)

    @wraps(method)
    def call(self: Observed, *args: Any, **named: Any) -> Any:
        try:
            found = method(self, *args, **named)
        except FlywheelError as error:
            reason = next(word for kind, word in _REASONS.items() if isinstance(error, kind))
            metrics.feedback_rejected.labels(self.name, reason).inc()
            raise
        given = signature.bind(self, *args, **named)
        given.apply_defaults()
        for each in recorded(given.arguments):
            if found:
                metrics.votes.labels(self.name, each.kind, each.verdict).inc()
            else:
                metrics.feedback_rejected.labels(self.name, "opted_out").inc()
        return found

    return call


for _name in _SOURCES:
    setattr(Observed, _name, _retrieving(_name, getattr(Flywheel, _name)))
for _name, _recorded in RECORDS.items():
    setattr(Observed, _name, _capturing(_recorded, getattr(Flywheel, _name)))
