"""The stored events as other rooms read them: votes, corrections, imported answers, decisions."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from rag_flywheel.records import Signal, Verdict

Kind: TypeAlias = Literal["vote", "answer", "correction", "adopted"] | Signal
"""A vote on a passage or an answer, the naming of a passage, whether an answer was used, a signal."""


ONE_TIME = "once:"
"""How the ids of users begin whose events were made anonymous: a new one for each event."""


@dataclass(frozen=True)
class VoteEvent:
    """A stored vote with what it was cast on: `lineage` names the passage text, `query` its 16-byte hash.

    kind: "vote" on the passage, or what was said of the whole answer, a row for each hit: then
    `credit` is the passage's part in it, from 0 to 1. trust: a factor for signals of this kind.
    """

    seq: int
    retrieval: int
    query: bytes
    tenant: str | None
    lineage: int
    verdict: Verdict
    user_id: str | None
    at: float
    credit: float = 1.0
    kind: Kind = "vote"
    trust: float = 1.0


@dataclass(frozen=True)
class Correction:
    """A stored naming of the answer; what it was cast on as in VoteEvent."""

    seq: int
    retrieval: int
    query: bytes
    tenant: str | None
    lineage: int
    user_id: str | None


@dataclass(frozen=True)
class ImportedAnswer:
    """A stored grade of a passage text for a query: 0 for no answer, the higher the better."""

    seq: int
    query: bytes
    tenant: str | None
    lineage: int
    grade: int


@dataclass(frozen=True)
class Decision:
    """A stored decision of a reviewer on a passage text as the answer of a query."""

    seq: int
    query: bytes
    tenant: str | None
    lineage: int
    kind: Literal["accept", "reject", "undo"]
