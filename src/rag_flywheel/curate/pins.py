"""Pins a passage as the answer of a query, and stores the vectors of queries with known answers.

It must not know how ranking uses what is known.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rag_flywheel.checks import MOST_ID_CHARS, as_whole, check_query, check_text
from rag_flywheel.config import Config
from rag_flywheel.encoder import TextEncoder
from rag_flywheel.errors import InputError, UnknownIdError, quoted
from rag_flywheel.formats.rows import HIGHEST_GRADE
from rag_flywheel.records import ALL_TENANTS, TenantScope, Vectors
from rag_flywheel.store import golden, passages, wall_clock
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.database import Database
from rag_flywheel.store.embedding import vectors_of
from rag_flywheel.store.questions import query_hash, question_key
from rag_flywheel.store.tenants import shows
from rag_flywheel.store.vectors import put_vectors


class Graded(Protocol):
    """A query and the grade of an answer to it."""

    @property
    def query(self) -> str:
        """The query."""

    @property
    def grade(self) -> int:
        """The grade, 0: no answer."""


@dataclass(frozen=True)
class KnownQueries:
    """The vectors, by hash, of queries whose answers are becoming known, under an encoder revision.

    They are stored, so that no process that answers has to make them.
    """

    vectors: dict[bytes, Vectors]
    revision: str = ""

    @classmethod
    def of(
        cls,
        database: Database,
        config: Config,
        answers: Iterable[Graded],
        queries: Callable[[], TextEncoder],
    ) -> "KnownQueries":
        """The vectors of queries with an answer; none where known answers only judge."""
        right = [answer.query for answer in answers if answer.grade > 0]
        if not right or not config.known_answers:
            return cls({})
        encoder = queries()
        with database.reading() as conn:
            key = question_key(conn)
            texts = {query_hash(key, query): query for query in right}
            return cls(vectors_of(conn, texts, encoder), encoder.revision)

    def put(self, conn: Connection) -> None:
        """Store them, in a transaction that the caller commits."""
        if self.vectors:
            rows = np.stack(list(self.vectors.values()))
            put_vectors(conn, list(self.vectors), rows, self.revision)


@dataclass(frozen=True)
class Pin:
    """A passage to pin as the answer of a query, with a grade; scope: the tenant that it acts for."""

    query: str
    passage_id: str
    scope: TenantScope = ALL_TENANTS
    grade: int = 1

    @property
    def tenant(self) -> str | None:
        """As JSON, None: it acts where no tenant is asked for."""
        return self.scope.tenant

    def check(self, config: Config) -> None:
        """Raises InputError."""
        check_query(self.query, config.max_query_chars)
        check_text("passage_id", self.passage_id, MOST_ID_CHARS)
        grade = as_whole(self.grade)
        if grade is None or not 1 <= grade <= HIGHEST_GRADE:
            raise InputError(
                f"grade is {quoted(self.grade)}; expected a whole number from 1 to {HIGHEST_GRADE}"
            )


def append_pin(
    database: Database, config: Config, pin: Pin, queries: Callable[[], TextEncoder]
) -> bool:
    """Pin the passage; False where it is pinned with that grade already.

    queries: the encoder of queries of the live version. Raises InputError, UnknownIdError.
    """
    pin.check(config)
    database.require_open()
    with database.reading() as conn:
        _present(conn, pin)  # before anything is encoded
    vectors = KnownQueries.of(database, config, [pin], queries)
    with database.transaction(durable=True) as conn:
        name = query_hash(question_key(conn), pin.query)
        stored = _present(conn, pin)
        for standing in golden.pins_of(conn, name, pin.tenant, pin.passage_id):
            same = (standing.lineage, standing.grade) == (stored.lineage, pin.grade)
            if same and not golden.reviewed_since(conn, standing):
                return False
        vectors.put(conn)
        _append(conn, pin, [stored.pid], int(pin.grade))
    return True


def append_unpin(database: Database, config: Config, pin: Pin) -> bool:
    """Take a pin back, of whatever text the passage had; False where it is not pinned.

    The passage need not be in the index any more. Raises InputError, UnknownIdError.
    """
    pin.check(config)
    with database.transaction(durable=True) as conn:
        name = query_hash(question_key(conn), pin.query)
        standing = golden.pins_of(conn, name, pin.tenant, pin.passage_id)
        if not standing:
            _present(conn, pin)
            return False
        _append(conn, pin, [each.lineage for each in standing], 0)  # each is a row of its own
    return True


def _present(conn: Connection, pin: Pin) -> passages.StoredPassage:
    found = passages.current_by_id(conn, [pin.passage_id]).get(pin.passage_id)
    if found is None or not shows(pin.scope, found.passage):
        raise UnknownIdError(
            f"no passage {quoted(pin.passage_id)} is in the index; expected the id of one that is"
        )
    return found


def _append(conn: Connection, pin: Pin, pids: Sequence[int], grade: int) -> None:
    name = query_hash(question_key(conn), pin.query)
    new = [golden.NewAnswer(pin.query, name, pin.tenant, pid, grade, "pinned") for pid in pids]
    first = passages.advance_clock(conn, len(new))
    golden.append_answers(conn, new, first_seq=first, at=wall_clock.now())
