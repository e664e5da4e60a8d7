"""Computes the features of an application's own candidates from their texts, and chooses what is kept.

Features depend on the query and the candidates of one call alone, not on the index: passages of an
application need not be in it, and at a refresh the same texts give the same features.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.lexical import LexicalIndex
from rag_flywheel.index.tokenizer import Tokenizer, stems_in
from rag_flywheel.rank.features import QueryWords, TextNgrams, TextWords, rich_features
from rag_flywheel.rank.given import best_given
from rag_flywheel.rank.score import POOL
from rag_flywheel.records import Candidate, Features, Passage, Pids
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.passages import Tenancy, encoded_text, passage_hash, rows_of_texts

Words = tuple[tuple[str, ...], int]
"""The words of a text in order, and how many of them, the first, are its title."""
_LARGEST = 1e299  # of a score that is stored


@dataclass(frozen=True)
class GivenCandidates:
    """The n candidates of one call: their texts, their scores float64 (n,), and the pids and lineages
    (n,) of the rows that they have in the store, -1: none yet. words: of the texts that were read, by
    position, by one tokenizer; they are added when they are."""

    texts: Sequence[Passage]
    scores: npt.NDArray[np.float64]
    pids: Pids
    lineages: Pids
    words: dict[int, Words] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        conn: Connection,
        given: Sequence[Candidate],
        tenancy: Tenancy,
        *,
        copies: bool = False,
    ) -> "GivenCandidates":
        """From one or more candidates as an application gave them; of copies the one with the highest
        score, unless `copies`."""
        texts = [Passage(c.passage_id, c.text, c.title, c.metadata) for c in given]
        rows = np.array(rows_of_texts(conn, texts, tenancy), dtype=np.int64)
        scores = np.array([c.score for c in given], np.float64)
        if not copies:
            first: dict[object, int] = {}
            for i in np.lexsort((np.arange(len(texts)), -scores)).tolist():
                lineage = int(rows[i, 1])
                new = passage_hash(texts[i]), tenancy.of(texts[i])
                first.setdefault(lineage if lineage >= 0 else new, i)
            if len(first) < len(texts):
                stay = sorted(first.values())
                texts, rows, scores = [texts[i] for i in stay], rows[stay], scores[stay]
        return cls(texts, scores, rows[:, 0], rows[:, 1])

    def text_features(self, query: str, tokenizer: Tokenizer) -> Features:
        """float32 (n, 8): the features of the texts, as in GIVEN.

        The texts of the 50 with the highest scores are read; the others get the least value among
        these.
        """
        read = best_given(self.scores, POOL)
        self.words.update((i, words_of(self.texts[i], tokenizer)) for i in read.tolist())
        words = [self.words[i] for i in read.tolist()]
        found = text_features(tokenizer.tokenize(query), words, tokenizer)
        return spread_out(found, read, len(self.texts))

    def measures(self, query: str, positions: Sequence[int], tokenizer: Tokenizer) -> Features:
        """float32 (n, 3): the measures of relevance of these candidates, each word weighing the same."""
        stems = tokenizer.tokenize(query)
        if all(i in self.words for i in positions):
            wanted, known = set(stems), [self.words[i][0] for i in positions]
            return _measures(wanted, [(len(wanted.intersection(ws)), len(ws)) for ws in known])
        texts = [encoded_text(self.texts[i]) for i in positions]
        return given_measures(stems, texts, tokenizer)

    def kept(self, shown: Sequence[int]) -> list[int]:
        """Positions of the candidates that are stored with the retrieval, by falling score: the 50 with
        the highest scores, the last one, which the span is measured to, and those that were shown."""
        best, last = best_given(self.scores, POOL), int(np.argmin(self.scores))
        kept = np.unique(np.concatenate([best, [last, *shown]]))
        by_score: list[int] = kept[np.lexsort((kept, -self.scores[kept]))].tolist()
        return by_score

    def logged(self, kept: Sequence[int], pids: Pids) -> list[tuple[int, float]]:
        """(pid, score) of these candidates, as they are stored; pids: of all."""
        scores = np.clip(self.scores[kept], -_LARGEST, _LARGEST).tolist()
        return list(zip(pids[kept].tolist(), scores, strict=True))


def words_of(passage: Passage, tokenizer: Tokenizer) -> Words:
    """The words of a passage."""
    words = tokenizer.tokenize(encoded_text(passage))
    return tuple(words), len(tokenizer.tokenize(passage.title))


def given_measures(query: Sequence[str], texts: Sequence[str], tokenizer: Tokenizer) -> Features:
    """float32 (n, 3): the measures of texts for the words of a query, as in MEASURES; each word weighs the
    same, so that they do not depend on the other texts."""
    stems = set(query)
    return _measures(stems, list(stems_in(texts, list(stems), tokenizer)))


def _measures(stems: Set[str], counts: Sequence[tuple[int, int]]) -> Features:
    """counts: how many of these distinct words each text has, and how many words it has in all."""
    found = np.array(counts, dtype=np.float32).reshape(-1, 2)
    cover = found[:, 0] / max(len(stems), 1)
    missing = (found[:, 0] < max(len(stems), 1)).astype(np.float32)
    return np.stack([cover, missing, np.log1p(found[:, 1])], axis=1)


def text_features(query: Sequence[str], texts: Sequence[Words], tokenizer: Tokenizer) -> Features:
    """float32 (n, 8): the features of texts, given as their words, for the words of a query.

    Words are weighted by how few of these texts have them.
    """
    n_titles = [n_title for _, n_title in texts]
    index = LexicalIndex.build((words for words, _ in texts), n_titles, tokenizer)
    every = index.texts_at(np.arange(len(texts)))
    words = QueryWords.of(
        query, [index.idf(w) for w in query], [w in index.vocabulary for w in query]
    )
    idf = index.ngrams.of_query(query)
    titles = index.titles.astype(np.int64)
    places = TextWords(
        index.words_at(words.words, every),
        every.lengths,
        titles,
        index.average_length,
        index.average_title_length,
    )
    counts, totals = index.ngrams_at(list(idf), every)
    ngrams = TextNgrams(counts, np.array(list(idf.values())), totals, index.average_ngrams)
    rich, _ = rich_features(words, places, ngrams)
    bm25 = index.scores(query)
    best = float(bm25.max(initial=0.0))
    return np.concatenate([(bm25 / (best or 1.0))[:, None], rich], axis=1)


def spread_out(features: Features, read: npt.NDArray[np.int64], n: int) -> Features:
    """float32 (n, 8): these features at the positions that were read, the least of each elsewhere."""
    if len(read) == n:
        return features
    full = np.repeat(features.min(axis=0, keepdims=True), n, axis=0)
    full[read] = features
    return full
