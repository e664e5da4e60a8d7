"""Tells whether users vote where it helps: on the questions that are asked, and not on easy ones alone.

Everything is read from the log, in a bounded number of rows, so that it takes as long for a million
questions as for ten thousand. It must not know how votes are weighed.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from rag_flywheel.checks import as_number
from rag_flywheel.encoder import TextEncoder
from rag_flywheel.errors import InputError, counted
from rag_flywheel.records import QueryKey, TenantScope, Vectors
from rag_flywheel.report.drift import drift_of
from rag_flywheel.report.exposure import gini
from rag_flywheel.report.gaps import UNLIKELY
from rag_flywheel.report.status import utc
from rag_flywheel.serve.server import Nearness
from rag_flywheel.store import coverage as log
from rag_flywheel.store import wall_clock
from rag_flywheel.store.coverage import Asking
from rag_flywheel.store.database import Database
from rag_flywheel.store.vectors import read_vectors

EASY = 0.8  # relevance of the first hit that a question ever got, from which on it was easy
MOST_ASKED = 10_000  # the newest questions of a period that are read
MOST_VOTES = 20_000  # the newest votes, and as many verdicts on answers
MOST_COMPARED = 500  # questions whose vectors are compared, a random part of them
MOST_EASY = 4_000  # questions, and votes, whose first answers are read, a random part of them
FEW = 20  # questions or votes; fewer are no reason to say anything
MUCH = 0.2  # drift that is worth a sentence
SURELY = 0.01  # the chance of such a drift where there is none, below which it is said
_DAY_S, _WEEK_S = 86_400.0, 7 * 86_400.0
_MOST_WEEKS = 53
_DIGITS = 4
_HARDLY = 0.05
_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
T = TypeVar("T")


@dataclass(frozen=True)
class CoverageWeek:
    """Seven days.

    begins: in UTC.
    asked: how often questions were asked.
    votes: votes on hits, verdicts on answers and corrections.
    votes_per_question: their ratio, None where nothing was asked.
    """

    begins: str
    asked: int
    votes: int
    votes_per_question: float | None


@dataclass(frozen=True)
class Coverage:
    """Where votes fall, what is shown, and whether users ask what they asked before. Shares are from 0 to 1,
    and None where there is nothing to compute them from.

    since: the begin of the period, in UTC; it is shorter than asked for where more than 10,000 questions
        came in it.
    n_asked: how often questions were asked; every share of questions counts a question each time.
    n_questions: how many different ones.
    n_votes: votes on hits, verdicts on answers and corrections; retractions are not counted.
    near_share: of questions near enough to one with votes for these to act on them.
    same_share: of questions that ask the same as one with votes, in whatever words.
    unanswered_share: of questions whose answer most likely held no passage that answers them.
    easy_asked_share: of easy questions: the first hit of the first answer they ever got had a relevance of
        0.8 or more.
    easy_votes_share: of votes that are on easy questions.
    n_passages: how many passages there are.
    unshown_share: of passages that no answer of the period showed.
    unvoted_share: of passages that nobody ever voted on.
    exposure_gini: how unevenly passages were shown: 0 all alike, near 1 only a few.
    n_compared: questions of the period whose vectors were compared, a random part.
    n_before: questions that came before them, in as long a time, that they were compared with.
    drift: about the share of the questions that is unlike any before, by the nearest questions to each.
    drift_p: the chance of so large an energy distance between the two where nothing changed.
    weeks: the weeks of the period, the oldest first.
    findings: what it means, a sentence each, the most important first.
    """

    since: str
    n_asked: int
    n_questions: int
    n_votes: int
    near_share: float | None
    same_share: float | None
    unanswered_share: float | None
    easy_asked_share: float | None
    easy_votes_share: float | None
    n_passages: int
    unshown_share: float | None
    unvoted_share: float | None
    exposure_gini: float | None
    n_compared: int
    n_before: int
    drift: float | None
    drift_p: float | None
    weeks: tuple[CoverageWeek, ...]
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Read:
    """What was read of the log: times that questions were asked in the period and before it, the newest
    first; the questions that votes were on, and when; by question, the relevance of its first hit ever;
    samples of the questions asked and voted on that these are of; vectors by query hash."""

    since: float
    asked: list[Asking]
    before: list[Asking]
    votes: list[tuple[QueryKey, float]]
    lineages: list[int]
    shown: Counter[int]
    voted: set[int]
    of_asked: list[QueryKey]
    of_votes: list[QueryKey]
    first: Mapping[QueryKey, float | None]
    compared: tuple[list[QueryKey], list[QueryKey]]
    vectors: Mapping[bytes, Vectors]


def coverage(
    database: Database,
    *,
    days: float,
    scope: TenantScope,
    queries: TextEncoder,
    near_votes: Callable[[Mapping[QueryKey, Vectors]], Mapping[QueryKey, Nearness]],
) -> Coverage:
    """The coverage of the last days. queries: the encoder whose stored vectors are compared; nothing is
    encoded. near_votes: how near questions are to those with votes. Raises InputError."""
    number = as_number(days)
    if number is None or not 0 < number < 1e5:
        raise InputError(f"days is {days!r}; expected a number above 0")
    now = wall_clock.now()
    read = _read(database, now, max(0.0, now - float(number) * _DAY_S), scope, queries)
    recent, earlier = (_with_vectors(some, read.vectors) for some in read.compared)
    near = near_votes({question: read.vectors[question.query_hash] for question in recent})
    drift = drift_of(_stacked(recent, read.vectors), _stacked(earlier, read.vectors))
    counts = np.array([read.shown[lineage] for lineage in read.lineages])
    found = Coverage(
        since=utc(read.since),
        n_asked=len(read.asked),
        n_questions=len({each.question for each in read.asked}),
        n_votes=len(read.votes),
        near_share=_share([near[question].near for question in recent]),
        same_share=_share([near[question].same for question in recent]),
        unanswered_share=_share(
            [each.answerable < UNLIKELY for each in read.asked if each.answerable is not None]
        ),
        easy_asked_share=_easy_share(read.of_asked, read.first),
        easy_votes_share=_easy_share(read.of_votes, read.first),
        n_passages=len(counts),
        unshown_share=_share((counts == 0).tolist()),
        unvoted_share=_share([lineage not in read.voted for lineage in read.lineages]),
        exposure_gini=round(gini(counts), _DIGITS) if counts.any() else None,
        n_compared=len(recent),
        n_before=len(earlier),
        drift=None if drift is None else round(drift.size, _DIGITS),
        drift_p=None if drift is None else drift.p,
        weeks=_weeks(read, now),
    )
    return replace(found, findings=tuple(findings_of(found)))


def _read(
    database: Database, now: float, since: float, scope: TenantScope, queries: TextEncoder
) -> _Read:
    rng = np.random.default_rng(0)
    with database.snapshot() as conn:
        asked = log.askings(conn, since, math.inf, MOST_ASKED, scope)
        if len(asked) == MOST_ASKED:
            since = asked[-1].at
        before = log.askings(conn, max(0.0, 2.0 * since - now), since, MOST_ASKED // 2, scope)
        votes = log.votes_since(conn, since, MOST_VOTES, scope)
        shown = log.shown_counts(conn, [each.rid for each in asked])
        of_asked = _some(rng, [each.question for each in asked], MOST_EASY)
        of_votes = _some(rng, [question for question, _ in votes], MOST_EASY)
        rows = log.first_askings(conn, {*of_asked, *of_votes})
        relevance = log.first_hits(conn, sorted(set(rows.values())))
        compared = (
            _some(rng, [each.question for each in asked], MOST_COMPARED),
            _some(rng, [each.question for each in before], MOST_COMPARED),
        )
        hashes = sorted({question.query_hash for some in compared for question in some})
        vectors = read_vectors(conn, hashes, queries.revision, queries.dim)
        return _Read(
            since,
            asked,
            before,
            votes,
            log.present_lineages(conn, scope),
            shown,
            log.voted(conn),
            of_asked,
            of_votes,
            {question: relevance[row] for question, row in rows.items()},
            compared,
            vectors,
        )


def _some(rng: np.random.Generator, every: Sequence[T], n: int) -> list[T]:
    """At most n of them, by chance."""
    if len(every) <= n:
        return list(every)
    return [every[i] for i in rng.choice(len(every), n, replace=False).tolist()]


def _with_vectors(
    questions: Sequence[QueryKey], vectors: Mapping[bytes, Vectors]
) -> list[QueryKey]:
    """Those with a vector that says anything."""
    said = {name for name, vector in vectors.items() if vector.any()}
    return [question for question in questions if question.query_hash in said]


def _stacked(questions: Sequence[QueryKey], vectors: Mapping[bytes, Vectors]) -> Vectors:
    rows = [vectors[question.query_hash] for question in questions]
    return np.stack(rows) if rows else np.empty((0, 0), np.float32)


def _share(each: Sequence[bool]) -> float | None:
    return round(sum(each) / len(each), _DIGITS) if each else None


def _easy_share(
    questions: Sequence[QueryKey], first: Mapping[QueryKey, float | None]
) -> float | None:
    known = [relevance for q in questions if (relevance := first[q]) is not None]
    return _share([relevance >= EASY for relevance in known])


def _weeks(read: _Read, now: float) -> tuple[CoverageWeek, ...]:
    """The weeks of the period, counted back from now; the oldest may be cut short by its begin."""
    asked = Counter(_weeks_ago(each.at, now) for each in read.asked)
    votes = Counter(_weeks_ago(at, now) for _, at in read.votes)
    n = min(max(1, math.ceil((now - read.since) / _WEEK_S)), _MOST_WEEKS)
    return tuple(
        CoverageWeek(
            utc(max(now - (ago + 1) * _WEEK_S, read.since)),
            asked[ago],
            votes[ago],
            round(votes[ago] / asked[ago], _DIGITS) if asked[ago] else None,
        )
        for ago in reversed(range(n))
    )


def _weeks_ago(at: float, now: float) -> int:
    return max(0, int((now - at) // _WEEK_S))


def findings_of(found: Coverage) -> Iterator[str]:
    """What a coverage means, a sentence each."""
    if found.n_asked < FEW:
        yield f"{counted(found.n_asked, 'question')} in the period: too few to say more"
        return
    if found.n_votes < FEW:
        yield f"{counted(found.n_votes, 'vote')} on {found.n_asked} questions: there is little to learn from"
    else:
        yield from _of_easy(found)
    if found.near_share is not None and found.n_compared >= FEW and found.near_share < 0.5:
        yield (
            f"{_tenths(1.0 - found.near_share)} questions are near none that anybody voted on: votes do "
            "not reach them"
        )
    if found.unanswered_share is not None and found.unanswered_share >= 0.2:
        yield (
            f"{_tenths(found.unanswered_share)} questions most likely got no good answer: `gaps` lists their "
            "topics"
        )
    if found.drift is not None and found.drift_p is not None and _is_much(found):
        yield (
            f"{_tenths(found.drift)} questions are unlike those of the time before (p {found.drift_p:.3f}): "
            "what was learned before says less about them"
        )
    if found.unshown_share is not None and found.unshown_share >= 0.5 and _could_be_shown(found):
        yield f"{_tenths(found.unshown_share)} passages were shown to nobody: no vote can be on them"


def _of_easy(found: Coverage) -> Iterator[str]:
    asked, votes = found.easy_asked_share, found.easy_votes_share
    if votes is None or asked is None:
        return
    if votes >= 0.8:
        yield (
            f"{_tenths(votes)} votes fall on questions that were answered well already"
            + (f", though {_few(asked)} asked are such" if asked <= votes - 0.1 else "")
            + ": what is learned is learned on easy questions"
        )
    elif votes >= asked + 0.2:
        yield (
            f"{_tenths(votes)} votes fall on questions that were answered well already, but "
            f"{_few(asked)} asked are such: hard questions get fewer votes than their share"
        )


def _is_much(found: Coverage) -> bool:
    """Whether the drift is worth a sentence."""
    enough = min(found.n_compared, found.n_before) >= FEW
    return enough and (found.drift or 0.0) >= MUCH and (found.drift_p or 0.0) <= SURELY


def _could_be_shown(found: Coverage) -> bool:
    """Whether there were as many answers as passages, so that most might have been in one."""
    return found.n_asked >= found.n_passages


def _few(share: float) -> str:
    """A small share in words: "only two in ten", "hardly any"."""
    return _tenths(share) if share < _HARDLY else f"only {_tenths(share)}"


def _tenths(share: float) -> str:
    """A share in words, as before "questions": "nine in ten"; "all", "nearly all", "hardly any"."""
    if share >= 0.995:
        return "all"
    if share >= 0.95:
        return "nearly all"
    if share < _HARDLY:
        return "hardly any"
    return f"{_WORDS[max(1, round(share * 10)) - 1]} in ten"
