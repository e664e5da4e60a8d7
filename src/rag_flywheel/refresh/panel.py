"""Splits past queries into training queries and held-out ones, which judge new parameters."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from rag_flywheel.curate.golden import golden_items
from rag_flywheel.curate.groups import held_out, query_groups
from rag_flywheel.curate.source import Source
from rag_flywheel.encoder import TextEncoder
from rag_flywheel.evaluate.held_out import Judges
from rag_flywheel.improve.examples import Examples
from rag_flywheel.improve.fit import newest
from rag_flywheel.records import GoldenItem, Vectors
from rag_flywheel.refresh.examples import ExampleBuilder, fit_to_judge
from rag_flywheel.refresh.past import Past
from rag_flywheel.store.passages import query_digest


class Panel:
    """Past queries as the live version encodes them: some are for training, some are held out.

    examples: all of them; groups int64 (n,): near-duplicates, which are held out together or not at
    all; held_out bool (n,): the queries that judge.
    """

    def __init__(
        self,
        builder: ExampleBuilder,
        past: Past,
        *,
        untuned: Mapping[bytes, Vectors],
        source: Source,
        live: Source,
        until: int,
        examples: Examples | None = None,
    ) -> None:
        """Split the past queries.

        untuned: their vectors under the untuned encoder, by which near-duplicates are grouped, so
        that the held-out queries stay the same. source: how the index reads events; live: the same
        with queries encoded as the live version does; until: the number of the last event that
        counts. examples: the past queries, None: built here.
        """
        self.builder = builder
        self.past = past
        self.examples = builder.past(past) if examples is None else examples
        self._source, self._live, self._until = source, live, until
        hashes = [key.query_hash for key in self.examples.keys]
        if not hashes:
            self.groups = np.empty(0, dtype=np.int64)
        elif untuned is past.vectors:
            self.groups = query_groups(self.examples.vectors, self.examples.near)
        else:
            self.groups = query_groups(np.stack([untuned[name] for name in hashes]))
        digests = [query_digest(past.texts[name]) for name in hashes]
        self.held_out = held_out(digests, self.groups)

    @cached_property
    def training(self) -> Examples:
        """The queries that are not held out."""
        return self.examples.at(np.flatnonzero(~self.held_out))

    @cached_property
    def recent_training(self) -> Examples:
        """The newest of them, to which parameters are fitted; one object, so neighbours are cached."""
        return newest(self.training)

    @cached_property
    def judges(self) -> Judges:
        """The held-out and golden queries, as the live version encodes them."""
        return self.judges_of(self.examples, self._live.queries)

    def judges_of(
        self, examples: Examples, encoder: TextEncoder, builder: ExampleBuilder | None = None
    ) -> Judges:
        """The same under another encoder; examples: all past queries as it encodes them; builder: of examples
        in a version of its own, None: in that of the others."""
        own, builder = examples is self.examples, self.builder if builder is None else builder
        return Judges(
            examples.at(np.flatnonzero(self.held_out)),
            builder.golden(self._golden, _vectors(self._golden, encoder)),
            self.training if own else examples.at(np.flatnonzero(~self.held_out)),
        )

    @cached_property
    def _golden(self) -> Sequence[GoldenItem]:
        """Queries with known answers, none of them a near-duplicate of a training query. Where what few
        people say must move nothing, none is known by what users said."""
        by_users = self._source.config.memory_min_users == 1
        database, source = self.builder.database, self._source
        items = golden_items(database, source, until=self._until, by_users=by_users)
        vectors = _vectors(items, self._live.queries)
        return fit_to_judge(items, vectors, self.training.vectors)


def _vectors(items: Sequence[GoldenItem], encoder: TextEncoder) -> dict[bytes, Vectors]:
    texts = {item.query_hash: item.query for item in items}
    return dict(zip(texts, encoder.encode(list(texts.values())), strict=True)) if texts else {}
