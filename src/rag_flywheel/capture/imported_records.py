"""How records of other tools come in: the settings of an import, and what is staged of each record."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar, get_args

import msgspec

from rag_flywheel.capture.question_vectors import QuestionVectors
from rag_flywheel.capture.scores import Meanings
from rag_flywheel.capture.terms import Terms
from rag_flywheel.checks import as_python
from rag_flywheel.records import Progress, Signal, TenantScope

KINDS: tuple[str, ...] = (
    "vote", "answer", "correction", "text", "missing", "adopted", "judge", *get_args(Signal)
)  # fmt: skip
AT_ONCE = 2_000
"""Retrievals, or votes, in one transaction."""
_MOST_REASONS = 200
OPTED_OUT = "of users who opted out"
DELETED = "that were deleted here since"
FORGOTTEN = "of people who were forgotten"
WHOSE = "of an id that several tenants have, without saying whose: name the tenant"
T = TypeVar("T")


class UnusableError(Exception):
    """A record cannot be used, for the reason of its message."""


@dataclass(frozen=True)
class Settings:
    """How records come in.

    source: the tool. scope: whose they are; scope_of, scope_of_json: that of a tenant that a record names,
    or a row as JSON. hide: the hash of an id of a user or session, given what it is; run: that of a run.
    name: 16 bytes that name a key, given whose it is, as JSON; query_hash: of a question. trust: in a
    user's feedback, by the id.
    mask: takes out of a text what must not be stored. vectors: stores those of questions. keep_words:
    whether the words of questions are stored; without them, nothing can embed the questions later.
    """

    source: str
    scope: TenantScope
    scope_of: Callable[[str | int], TenantScope]
    scope_of_json: Callable[[str | None], TenantScope]
    hide: Callable[[str, str | None], str | None]
    run: Callable[[str], str]
    name: Callable[[str | None, bytes], bytes]
    query_hash: Callable[[str], bytes]
    trust: Callable[[str | None], float]
    terms: Terms
    mask: Callable[[str], str]
    vectors: QuestionVectors
    max_query_chars: int
    keep_words: bool
    meanings: Meanings
    dry_run: bool = False
    progress: Progress | None = None


@dataclass
class Counts:
    """What came of the records so far."""

    retrievals: int = 0
    unchanged: int = 0
    extended: int = 0
    votes: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    def leave_out(self, reason: str) -> None:
        """Count something that cannot be used; files may name any number of reasons."""
        known = reason in self.left_out or len(self.left_out) < _MOST_REASONS
        self.left_out[reason if known else "for further reasons"] += 1


class StagedHit(msgspec.Struct, array_like=True):
    """A passage of the index that was shown; rank: None: not known."""

    rank: int | None
    pid: int
    name: str


class Part(msgspec.Struct, array_like=True):
    """What one record says of a retrieval, with ids as hashes. query: "", and n_hits, of all that it showed:
    None, where it does not say."""

    query: str
    at: float | None
    user: str | None
    session: str | None
    answer: str | None
    tenant: str | None
    hits: list[StagedHit]
    n_hits: int | None
    inside: list[str]
    recorded_as: str | None


class StagedAround(msgspec.Struct, array_like=True):
    """What is known of a trace or run."""

    parent: str | None
    user: str | None
    session: str | None
    answer: str | None


class WouldBe(msgspec.Struct, array_like=True):
    """A retrieval that a dry run does not write."""

    id: str
    at: float
    tenant: str | None
    user: str | None
    hits: list[StagedHit]


class Shown(msgspec.Struct, array_like=True):
    """What became of a retrieval: its row, below 0 where it has none; reason: why it was left out. tenant:
    as its records say, None: they do not. here: its id in this index, which it alone ever has, where its row
    may be another's once it is deleted."""

    rid: int
    reason: str = ""
    would_be: WouldBe | None = None
    tenant: str | None = None
    here: str = ""


class StagedVote(msgspec.Struct, array_like=True):
    """A vote with ids as hashes. score: the name of a score, whose value says the verdict, None: it is a
    vote. level: its strength, from -1 to 1. by_asker: of whoever asked. tenant: as JSON, whose retrieval it
    is on, None: not said."""

    id: str
    on: str
    verdict: str | None
    kind: str | None
    passage_id: str | None
    rank: int | None
    level: float
    text: str | None
    shares: dict[str, float] | None
    user: str | None
    trust: float
    at: float | None
    reason: str | None
    score: str | None = None
    value: float | str | bool | None = None
    by_model: bool = False
    by_asker: bool = False
    label: str | None = None
    tenant: str | None = None


def encoded(record: msgspec.Struct) -> bytes:
    """A record as it is staged."""
    return msgspec.msgpack.encode(record, enc_hook=_plain)


def _plain(value: object) -> object:
    """A scalar of numpy, or of a type made from `str` such as a StrEnum, as one of Python's."""
    plain = str.__str__(value) if isinstance(value, str) else as_python(value)
    if plain is value:
        raise TypeError(type(value).__name__)
    return plain


PART, VOTE = msgspec.msgpack.Decoder(Part), msgspec.msgpack.Decoder(StagedVote)
SHOWN, AROUND = msgspec.msgpack.Decoder(Shown), msgspec.msgpack.Decoder(StagedAround)


def retrieval_name(id_: str) -> bytes:
    """What names an imported retrieval, by its id in the tool, before it is hashed."""
    return f"retrieval\n{id_}".encode("utf-8", "surrogatepass")


def batches(items: Iterable[T], size: Callable[[T], int] = lambda _: 1) -> Iterator[list[T]]:
    """Lists of AT_ONCE, or of fewer where some count for more than one."""
    some, n = list[T](), 0
    for item in items:
        some.append(item)
        n += size(item)
        if n >= AT_ONCE:
            yield some
            some, n = [], 0
    if some:
        yield some
