"""Texts of a version in a database of vectors (`vector_database.py`), and of those in memory the rows for it.

Candidates are searched there; scores are computed here from the vectors and BM25 scores that are stored, and
words from the texts, which are read from the store, so that a ranking is that of one machine.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rag_flywheel.errors import EngineError, counted
from rag_flywheel.index.engine import Found, Positions, Question, ReadTexts, Scores
from rag_flywheel.index.fresh import FreshSegment
from rag_flywheel.index.in_memory import InMemory
from rag_flywheel.index.lru import LRU
from rag_flywheel.index.part import Part
from rag_flywheel.index.positions import find_pids
from rag_flywheel.index.stored_statistics import StoredStatistics
from rag_flywheel.records import Pids, Vectors
from rag_flywheel.vector_database import Chosen, Collection, Field, Row

ReadTitled = Callable[[Pids], Sequence[tuple[str, str]]]
"""The title and the whole text of passages by their numbers."""
_AT_ONCE, _TURNED = 500, 20_000  # rows that are written; whose words are looked up together
_READ, _QUERIES = 1_000, 32  # rows that are read, and queries that are asked
LISTED = 4_096  # passages of a part that are named at once
_MARGIN, _TIMES = 1.5, 8
CACHED_BYTES = 64 * 2**20  # of rows that were read
_WORDS_BYTES = 1_000  # of the words of one, about
_TEXTS = 20_000  # that were read, and are kept as the numbers of their words
_NONE = np.empty(0, dtype=np.int32)


class InDatabase:
    """The `Engine` of texts in a collection of a database of vectors. Here are their numbers, the word
    statistics, and what was read lately."""

    def __init__(
        self,
        collection: Collection,
        statistics: StoredStatistics,
        dim: int,
        read_texts: ReadTitled,
    ) -> None:
        self._collection, self._read_texts = collection, read_texts
        self.statistics, self.dim = statistics, dim
        self._read = LRU[int, Row](max(1, CACHED_BYTES // (4 * dim + _WORDS_BYTES)))
        self._lock = threading.Lock()  # of the texts
        self._numbers: dict[int, int] = {}
        self._texts = FreshSegment.empty(1, statistics.tokenizer)

    @property
    def pids(self) -> Pids:
        """As in `Engine`."""
        return self.statistics.pids

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """As in `Engine`."""
        return self.statistics.vocabulary

    @property
    def typical_cosine(self) -> float:
        """As in `Engine`."""
        return self.statistics.numbers.typical_cosine

    def find(self, questions: Sequence[Question], n: int, part: Part | None) -> list[Found]:
        """As in `Engine`."""
        near = self._search("dense", [q.vector for q in questions], n, part)
        best = self._search("words", [self._sparse(q.words) for q in questions], n, part)
        every = [np.union1d(*each) for each in zip(near, best, strict=True)]
        return [
            Found(positions, self.score(question, positions))
            for question, positions in zip(questions, every, strict=True)
        ]

    def score(self, question: Question, positions: Positions) -> Scores:
        """As in `Engine`: from what is stored of the texts, so that scores are those of one machine."""
        rows = self._rows(positions)
        bm25 = np.zeros(len(rows), dtype=np.float32)
        tokens = np.concatenate([row.words for row in rows] or [_NONE])
        scores = np.concatenate([row.scores for row in rows] or [_NONE.astype(np.float32)])
        of_row = np.repeat(np.arange(len(rows)), [len(row.words) for row in rows])
        for word in question.words:
            if (token := self.vocabulary.get(word)) is not None:
                here = np.flatnonzero(tokens == token)
                bm25[of_row[here]] += scores[here]
        return Scores(self._stacked(rows) @ question.vector, bm25)

    def having_all(self, words: Sequence[str], most: int) -> Positions:
        """As in `Engine`. Where each of the words is in more texts than a search returns, they are held to
        be more than `most`."""
        tokens = [self.vocabulary.get(word) for word in dict.fromkeys(words)]
        known = sorted(
            (t for t in tokens if t is not None), key=lambda t: int(self.statistics.df[t])
        )
        if not known or len(known) < len(tokens):
            return np.empty(0, dtype=np.int64)
        rarest = int(self.statistics.df[known[0]])
        if rarest > (most if len(known) == 1 else self._collection.most):
            return np.arange(most + 1)
        found: Positions | None = None
        for token in known:
            part = None
            if found is not None:
                mask = np.zeros(len(self.pids), dtype=bool)
                mask[found] = True
                part = Part.of(mask)
            (found,) = self._search("words", [{token: 1.0}], max(rarest, 1), part)
        assert found is not None
        return np.sort(found)

    def read(self, positions: Positions, words: Sequence[str], ngrams: Sequence[str]) -> ReadTexts:
        """As in `Engine`: their texts are read from the store, and tokenised."""
        with self._lock:
            rows, texts = self._tokenised(self.pids[positions])
        found = texts.read(rows, words, ngrams, self.statistics)
        return replace(found, titles=self.statistics.titles[positions].astype(np.int64))

    def _tokenised(self, pids: Pids) -> tuple[Positions, FreshSegment]:
        """Texts that were read lately, and where these are among them; the others are added."""
        missing = [pid for pid in pids.tolist() if pid not in self._numbers]
        if len(self._numbers) + len(missing) > _TEXTS:
            self._numbers, missing = {}, pids.tolist()
            self._texts = FreshSegment.empty(1, self.statistics.tokenizer)
        if missing:
            titled, start = self._read_texts(np.array(missing, dtype=np.int64)), len(self._numbers)
            titles, spoken = [title for title, _ in titled], [text for _, text in titled]
            numbers = np.arange(start, start + len(missing))
            blank = np.zeros((len(missing), 1), dtype=np.float32)  # vectors, which nobody asks for
            self._texts = self._texts.with_texts(numbers, spoken, titles, blank)
            self._numbers.update(zip(missing, numbers.tolist(), strict=True))
        return np.array([self._numbers[pid] for pid in pids.tolist()], dtype=np.int64), self._texts

    def vectors(self, pids: Pids) -> Vectors:
        """As in `Engine`."""
        at, there = find_pids(pids, self.pids)
        if not there.all():
            raise LookupError("a pid is not in the index")
        return self._stacked(self._rows(at))

    def nearest(self, vectors: Vectors, n: int) -> list[Pids]:
        """As in `Engine`."""
        return [self.pids[row] for row in self._search("dense", list(vectors), n, None)]

    def _sparse(self, words: Sequence[str]) -> dict[int, float]:
        """How often each known word is in a query, empty for none."""
        found: dict[int, float] = {}
        for word in words:
            if (token := self.vocabulary.get(word)) is not None:
                found[token] = found.get(token, 0.0) + 1.0
        return found

    def _stacked(self, rows: Sequence[Row]) -> Vectors:
        return np.array([row.vector for row in rows], dtype=np.float32).reshape(len(rows), self.dim)

    def _search(
        self, field: Field, queries: Sequence[Any], n: int, part: Part | None
    ) -> list[Positions]:
        """For each query the positions of the n best of a part, the best first; none for an empty one."""
        there = len(self.pids) if part is None else part.n
        n, found = min(n, there), [np.empty(0, dtype=np.int64) for _ in queries]
        asked = [i for i, query in enumerate(queries) if len(query)]
        if n < 1 or not asked:
            return found
        every = self._found(field, [queries[i] for i in asked], n, part)
        for i, positions in zip(asked, every, strict=True):
            found[i] = positions
        return found

    def _found(
        self, field: Field, queries: Sequence[Any], n: int, part: Part | None
    ) -> list[Positions]:
        """For each query the positions of the n best of a part that is not empty, the best first.

        A small part is named by its passages. Of a large one more are asked for than are needed, those
        outside are left out, and for the queries that are left with too few it is asked for more again, until
        naming them takes no longer.
        """
        if part is None:
            return self._asked(field, queries, n, None)
        every, there = list[Positions](), len(self.pids)
        n_named = min(part.n, there - part.n)
        limit = min(int(_MARGIN * n * there / part.n) + 1, n + there - part.n)
        if limit > self._collection.most or (part.n <= LISTED and limit > _TIMES * n):
            return self._asked(field, queries, n, self._only(part))
        for query, positions in zip(queries, self._asked(field, queries, limit, None), strict=True):
            wider, inside = limit, positions[part.mask[positions]]
            while len(inside) < n and len(positions) >= wider:  # others of the part may lie farther
                wider = min(_TIMES * wider, there)
                if wider > min(self._collection.most, n_named // 2):
                    (inside,) = self._asked(field, [query], n, self._only(part))
                    break
                (positions,) = self._asked(field, [query], wider, None)
                inside = positions[part.mask[positions]]
            every.append(inside[:n])
        return every

    def _only(self, part: Part) -> Chosen:
        these = 2 * part.n <= len(self.pids)
        return Chosen(self.pids[part.mask if these else ~part.mask].tolist(), these)

    def _asked(
        self, field: Field, queries: Sequence[Any], n: int, chosen: Chosen | None
    ) -> list[Positions]:
        """For each query the positions of the texts that are found, the best first."""
        found = list[Positions]()
        for start in range(0, len(queries), _QUERIES):
            every = self._collection.search(field, queries[start : start + _QUERIES], n, chosen)
            found += map(self._positions, every)
        return found

    def _positions(self, pids: Sequence[int]) -> Positions:
        at, there = find_pids(np.array(pids, dtype=np.int64), self.pids)
        if not there.all():
            raise EngineError("the database of vectors has passages that are not of this version")
        return at

    def _rows(self, positions: Positions) -> list[Row]:
        """What is stored of the texts at these positions; it never changes, so that of the last ones is
        cached."""
        pids = self.pids[positions].tolist()
        found = {pid: row for pid in pids if (row := self._read.get(pid)) is not None}
        missing = [pid for pid in dict.fromkeys(pids) if pid not in found]
        for start in range(0, len(missing), _READ):
            for row in self._collection.rows(missing[start : start + _READ]):
                found[row.pid] = row
                self._read.put(row.pid, row)
        if len(found) < len(set(pids)):
            lost = counted(len(set(pids)) - len(found), "passage")
            raise EngineError(
                f"the database of vectors lacks {lost} of the version that it is asked for; run "
                "`rag-flywheel verify`"
            )
        return [found[pid] for pid in pids]


def rows_of(texts: InMemory) -> Iterator[list[Row]]:
    """The rows of texts in memory, some at a time."""
    bm25 = texts.lexical.bm25
    for first in range(0, len(texts.pids), _TURNED):
        until = min(first + _TURNED, len(texts.pids))
        here = np.flatnonzero((bm25.texts >= first) & (bm25.texts < until))
        here = here[np.argsort(bm25.texts[here], kind="stable")]  # by text, and then by word
        words = (np.searchsorted(bm25.starts, here, side="right") - 1).astype(np.int32)
        ends = np.searchsorted(bm25.texts[here], np.arange(first, until + 1))
        for start in range(first, until, _AT_ONCE):
            positions, rows = np.arange(start, min(start + _AT_ONCE, until)), []
            for i, vector in zip(positions.tolist(), texts.dense.at(positions), strict=True):
                own = slice(ends[i - first], ends[i - first + 1])
                scores = bm25.data[here[own]]
                rows.append(Row(int(texts.pids[i]), vector, words[own], scores))
            yield rows
