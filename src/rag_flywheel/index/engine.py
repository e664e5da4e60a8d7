"""What serving asks of the texts of a version, wherever they are: in this process's memory (`in_memory.py`),
or in a database of vectors. It must not know votes, or how candidates are ranked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.bm25 import LexicalScores
from rag_flywheel.index.part import Part
from rag_flywheel.index.statistics import WordStatistics
from rag_flywheel.records import Pids, Vectors

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Question:
    """A query as engines read it: its unit vector float32 (dim,), and its words in order."""

    vector: Vectors
    words: Sequence[str]


@dataclass(frozen=True)
class Scores:
    """The cosine and the BM25 of texts with a query, float32 (n,)."""

    cosines: Vectors
    bm25: LexicalScores


@dataclass(frozen=True)
class Found:
    """Texts that were found for a query, at ascending positions (n,), with their scores."""

    positions: Positions
    scores: Scores


@dataclass(frozen=True)
class ReadTexts:
    """The words of texts as a query needs them.

    places int16: each word of the texts, one text after the other, as the number of the query's word that
    it is, or -1; lengths, titles int64 (n,): words of each text, and of its title; ngrams float64 (n, m): how
    often each has the n-grams that were asked for; n_ngrams int64 (n,): how many it has.
    """

    places: npt.NDArray[np.int16]
    lengths: npt.NDArray[np.int64]
    titles: npt.NDArray[np.int64]
    ngrams: npt.NDArray[np.float64]
    n_ngrams: npt.NDArray[np.int64]

    def followed_by(self, other: "ReadTexts") -> "ReadTexts":
        """These texts, and then others."""
        return ReadTexts(
            np.concatenate([self.places, other.places]),
            np.concatenate([self.lengths, other.lengths]),
            np.concatenate([self.titles, other.titles]),
            np.concatenate([self.ngrams, other.ngrams]),
            np.concatenate([self.n_ngrams, other.n_ngrams]),
        )


class Engine(Protocol):
    """The texts of one version, which never change: found, scored and read by their positions.

    Every method may raise EngineError when the texts are elsewhere and cannot be reached.
    """

    @property
    def pids(self) -> Pids:
        """Ascending pids (n,), of the text at each position."""

    @property
    def dim(self) -> int:
        """Width of a vector."""

    @property
    def statistics(self) -> WordStatistics:
        """The word statistics that texts are scored under."""

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """The words of all texts, numbered."""

    @property
    def typical_cosine(self) -> float:
        """The mean cosine of two different texts."""

    def find(self, questions: Sequence[Question], n: int, part: Part | None) -> list[Found]:
        """For each question the n nearest texts and the n best by BM25 above 0, with both scores.

        part: the only texts to find; None: all.
        """

    def score(self, question: Question, positions: Positions) -> Scores:
        """The scores of the texts at these positions."""

    def having_all(self, words: Sequence[str], most: int) -> Positions:
        """Positions of the texts that have each of these words, ascending; none of no words.

        Where there are more than `most`, it may be any more than `most` texts.
        """

    def read(self, positions: Positions, words: Sequence[str], ngrams: Sequence[str]) -> ReadTexts:
        """The texts at these positions as the distinct words of a query, and these n-grams, need them."""

    def vectors(self, pids: Pids) -> Vectors:
        """float32 (n, dim): the vectors of these pids, which must all be in the version."""

    def nearest(self, vectors: Vectors, n: int) -> list[Pids]:
        """For each of many vectors the pids of the n nearest texts, the nearest first."""
