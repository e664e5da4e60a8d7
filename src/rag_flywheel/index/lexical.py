"""Lexical search: BM25 over texts, and the words of each text in order.

It must not know pids, vectors or votes: texts are positions, words are token ids.
"""

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from rag_flywheel.disk import (
    read_arrays,
    read_json,
    read_words,
    version_file_errors,
    write_arrays,
)
from rag_flywheel.errors import counted
from rag_flywheel.index.bm25 import LexicalScores, WordScores, add_column
from rag_flywheel.index.char_ngrams import CharNgrams
from rag_flywheel.index.compounds import Compounds
from rag_flywheel.index.languages import COMPOUNDING
from rag_flywheel.index.parts import DERIVED_FOLDER as DERIVED_FOLDER
from rag_flywheel.index.spans import by_first_use, rows_at
from rag_flywheel.index.spare import SpareArrays
from rag_flywheel.index.statistics import VersionStatistics
from rag_flywheel.index.texts import Texts
from rag_flywheel.index.tokenizer import (
    TokenIds,
    Tokenizer,
    tokenizer_of,
)
from rag_flywheel.index.tokenizer import tokenize as tokenize
from rag_flywheel.index.word_files import StoredWords, load_texts, save_texts
from rag_flywheel.index.word_list import Numbers
from rag_flywheel.index.word_table import WordTable
from rag_flywheel.records import ENGLISH, NO_LANGUAGE, STEMMED

LEXICAL_FOLDER, TOKENS_FOLDER = "lexical", "tokens"
_TITLES = {"titles": "int32 n"}
_COMPOUNDS = {"compound-offsets": "int32 words+1", "compounds": "int32 m"}
_LANGUAGE = "language.json"


