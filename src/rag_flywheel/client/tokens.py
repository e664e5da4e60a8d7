"""Answers with the token by which a page may vote on them."""

from dataclasses import dataclass

from rag_flywheel.records import Retrieval


@dataclass(frozen=True)
class RetrievalWithToken(Retrieval):
    """An answer of a service.

    feedback_token: allows votes on it alone, as the user who asked, for some hours; None: it was not
        recorded.
    """

    feedback_token: str | None = None
