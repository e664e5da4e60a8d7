"""What each call that captures feedback records, read from its arguments."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rag_flywheel.records import Vote


class Feedback(NamedTuple):
    """One part of what a call records.

    kind: vote, answer, adopted, correction, missing, or the kind of a signal. verdict: helpful, harmful or
    retract; "" for signals. why: what the user wrote.
    """

    retrieval_id: str | None
    passage_id: str | None
    kind: str
    verdict: str
    why: str | None = None


Arguments = Mapping[str, Any]
Recorded = Callable[[Arguments], list[Feedback]]


def _votes(given: Arguments) -> list[Feedback]:
    votes = given["votes"]
    if not isinstance(votes, Sequence):  # it can be read once, by the call
        return []
    if any(isinstance(v, Vote) and v.run is not None for v in votes):
        return []  # the call makes another one, with the retrievals
    return [
        Feedback(v.retrieval_id, v.passage_id, "vote", v.verdict, v.reason)
        for v in votes
        if isinstance(v, Vote)
    ]


def _answer(given: Arguments) -> list[Feedback]:
    return [Feedback(given["retrieval_id"], None, "answer", given["verdict"])]


def _adopted(given: Arguments) -> list[Feedback]:
    verdict = "helpful" if given["used"] else "harmful"
    return [Feedback(given["retrieval_id"], None, "adopted", verdict, given["why"])]


def _signal(given: Arguments) -> list[Feedback]:
    return [Feedback(given["retrieval_id"], given["passage_id"], given["kind"], "")]


def _correction(given: Arguments) -> list[Feedback]:
    named, text = given["passage_id"], given["text"]
    return [Feedback(given["retrieval_id"], named, "correction", "helpful", text)]


def _missing(given: Arguments) -> list[Feedback]:
    return [Feedback(given["retrieval_id"], None, "missing", "harmful", given["note"])]


def _once(recorded: Recorded) -> Recorded:
    """What is recorded of a call that names a run is recorded by those that it makes, one a retrieval."""
    return lambda given: [] if given["run"] is not None else recorded(given)


RECORDS: Mapping[str, Recorded] = {
    "feedback_many": _votes,  # which `feedback` and `relevance` call
    "answer_feedback": _once(_answer),
    "adopted": _once(_adopted),
    "signal": _once(_signal),
    "correct": _once(_correction),
    "missing": _once(_missing),
}
"""By method of Flywheel: what a call with these arguments, defaults included, records if it succeeds."""