@dataclass(frozen=True, eq=False)
class LexicalIndex(VersionStatistics):
    """BM25 over the texts at positions 0..n-1, and the token ids of each, in order."""

    bm25: WordScores
    vocabulary: Mapping[str, int]
    tokens: TokenIds  # of all texts, one after the other
    offsets: TokenIds  # (n + 1,): text i has tokens[offsets[i]:offsets[i + 1]]
    titles: TokenIds  # (n,): how many tokens of text i, its first, are its title
    ngrams: CharNgrams  # of the words of the vocabulary
    compounds: Compounds  # of the words of the vocabulary
    tokenizer: Tokenizer  # that the words are from
    stored: StoredWords | None = None  # the files that hold the words of the first of the texts

    @classmethod
    def build(
        cls,
        texts: Iterable[Iterable[str]],
        titles: Sequence[int] | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> "LexicalIndex":
        """Index texts, each given as its words in order.

        titles: how many words of each text, its first, are its title; None: no text has one.
        tokenizer: which the words are from; None: that of English.
        """
        tokenizer = tokenizer or tokenizer_of(ENGLISH)
        vocabulary: dict[str, int] = {}
        tokens, ends = array("i"), [0]
        for words in texts:
            tokens.extend(vocabulary.setdefault(word, len(vocabulary)) for word in words)
            ends.append(len(tokens))
        lengths = np.diff(np.array(ends, dtype=np.int32)).astype(np.int32)
        counts = np.zeros_like(lengths) if titles is None else np.array(titles, dtype=np.int32)
        every = np.frombuffer(tokens, dtype=np.int32)
        return cls._of(every, lengths, counts, vocabulary, tokenizer)

    @classmethod
    def _of(
        cls,
        tokens: TokenIds,
        lengths: TokenIds,
        titles: TokenIds,
        stems: Mapping[str, int],
        tokenizer: Tokenizer,
        before: "LexicalIndex | None" = None,
        stays: npt.NDArray[np.bool_] | None = None,
    ) -> "LexicalIndex":
        """Index texts by the tokens of all, the number of tokens of each and of its title.

        stems: the number of each word, which need not be in a text; words are renumbered in the order
        of their first use. before, stays: an index of the first of the stems, and which of its texts these
        begin with.
        """
        numbers, tokens = by_first_use(tokens, len(stems))
        words = list(stems)
        vocabulary = {words[number]: i for i, number in enumerate(numbers.tolist())}
        offsets = np.append(0, np.cumsum(lengths, dtype=np.int64)).astype(np.int32)
        compounds = Compounds.none(len(vocabulary))
        if tokenizer.language in COMPOUNDING:
            compounds = Compounds.of(vocabulary, tokenizer.stem)
        bm25 = WordScores.build(tokens, offsets, len(vocabulary), compounds)
        known = None
        stored = None
        if before is not None:
            old = np.where(numbers < len(before.vocabulary), numbers, np.int32(-1))
            known = before.ngrams, old
            if before.stored is not None and stays is not None:
                stored = before.stored.of(stays, old)
        ngrams = CharNgrams.build(vocabulary, np.diff(bm25.starts), len(lengths), known)
        return cls(bm25, vocabulary, tokens, offsets, titles, ngrams, compounds, tokenizer, stored)

    def changed(
        self, stays: npt.NDArray[np.bool_], texts: Iterable[tuple[str, str]]
    ) -> "LexicalIndex":
        """The index of the texts that stay, bool (n,), followed by new ones, each given as (title,
        whole text). It equals what `build` makes of all of them; only new texts are tokenised.
        """
        numbers = Numbers(dict(self.vocabulary), self.tokenizer)
        tokens, lengths, titles = numbers.of(texts)
        old = np.diff(self.offsets)
        return self._of(
            np.concatenate([self.tokens[np.repeat(stays, old)], tokens]),
            np.concatenate([old[stays], lengths]),
            np.concatenate([self.titles[stays], titles]),
            numbers.stems,
            self.tokenizer,
            self,
            stays,
        )

    @classmethod
    def load(cls, folder: Path, *, n_texts: int) -> "LexicalIndex":
        """Read the index in `folder`. Raises CorruptFileError when it is not one of n_texts."""
        lexical, tokens = folder / LEXICAL_FOLDER, folder / TOKENS_FOLDER
        with version_file_errors(f"{lexical}, {tokens} or {folder / DERIVED_FOLDER}"):
            vocabulary, compounds, tokenizer = _read_vocabulary(folder)
            ids, lengths, stored = load_texts(tokens, n_words=len(vocabulary))
            if int(ids.min(initial=0)) < 0:  # a number of the parts that no word has
                raise ValueError("the texts are not made of the words of words.json")
            if len(ids) >= 2**31:
                raise ValueError("the texts have more words than can be numbered")
            offsets = np.append(0, np.cumsum(lengths, dtype=np.int64)).astype(np.int32)
            (titles,) = read_arrays(tokens, _TITLES, n=len(lengths))
            if np.any(titles < 0) or np.any(titles > lengths):
                raise ValueError("a title has an impossible length")
            if len(titles) != n_texts:
                raise ValueError(f"it holds {counted(len(titles), 'text')}; expected {n_texts}")
            try:
                bm25 = WordScores.load(folder / DERIVED_FOLDER, len(vocabulary), n_texts)
                ngrams = CharNgrams.load(folder / DERIVED_FOLDER, n_words=len(vocabulary))
            except FileNotFoundError:
                bm25 = WordScores.build(ids, offsets, len(vocabulary), compounds)
                ngrams = CharNgrams.build(vocabulary, np.diff(bm25.starts), len(titles))
        return cls(bm25, vocabulary, ids, offsets, titles, ngrams, compounds, tokenizer, stored)

    def save(self, folder: Path, before: Path | None = None) -> None:
        """Write the index into `folder`, without pickle.

        before: the version that this was changed from; what it has of the words is linked.
        """
        lexical, tokens = folder / LEXICAL_FOLDER, folder / TOKENS_FOLDER
        lexical.mkdir()
        tokens.mkdir()
        self.save_derived(folder)
        (lexical / "words.json").write_bytes(msgspec.json.encode(list(self.vocabulary)))
        old = None
        if before is not None and self.stored is not None:
            old = before / TOKENS_FOLDER, self.stored
        save_texts(tokens, self.tokens, self.offsets, len(self.vocabulary), old)
        write_arrays(tokens, _TITLES, self.titles)
        if self.tokenizer.language in COMPOUNDING:
            write_arrays(tokens, _COMPOUNDS, self.compounds.offsets, self.compounds.ids)
        (lexical / _LANGUAGE).write_text(json.dumps(self.tokenizer.language), encoding="utf-8")

    def save_derived(self, folder: Path) -> None:
        """Write into `folder` what is computed from its other files."""
        derived = folder / DERIVED_FOLDER
        derived.mkdir()
        self.bm25.save(derived)
        self.ngrams.save(derived)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def scores(self, words: Sequence[str]) -> LexicalScores:
        """float32 (n,): BM25 of every text for the query's words (a repeated word counts again)."""
        scores = np.zeros(len(self), dtype=np.float32)
        for data, texts in self._columns(words):
            add_column(scores, data, texts)
        return scores

    def having_all(self, words: Sequence[str]) -> npt.NDArray[np.int64]:
        """Positions of the texts that have each of these words, ascending; none of no words."""
        found: npt.NDArray[np.int64] | None = None
        for word in dict.fromkeys(words):
            token = self.vocabulary.get(word)
            texts = () if token is None else self.bm25.of(token)[1]
            here = np.asarray(texts, dtype=np.int64)
            found = here if found is None else np.intersect1d(found, here, assume_unique=True)
            if not len(found):
                break
        return np.empty(0, dtype=np.int64) if found is None else found

    def scores_at(self, words: Sequence[str], positions: npt.NDArray[np.int64]) -> LexicalScores:
        """float32 (n,): `scores` of the texts at these positions, to the bit, without the others."""
        scores = np.zeros(len(positions), dtype=np.float32)
        for data, texts in self._columns(words):
            at = np.minimum(np.searchsorted(texts, positions), len(texts) - 1)
            there = texts[at] == positions
            scores[there] += data[at[there]]
        return scores

    def _columns(self, words: Sequence[str]) -> Iterator[tuple[LexicalScores, npt.NDArray[Any]]]:
        """For each known word of a query its scores, and the texts that have them, ascending."""
        for word in words:
            if (token := self.vocabulary.get(word)) is not None:
                data, texts = self.bm25.of(token)
                if len(texts):
                    yield data, texts

    @property
    def average_length(self) -> float:
        """Mean number of tokens in a text; 1.0 when there is no token at all."""
        return len(self.tokens) / len(self) if len(self.tokens) else 1.0

    @cached_property
    def average_title_length(self) -> float:
        """Mean number of tokens in a title; 0.0 when there is none."""
        return float(self.titles.mean()) if len(self.titles) else 0.0

    @cached_property
    def df(self) -> TokenIds:
        """How many texts have each word, (n_words,)."""
        found: TokenIds = np.diff(self.bm25.starts)
        return found

    @cached_property
    def distinct_df(self) -> TokenIds | None:
        """How many different texts have each word, (n_words,); None: no two texts are equal."""
        if self._first is None:
            return None
        so_far = np.zeros(len(self.bm25.texts) + 1, dtype=np.int32)
        np.cumsum(self._first[self.bm25.texts], dtype=np.int32, out=so_far[1:])
        df: TokenIds = np.diff(so_far[self.bm25.starts])
        return df

    @cached_property
    def n_distinct(self) -> int:
        """How many different texts there are, by their words."""
        return len(self) if self._first is None else int(self._first.sum())

    @cached_property
    def _first(self) -> npt.NDArray[np.bool_] | None:
        """Whether each text is the first with its words, (n,); None: no two are equal."""
        seen = set[int]()
        first = np.ones(len(self), dtype=bool)
        data, ends = self.tokens.tobytes(), (self.offsets.astype(np.int64) * 4).tolist()
        for i in range(len(self)):
            words = hash(data[ends[i] : ends[i + 1]])
            first[i] = words not in seen
            seen.add(words)
        return None if len(seen) == len(self) else first

    def texts_at(self, positions: npt.NDArray[np.int64]) -> Texts:
        """The texts at these positions, as their words."""
        rows = positions.astype(np.int32)
        lengths = (self.offsets[rows + 1] - self.offsets[rows]).astype(np.int64)
        tokens = rows_at(self.tokens, self.offsets, rows, int(lengths.sum()))
        return Texts(positions, tokens, lengths)

    def words_at(self, words: Sequence[str], texts: Texts) -> npt.NDArray[np.int16]:
        """Where distinct words occur in texts, one after the other: each token as the number of its word in
        `words`, or -1.

        A compound stands for the last of its parts that is asked for, unless it is itself.
        """
        known = [(i, n) for i, w in enumerate(words) if (n := self.vocabulary.get(w)) is not None]
        asked = [number for _, number in known]
        with self._numbers.borrowed() as number:
            having = [self.compounds.having(n) for n in asked] if len(self.compounds.ids) else []
            for (i, _), compounds in zip(known, having, strict=False):
                number[compounds] = i
            number[asked] = [i for i, _ in known]
            found: npt.NDArray[np.int16] = number.take(texts.tokens)
            for compounds in having:
                number[compounds] = -1
            number[asked] = -1
        return found

    @cached_property
    def _numbers(self) -> SpareArrays:
        return SpareArrays(len(self.vocabulary), np.int16)

    @cached_property
    def average_ngrams(self) -> float:
        """Mean number of character n-grams in a text; 1.0 when there is none at all."""
        n_ngrams = int(self._n_ngrams.sum(dtype=np.int64))
        return n_ngrams / len(self) if n_ngrams else 1.0

    @cached_property
    def _n_ngrams(self) -> TokenIds:
        """The number of character n-grams in each text, (n,)."""
        return self.ngrams.in_texts(self.tokens, self.offsets)

    def ngrams_at(
        self, ngrams: Sequence[str], texts: Texts
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """How often each n-gram is in each text, (n, m); and the n-grams of each, (n,)."""
        totals = self._n_ngrams[texts.positions].astype(np.int64)
        return self.ngrams.counts(ngrams, texts.tokens, totals), totals


def language_at(folder: Path) -> str:
    """The language of the index in `folder`. Raises CorruptFileError."""
    with version_file_errors(folder / LEXICAL_FOLDER):
        return _read_tokenizer(folder / LEXICAL_FOLDER).language


def read_vocabulary(folder: Path) -> tuple[Mapping[str, int], Compounds, Tokenizer]:
    """The numbered words of the index in `folder`, the parts of those that are compounds, and the tokenizer
    that they are from. Raises CorruptFileError."""
    with version_file_errors(f"{folder / LEXICAL_FOLDER} or {folder / TOKENS_FOLDER}"):
        return _read_vocabulary(folder)


def _read_vocabulary(folder: Path) -> tuple[Mapping[str, int], Compounds, Tokenizer]:
    vocabulary = WordTable(read_words(folder / LEXICAL_FOLDER / "words.json", list[str]))
    tokenizer = _read_tokenizer(folder / LEXICAL_FOLDER)
    compounds = Compounds.none(len(vocabulary))
    if tokenizer.language in COMPOUNDING:
        parts = read_arrays(folder / TOKENS_FOLDER, _COMPOUNDS, words=len(vocabulary))
        compounds = Compounds(*parts)
        compounds.check(len(vocabulary))
    return vocabulary, compounds, tokenizer


def _read_tokenizer(lexical: Path) -> Tokenizer:
    language = read_json(lexical / _LANGUAGE, str)
    if language not in (NO_LANGUAGE, *STEMMED):
        raise ValueError(f"{_LANGUAGE} names a language that is not known: {language!r}")
    return tokenizer_of(language)
