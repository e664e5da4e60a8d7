"""Reads an index folder's events: judges votes by its settings, embeds texts by its encoder."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from rag_flywheel.config import Config
from rag_flywheel.curate.judgments import NO_WEIGHTS, judgments
from rag_flywheel.curate.people import of_enough_people
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

    def of(self, encoder: Encoder | None) -> "Source":
        """A source of the same settings whose texts are encoded by `encoder`; None returns this one."""
        if encoder is None or encoder is self.encoder:
            return self
        return replace(self, encoder=encoder, tuned=None)

    def under(self, queries: QueryEncoder | None) -> "Source":
        """A source whose queries are encoded by `queries`; None returns this one."""
        return self if queries is None else replace(self, tuned=queries)

    @property
    def queries(self) -> TextEncoder:
        """The encoder of queries."""
        queries = self.tuned or self.encoder
        return TextEncoder.of_queries(queries, self.encoder.dim)

    @property
    def passages(self) -> TextEncoder:
        """The encoder of passages."""
        return TextEncoder.of_passages(self.encoder)

    def judge(
        self,
        votes: Iterable[VoteEvent],
        weights: Mapping[str, float] = NO_WEIGHTS,
        *,
        of_few: bool = False,
    ) -> list[Judgment]:
        """The judgments that these votes add up to, as of now; weights: as for `judgments`.

        of_few: also of those that may not move rankings, since too few people spoke of their question.
        """
        half_life = self.config.vote_half_life_days
        votes = votes if of_few else self.heard(votes, weights)
        return judgments(votes, weights, half_life_days=half_life, now=wall_clock.now())

    def heard(
        self, votes: Iterable[VoteEvent], weights: Mapping[str, float] = NO_WEIGHTS
    ) -> Iterable[VoteEvent]:
        """Those of these votes that may move rankings: all on questions that as many people spoke of as the
        settings ask for. votes: all on their questions; weights: as for `judgments`."""
        return of_enough_people(votes, self.config.memory_min_users, weights)

    @property
    def judged_by(self) -> str | None:
        """What judgments depend on besides votes, as JSON; None when they depend on the time too."""
        if self.config.vote_half_life_days is not None:
            return None
        weights = {str(kind): weight for kind, weight in WEIGHTS.items()}
        return json.dumps({**weights, "people": self.config.memory_min_users}, sort_keys=True)
