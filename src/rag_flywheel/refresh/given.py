"""Turns past queries whose candidates an application gave into examples: those candidates, as given."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.tokenizer import Tokenizer
from rag_flywheel.rank.given import best_given, score_features
from rag_flywheel.rank.score import POOL
from rag_flywheel.records import Features, Pids, QueryKey
from rag_flywheel.refresh.past import Past
from rag_flywheel.serve.given import Words, spread_out, text_features, words_of
from rag_flywheel.serve.state import State
from rag_flywheel.store import passages, retrievals
from rag_flywheel.store.database import Database

_TEXTS = 5_000  # whose words are cached
Given = Sequence[tuple[int, float]]
"""(pid, the application's score) of each candidate."""


def given_candidates(database: Database, past: Past, state: State) -> dict[QueryKey, Given]:
    """The candidates that an application gave, by past query with a vote on one not in the index.

    Where several of its retrievals got votes, those of the later ones are added.
    """
    lineages = {j.lineage for judged in past.judged.values() for j in judged}
    indexed = _indexed(state, lineages)
    rows = {
        key: sorted({j.retrieval for j in judged})
        for key, judged in past.judged.items()
        if any(j.lineage not in indexed for j in judged)
    }
    with database.snapshot() as conn:
        wanted = sorted({row for some in rows.values() for row in some})
        logged = retrievals.candidates_of(conn, wanted)
    found: dict[QueryKey, dict[int, float]] = defaultdict(dict)
    for key, some in rows.items():
        for pid, score in (each for row in some for each in logged.get(row, ())):
            found[key].setdefault(pid, score)
    return {key: list(scores.items()) for key, scores in found.items()}


def _indexed(state: State, lineages: Iterable[int]) -> set[int]:
    """Those of these lineages whose votes a passage of the version has."""
    each = np.array(sorted(lineages), dtype=np.int64)
    pids = np.array([state.heirs.get(p, p) for p in each.tolist()], dtype=np.int64)
    return set(each[np.isin(pids, state.version.pids)].tolist())


class GivenExamples:
    """Makes examples of given candidates; the words of texts are cached from one call to the next."""

    def __init__(self, database: Database, past: Past, tokenizer: Tokenizer) -> None:
        self._database = database
        self._tokenizer = tokenizer
        self._past = past
        self._words: dict[int, Words] = {}

    def of(self, candidates: Mapping[QueryKey, Given]) -> dict[QueryKey, tuple[Pids, Features]]:
        """Lineages (n,) and features float32 (n, 10), as in GIVEN, of the candidates of each query:
        those with votes among them, and at most 50.

        Queries without a vote on one of their candidates are left out, and those of which a text was
        erased: features of some of the texts alone would be others.
        """
        pids = sorted({pid for given in candidates.values() for pid, _ in given})
        with self._database.snapshot() as conn:
            stored = passages.rows_of(conn, pids)
        found = {}
        for key, given in candidates.items():
            if any(pid in stored and not stored[pid].passage.text for pid, _ in given):
                continue
            known: dict[int, tuple[passages.StoredPassage, float]] = {}
            for pid, score in given:
                if (text := stored.get(pid)) is not None:
                    known.setdefault(text.lineage, (text, score))
            texts = [text for text, _ in known.values()]
            scores = np.array([score for _, score in known.values()], dtype=np.float64)
            lineages = np.array(list(known), dtype=np.int64)
            judged = np.isin(lineages, [j.lineage for j in self._past.judged[key]])
            if judged.any():
                kept = best_given(np.where(judged, np.inf, scores), POOL)
                features = self._features(key, texts, scores)
                found[key] = lineages[kept], features[kept]
        return found

    def _features(
        self,
        key: QueryKey,
        texts: Sequence[passages.StoredPassage],
        scores: npt.NDArray[np.float64],
    ) -> Features:
        read = best_given(scores, POOL)
        query = self._tokenizer.tokenize(self._past.texts[key.query_hash])
        words = [self._words_of(texts[i]) for i in read.tolist()]
        found = text_features(query, words, self._tokenizer)
        every = spread_out(found, read, len(texts))
        return np.concatenate([score_features(scores), every], axis=1).astype(np.float32)

    def _words_of(self, text: passages.StoredPassage) -> Words:
        words = self._words.get(text.pid)
        if words is None:
            if len(self._words) >= _TEXTS:
                self._words.clear()
            self._words[text.pid] = words = words_of(text.passage, self._tokenizer)
        return words
