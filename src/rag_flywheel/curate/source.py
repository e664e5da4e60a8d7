"""Reads an index folder's events: judges votes by its settings, embeds texts by its encoder."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from rag_flywheel.config import Config
from rag_flywheel.curate.judgments import NO_WEIGHTS, judgments
from rag_flywheel.curate.weights import WEIGHTS
from rag_flywheel.encoder import Encoder, QueryEncoder, TextEncoder
from rag_flywheel.records import Judgment
from rag_flywheel.store import wall_clock
from rag_flywheel.store.event_types import VoteEvent


@dataclass(frozen=True)
class Source:
    """The encoder and the settings of an index folder.

    tuned: encodes the queries; with None, the encoder does.
    """

    encoder: Encoder
    config: Config
    tuned: QueryEncoder | None = None

    def under(self, queries: QueryEncoder | None) -> "Source":
        """A source whose queries are encoded by `queries`; None returns this one."""
        return self if queries is None else replace(self, tuned=queries)

    @property
    def queries(self) -> TextEncoder:
        """The encoder of queries."""
        queries = self.tuned or self.encoder
        return TextEncoder(queries.revision, self.encoder.dim, queries.encode_queries)

    @property
    def passages(self) -> TextEncoder:
        """The encoder of passages."""
        return TextEncoder.of_passages(self.encoder)

    def judge(
        self, votes: Iterable[VoteEvent], weights: Mapping[str, float] = NO_WEIGHTS
    ) -> list[Judgment]:
        """The judgments that these votes add up to, as of now; weights: as for `judgments`."""
        half_life = self.config.vote_half_life_days
        return judgments(votes, weights, half_life_days=half_life, now=wall_clock.now())

    @property
    def judged_by(self) -> str | None:
        """What judgments depend on besides votes, as JSON; None when they depend on the time too."""
        if self.config.vote_half_life_days is not None:
            return None
        return json.dumps(dict(WEIGHTS), sort_keys=True)
