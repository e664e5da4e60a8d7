"""How an index folder's events are read: votes judged by its settings, texts embedded by its encoder.

It must not know what is done with them.
"""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from rag_flywheel.capture.answer_votes import Reader
from rag_flywheel.config import Config
from rag_flywheel.curate.judgments import judgments
from rag_flywheel.curate.weights import WEIGHTS
from rag_flywheel.encoder import Encoder, QueryEncoder, encode
from rag_flywheel.records import Judgment, Vectors
from rag_flywheel.store.event_types import VoteEvent

Judge = Callable[[Iterable[VoteEvent]], list[Judgment]]
Encode = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True)
class Source:
    """Where events come from: how votes are judged, and vectors of texts that have none stored.

    revision: of the vectors of passages; of_queries: of those of queries, which may be taught;
    judged_by: all that judgments rest on besides votes, as text, None: on the time too.
    """

    judge: Judge
    revision: str
    dim: int
    encode_queries: Encode
    encode_passages: Encode
    of_queries: str
    judged_by: str | None = None

    def under(self, queries: QueryEncoder | None) -> "Source":
        """The same with queries encoded by this; None: by the encoder of the index."""
        if queries is None:
            return self

        def encoded(texts: Sequence[str]) -> Vectors:
            return encode(queries.encode_queries, texts, self.dim)

        return replace(self, encode_queries=encoded, of_queries=queries.revision)


def judge_of(config: Config) -> Judge:
    """How votes become judgments in this folder, as of the moment it is called."""

    def judge(votes: Iterable[VoteEvent]) -> list[Judgment]:
        return judgments(votes, half_life_days=config.vote_half_life_days, now=time.time())

    return judge


def judged_by(config: Config) -> str | None:
    """All that judgments rest on besides votes, as text; None: on the time too."""
    if config.vote_half_life_days is not None:
        return None
    return json.dumps(dict(WEIGHTS), sort_keys=True)


def reader_of(encoder: Encoder) -> Reader:
    """What capture needs to compare answers with passages."""

    def passages(texts: Sequence[str]) -> Vectors:
        return encode(encoder.encode_passages, texts, encoder.dim)

    return Reader(encoder.revision, encoder.dim, passages)


def source_of(encoder: Encoder, config: Config) -> Source:
    """What serving needs to follow the events of this folder."""

    def queries(texts: Sequence[str]) -> Vectors:
        return encode(encoder.encode_queries, texts, encoder.dim)

    def passages(texts: Sequence[str]) -> Vectors:
        return encode(encoder.encode_passages, texts, encoder.dim)

    revision = encoder.revision
    return Source(
        judge_of(config), revision, encoder.dim, queries, passages, revision, judged_by(config)
    )
