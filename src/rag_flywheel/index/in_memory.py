"""The texts of a version in this process's memory: FAISS and BM25."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rag_flywheel.disk import version_file_errors
from rag_flywheel.errors import counted
from rag_flywheel.index.dense import DenseIndex
from rag_flywheel.index.engine import Found, Positions, Question, ReadTexts, Scores
from rag_flywheel.index.lexical import LexicalIndex
from rag_flywheel.index.part import Part
from rag_flywheel.records import Pids, Vectors

_PARTS = 64  # of scores


@dataclass(frozen=True)
class InMemory:
    """The `Engine` of one process: the text at position i of `lexical` has the vector of `dense.pids[i]`."""

    dense: DenseIndex
    lexical: LexicalIndex

    @classmethod
    def empty(cls, dim: int) -> "InMemory":
        """No texts."""
        dense = DenseIndex.build(np.empty(0, np.int64), np.empty((0, dim), np.float32))
        return cls(dense, LexicalIndex.build([]))

    @classmethod
    def load(cls, folder: Path, *, dim: int, n_texts: int) -> "InMemory":
        """Read from a version folder. Raises CorruptFileError unless it holds this many texts."""
        dense = DenseIndex.load(folder, dim=dim)
        with version_file_errors(folder):
            if len(dense) != n_texts:
                raise ValueError(
                    f"it holds {counted(len(dense), 'vector')}; its manifest says {n_texts}"
                )
        return cls(dense, LexicalIndex.load(folder, n_texts=n_texts))

    @property
    def pids(self) -> Pids:
        """As in `Engine`."""
        return self.dense.pids

    @property
    def dim(self) -> int:
        """As in `Engine`."""
        return self.dense.dim

    @property
    def statistics(self) -> LexicalIndex:
        """As in `Engine`."""
        return self.lexical

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """As in `Engine`."""
        return self.lexical.vocabulary

    @property
    def typical_cosine(self) -> float:
        """As in `Engine`."""
        return self.dense.typical_cosine

    def find(self, questions: Sequence[Question], n: int, part: Part | None) -> list[Found]:
        """As in `Engine`; above 20,000 texts, dense search finds nearly all of the nearest."""
        vectors = np.stack([question.vector for question in questions])
        near = self.dense.search(vectors, n, part)
        return [self._found(*each, n, part) for each in zip(questions, near, strict=True)]

    def _found(self, question: Question, near: Pids, n: int, part: Part | None) -> Found:
        bm25 = self.lexical.scores(question.words)
        if part is not None:
            bm25 *= part.mask
        positions = _union(np.searchsorted(self.pids, near), highest(bm25, n))
        return Found(positions, Scores(self.dense.at(positions) @ question.vector, bm25[positions]))

    def score(self, question: Question, positions: Positions) -> Scores:
        """As in `Engine`."""
        cosines = self.dense.at(positions) @ question.vector
        return Scores(cosines, self.lexical.scores_at(question.words, positions))

    def having_all(self, words: Sequence[str], most: int) -> Positions:
        """As in `Engine`; all of them, however many they are."""
        return self.lexical.having_all(words)

    def read(self, positions: Positions, words: Sequence[str], ngrams: Sequence[str]) -> ReadTexts:
        """As in `Engine`."""
        lexical = self.lexical
        texts = lexical.texts_at(positions)
        titles = lexical.titles[positions].astype(np.int64)
        counts = lexical.ngrams_at(ngrams, texts)
        return ReadTexts(lexical.words_at(words, texts), texts.lengths, titles, *counts)

    def vectors(self, pids: Pids) -> Vectors:
        """As in `Engine`."""
        return self.dense.vectors(pids)

    def nearest(self, vectors: Vectors, n: int) -> list[Pids]:
        """As in `Engine`, always exact."""
        return self.dense.search_many(vectors, n)


def highest(scores: npt.NDArray[np.float32], n: int) -> Positions:
    """Positions of the n highest scores above 0, in no order."""
    least = _reached(scores, n)
    found = np.flatnonzero(scores >= least if least > 0 else scores > 0)
    if len(found) <= n:
        return found
    return found[np.argpartition(-scores[found], n - 1)[:n]]


def _reached(scores: npt.NDArray[np.float32], n: int) -> float:
    """A score that at least n of them reach, and little more than n; 0.0 when they are few.

    It is the n-th highest of the maxima of parts: each is a score of its own.
    """
    width = len(scores) // _PARTS
    if width < 4 * n:
        return 0.0
    highest = scores[: width * _PARTS].reshape(_PARTS, width).max(axis=0)
    return float(np.partition(highest, -n)[-n])


def _union(some: Positions, others: Positions) -> Positions:
    """The positions of both, ascending; np.union1d takes five times as long for so few."""
    both = np.sort(np.concatenate([some, others]))
    union: Positions = both[np.append(True, np.diff(both) > 0)[: len(both)]]
    return union
