"""How an index folder's events are read: votes judged by its settings, texts embedded by its encoder."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace

from rag_flywheel.config import Config
from rag_flywheel.curate.judgments import judgments
from rag_flywheel.curate.weights import WEIGHTS
from rag_flywheel.encoder import Encoder, QueryEncoder, TextEncoder
from rag_flywheel.records import Judgment
from rag_flywheel.store.event_types import VoteEvent


@dataclass(frozen=True)
class Source:
    """Where events come from: the encoder and the settings of an index folder; tuned: what encodes
    its queries, None: that encoder."""

    encoder: Encoder
    config: Config
    tuned: QueryEncoder | None = None

    def under(self, queries: QueryEncoder | None) -> "Source":
        """The same with queries encoded by this; None: as they are here."""
        return self if queries is None else replace(self, tuned=queries)

    @property
    def queries(self) -> TextEncoder:
        """What encodes queries."""
        queries = self.tuned or self.encoder
        return TextEncoder(queries.revision, self.encoder.dim, queries.encode_queries)

    @property
    def passages(self) -> TextEncoder:
        """What encodes passages."""
        return TextEncoder.of_passages(self.encoder)

    def judge(self, votes: Iterable[VoteEvent]) -> list[Judgment]:
        """The judgments that these votes add up to, as of now."""
        return judgments(votes, half_life_days=self.config.vote_half_life_days, now=time.time())

    @property
    def judged_by(self) -> str | None:
        """All that judgments rest on besides votes, as text; None: on the time too."""
        if self.config.vote_half_life_days is not None:
            return None
        return json.dumps(dict(WEIGHTS), sort_keys=True)
