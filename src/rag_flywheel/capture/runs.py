"""Finds the recorded retrievals that feedback on a run of another program is about.

The id of a run is a keyed hash here, which is what is stored; `named` is as the caller gave it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from rag_flywheel.capture.votes import check_retrieval_id, unknown_retrieval
from rag_flywheel.checks import MOST_ID_CHARS, check_text, items
from rag_flywheel.errors import InputError, UnknownIdError, quoted
from rag_flywheel.records import TenantScope, Vote
from rag_flywheel.store import retrievals, runs
from rag_flywheel.store.database import Database

MOST_RUNS = 32
"""The most runs that one retrieval may belong to."""
MOST_RETRIEVALS = 100
"""Feedback on a run is about so many of its retrievals at most, the newest ones."""

RUN_AND_RETRIEVAL = "found retrieval_id and run; expected one of them"

_MOST_NAMED = 8  # passages, in a message


def link_run(database: Database, retrieval_id: str | None, run: str) -> None:
    """Store that a retrieval belongs to a run. Raises UnknownIdError, InputError."""
    id_ = check_retrieval_id(retrieval_id)
    with database.transaction() as conn:
        if not retrievals.link_run(conn, id_, run):
            raise unknown_retrieval(id_)
        if runs.count_runs(conn, id_) > MOST_RUNS:
            raise InputError(
                f"retrieval {id_} belongs to {MOST_RUNS} runs already; expected the id of a run of the "
                "application, not of each of its steps"
            )


@dataclass(frozen=True)
class Run:
    """A run, as the caller named it, and its newest retrievals.

    shown: by the id of a retrieval, the newest first: the ids of the passages that it showed.
    """

    named: str
    shown: Mapping[str, Collection[str]]

    def vote(self, given: Vote) -> Vote:
        """A vote that names this run, as one on the retrieval that it is about. Raises InputError."""
        if given.retrieval_id is not None:
            raise InputError(RUN_AND_RETRIEVAL)
        return replace(given, retrieval_id=self.showing(given.passage_id), run=None)

    @property
    def newest(self) -> str:
        """The newest retrieval, which a correction or a missing answer is about."""
        return next(iter(self.shown))

    def every(self) -> list[str]:
        """The retrievals that a verdict on the answer is about, the newest first."""
        return list(self.shown)

    def meant(self, passage_id: str | None) -> list[str]:
        """The retrievals that a signal is about: on the answer, None, or on one passage of it."""
        return self.every() if passage_id is None else [self.showing(passage_id)]

    def citing(self, cited: Sequence[str] | None) -> dict[str, list[str] | None]:
        """By the id of each retrieval: those of the cited passages that it showed, None: not known which
        are cited. Raises InputError for one that none of them showed."""
        if cited is None:
            return dict.fromkeys(self.shown)
        names = items("cited", cited, str)
        for each in names:
            self.showing(each)
        return {id_: [n for n in names if n in shown] for id_, shown in self.shown.items()}

    def showing(self, passage_id: object) -> str:
        """The newest retrieval that showed a passage, which a vote on it is about. Raises InputError."""
        check_text("passage_id", passage_id, MOST_ID_CHARS)
        for id_, passages in self.shown.items():
            if passage_id in passages:
                return id_
        every = list(dict.fromkeys(each for passages in self.shown.values() for each in passages))
        more = len(every) - _MOST_NAMED
        which = (
            f"none of the {MOST_RETRIEVALS} newest retrievals"
            if len(self.shown) == MOST_RETRIEVALS
            else "no retrieval"
        )
        raise InputError(
            f"{which} of run {quoted(self.named)} showed passage {quoted(passage_id)}; they showed "
            f"{', '.join(map(quoted, every[:_MOST_NAMED])) or 'nothing'}"
            f"{f' and {more} more' if more > 0 else ''}. A vote is on a passage the user has seen"
        )


def find_run(database: Database, run: str, named: str, scope: TenantScope) -> Run:
    """The run of this hash, with its retrievals in the scope. Raises UnknownIdError when there is none, and
    InputError when they are of several tenants."""
    with database.reading() as conn:
        found = runs.of_run(conn, run, scope, MOST_RETRIEVALS)
    if not found:
        raise UnknownIdError(
            f"no retrieval of run {quoted(named)} is recorded in this index; expected the id of a run that "
            "was given to `retrieve` or `rerank` as run_id, or to `link_run`"
        )
    tenants = sorted({tenant for _, tenant, _ in found if tenant is not None})
    if len(tenants) > 1:
        raise InputError(
            f"retrievals of run {quoted(named)} are of {len(tenants)} tenants; expected tenant=..., since "
            "feedback is on the answer that one of them got"
        )
    return Run(named, {id_: shown for id_, _, shown in found})
