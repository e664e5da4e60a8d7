"""An index whose calls are counted where the service makes them, whichever route they come from."""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

from rag_flywheel.errors import (
    BusyError,
    FlywheelError,
    InputError,
    StorageError,
    UnknownIdError,
)
from rag_flywheel.flywheel import Flywheel
from rag_flywheel.records import Retrieval, Vote
from rag_flywheel.report.numbers import IndexNumbers, numbers
from rag_flywheel.report.ready import Readiness, readiness
from rag_flywheel.service import metrics

_REASONS: dict[type[FlywheelError], str] = {
    UnknownIdError: "unknown_id",
    InputError: "invalid",
    BusyError: "busy",
    StorageError: "storage",
    FlywheelError: "other",
}


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

    def readiness(self) -> Readiness:
        """Whether questions can be answered and recorded now, as far as can be told in milliseconds."""
        return readiness(self._root, self._database)


Method = Callable[..., Any]


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


def _capturing(kinds: Callable[..., list[tuple[str, str]]], method: Method) -> Method:
    """The method, which counts what it records; kinds: (kind, verdict) of each part of a call."""

    @wraps(method)
    def call(self: Observed, *args: Any, **named: Any) -> Any:
        try:
            recorded = method(self, *args, **named)
        except FlywheelError as error:
            reason = next(word for kind, word in _REASONS.items() if isinstance(error, kind))
            metrics.feedback_rejected.labels(self.name, reason).inc()
            raise
        given = kinds(*args, **named)
        if recorded:
            for kind, verdict in given:
                metrics.votes.labels(self.name, kind, verdict).inc()
        elif given:
            metrics.feedback_rejected.labels(self.name, "opted_out").inc()
        return recorded

    return call


def _adopted(*_: object, used: bool, **__: object) -> list[tuple[str, str]]:
    return [("adopted", "helpful" if used else "harmful")]


def _verdict(_: object, verdict: str, *__: object, **___: object) -> list[tuple[str, str]]:
    return [("answer", verdict)]


def _signal(_: object, kind: str, *__: object, **___: object) -> list[tuple[str, str]]:
    return [(kind, "")]


def _correction(*_: object, **__: object) -> list[tuple[str, str]]:
    return [("correction", "helpful")]


def _missing(*_: object, **__: object) -> list[tuple[str, str]]:
    return [("missing", "harmful")]


def _votes(votes: Iterable[Vote], **_: object) -> list[tuple[str, str]]:
    return [("vote", vote.verdict) for vote in votes] if isinstance(votes, Sequence) else []


_SOURCES = "retrieve", "retrieve_many", "rank_many", "rerank"
_KINDS: dict[str, Callable[..., list[tuple[str, str]]]] = {
    "feedback_many": _votes,  # which `feedback` and `relevance` call
    "answer_feedback": _verdict,
    "adopted": _adopted,
    "signal": _signal,
    "correct": _correction,
    "missing": _missing,
}
for _name in _SOURCES:
    setattr(Observed, _name, _retrieving(_name, getattr(Flywheel, _name)))
for _name, _kinds in _KINDS.items():
    setattr(Observed, _name, _capturing(_kinds, getattr(Flywheel, _name)))
