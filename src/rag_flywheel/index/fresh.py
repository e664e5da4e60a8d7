"""The fresh segment: texts that were added after the live version was built.

They are scored one by one, with the version's word statistics; it must not know the store.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rag_flywheel.index.lexical import LexicalIndex, LexicalScores, tokenize
from rag_flywheel.records import Pids, Vectors


@dataclass(frozen=True)
class FreshSegment:
    """Texts by ascending pid: vectors float32 (n, dim), word counts and lengths."""

    pids: Pids
    vectors: Vectors
    counts: tuple[Counter[str], ...]
    lengths: tuple[int, ...]

    @classmethod
    def empty(cls, dim: int) -> "FreshSegment":
        """No texts."""
        return cls(np.empty(0, np.int64), np.empty((0, dim), np.float32), (), ())

    def with_texts(self, pids: Pids, texts: Sequence[str], vectors: Vectors) -> "FreshSegment":
        """A segment with these texts added; their pids are above all others."""
        counts = tuple(Counter(tokenize(text)) for text in texts)
        return FreshSegment(
            np.concatenate([self.pids, pids]),
            np.concatenate([self.vectors, vectors]),
            self.counts + counts,
            self.lengths + tuple(c.total() for c in counts),
        )

    def without(self, pids: Pids) -> "FreshSegment":
        """A segment without these texts."""
        keep = ~np.isin(self.pids, pids)
        kept = np.flatnonzero(keep)
        return FreshSegment(
            self.pids[keep],
            self.vectors[keep],
            tuple(self.counts[i] for i in kept),
            tuple(self.lengths[i] for i in kept),
        )

    def statistics(self) -> LexicalIndex:
        """Word statistics of these texts themselves, for an index that has no version yet."""
        return LexicalIndex.build(c.elements() for c in self.counts)

    def lexical_scores(self, words: Sequence[str], statistics: LexicalIndex) -> LexicalScores:
        """float32 (n,): BM25 of every text under the given statistics."""
        return statistics.score_unindexed(words, self.counts, self.lengths)
