"""How an index folder's events are read: votes judged by its settings, texts embedded by its encoder.

It must not know what is done with them.
"""

import json
import time
from collections.abc import Iterable, Sequence

from rag_flywheel.capture.answer_votes import Reader
from rag_flywheel.config import Config
from rag_flywheel.curate.judgments import judgments
from rag_flywheel.curate.weights import WEIGHTS
from rag_flywheel.encoder import Encoder, encode
from rag_flywheel.records import Judgment, Vectors
from rag_flywheel.serve.state import Judge, Source
from rag_flywheel.store.event_types import VoteEvent


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
