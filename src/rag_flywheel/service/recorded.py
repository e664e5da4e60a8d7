"""What was recorded: the answer that says so, and whether the first attempt of a request did it already."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import Response
from pydantic import BaseModel

from rag_flywheel.records import RecordedVote
from rag_flywheel.service.answers import answer
from rag_flywheel.store.event_types import Kind

if TYPE_CHECKING:
    from rag_flywheel.service.calls import Call, TenantArguments

_AT_ONCE = 500


class Recorded(BaseModel):
    """How many were recorded, on the disk; 0 of a user who opted out."""

    recorded: int


def recorded(n: int) -> Response:
    """The answer to a call that recorded n of something."""
    return answer({"recorded": int(n)})


@dataclass(frozen=True)
class Cast:
    """A vote as it was sent. kind: that of a recorded vote. passage_id, verdict: None: any."""

    kind: Kind
    retrieval_id: str
    user_id: str | None
    passage_id: str | None = None
    verdict: str | None = None


def is_recorded(call: "Call", named: "TenantArguments", votes: Sequence[Cast]) -> bool:
    """Whether the first attempt of this call recorded all of these votes, in one commit.

    False for a call that is the first attempt itself. named: the tenant of the call.
    """
    if call.tried is None or not votes:
        return False
    users = {
        vote.user_id: None if vote.user_id is None else call.fw.hashed_user(vote.user_id)
        for vote in votes
    }
    left = set(votes)
    for each in _since(call, named, call.tried.get(call.name, 0)):
        left -= {
            vote
            for vote in left
            if (each.kind, each.retrieval_id) == (vote.kind, vote.retrieval_id)
            and each.user == users[vote.user_id]
            and (each.passage_id is None or vote.passage_id in (None, each.passage_id))
            and vote.verdict in (None, each.verdict)
        }
        if not left:
            return True
    return False


def _since(call: "Call", named: "TenantArguments", event: int) -> Iterator[RecordedVote]:
    """The votes of the tenant after an event, the newest first: numbers are the same on every host, while
    times are of the host that wrote them."""
    before = None
    while page := call.fw.votes(_AT_ONCE, before=before, **named):
        for vote in page:
            if vote.number <= event:
                return
            yield vote
        before = page[-1].number
