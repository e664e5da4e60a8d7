"""The stored events as other rooms read them: votes, corrections, imported answers, decisions."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from rag_flywheel.records import Signal, Verdict

Kind: TypeAlias = Literal["vote", "answer", "correction", "adopted", "judge"] | Signal
"""The kinds of feedback: a vote, a verdict on an answer, a named passage, use of an answer, the verdict of
a language model, a signal."""


GradeSource: TypeAlias = Literal["imported", "pinned"]
"""Where a stored grade comes from: a file, or a pin."""

ONE_TIME = "once:"
"""The start of the user ids of events that were made anonymous: a new id for each event."""


@dataclass(frozen=True)
class VoteEvent:
    """A stored vote on a hit, or the part of a hit in a vote on the whole answer.

    query: the 16-byte hash of the query.
    lineage: the passage text.
    kind: "vote" for a vote on the hit itself.
    credit: the passage's part in a vote on the answer, from 0 to 1.
    trust: a factor for signals of this kind, and the one that the application gave the user.
    session: the session of the question, as hashed; None without one.
    voters: how many people were noted when retrievals of the question were made anonymous, at the event
        number voters_at; 0: it was not.
    imported: whether it came in from another tool, so that its number does not say when it was cast.
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
    session: str | None = None
    voters: int = 0
    voters_at: int = 0
    imported: bool = False

    @property
    def voice(self) -> str:
        """Whose vote it is: the user's; without one the session's; else that of the one asking."""
        if self.user_id is not None:
            return self.user_id
        return f"session {self.session}" if self.session is not None else f"asking {self.retrieval}"


@dataclass(frozen=True)
class Correction:
    """A stored correction: a user names a passage text as the answer; fields as in VoteEvent."""

    seq: int
    retrieval: int
    query: bytes
    tenant: str | None
    lineage: int
    user_id: str | None


@dataclass(frozen=True)
class ImportedAnswer:
    """A stored grade of a passage text for a query: 0 for no answer, the higher the better.

    source: "imported" from a file, or "pinned" by hand, where 0 takes the pin back.
    """

    seq: int
    query: bytes
    tenant: str | None
    lineage: int
    grade: int
    source: GradeSource = "imported"


@dataclass(frozen=True)
class Decision:
    """A stored decision of a reviewer on a passage text as the answer of a query."""

    seq: int
    query: bytes
    tenant: str | None
    lineage: int
    kind: Literal["accept", "reject", "undo"]
