"""The word statistics of a version in files of their own, for processes that do not load its texts.

statistics/pids.npy         int64 (n,), ascending: of the texts
statistics/df.npy           int32 (n_words,): how many texts have each word
statistics/distinct.npy     int32 (n_words,): how many different ones do; only where some are equal
statistics/titles.npy       int32 (n,): how many words of each text are its title
statistics/piece*           the four-letter parts of words, as in derived/
statistics/numbers.json     means over all texts, and how many different ones there are

The words and what they are made of are in the files of the lexical index.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
from msgspec import Meta

from rag_flywheel.disk import (
    exactly,
    read_arrays,
    read_json,
    version_file_errors,
    write_arrays,
)
from rag_flywheel.errors import counted
from rag_flywheel.index.char_ngrams import CharNgrams
from rag_flywheel.index.compounds import Compounds
from rag_flywheel.index.lexical import read_vocabulary
from rag_flywheel.index.parts import STATISTICS_FOLDER as FOLDER
from rag_flywheel.index.statistics import Counts, VersionStatistics
from rag_flywheel.index.tokenizer import Tokenizer
from rag_flywheel.records import Pids

if TYPE_CHECKING:
    from rag_flywheel.index.in_memory import InMemory

_ARRAYS = {"pids": "int64 n", "titles": "int32 n", "df": "int32 words"}
_DISTINCT = {"distinct": "int32 words"}
_NUMBERS = "numbers.json"
_Mean = Annotated[float, Meta(ge=0, le=1e9)]


@dataclass(frozen=True)
class _Numbers:
    """Means over all texts, and how many are different."""

    average_length: _Mean
    average_title_length: _Mean
    average_ngrams: _Mean
    n_distinct: Annotated[int, Meta(ge=0, le=2**31)]
    typical_cosine: Annotated[float, Meta(ge=-1.1, le=1.1)]


@dataclass(frozen=True, eq=False)
class StoredStatistics(VersionStatistics):
    """The statistics of a version without its texts.

    pids int64 (n,): of the texts, ascending; titles int32 (n,): how many words of each are its title.
    """

    pids: Pids
    titles: Counts
    vocabulary: Mapping[str, int]
    ngrams: CharNgrams
    compounds: Compounds
    tokenizer: Tokenizer
    numbers: _Numbers
    _df: Counts
    _distinct_df: Counts | None

    @classmethod
    def load(cls, folder: Path, *, n_texts: int) -> "StoredStatistics":
        """Read from a version folder. Raises CorruptFileError unless it is of this many texts."""
        vocabulary, compounds, tokenizer = read_vocabulary(folder)
        with version_file_errors(folder / FOLDER):
            n_words, own = len(vocabulary), folder / FOLDER
            ngrams = CharNgrams.load(own, n_words=n_words)
            pids, titles, df = read_arrays(own, _ARRAYS, words=n_words)
            distinct = None
            if (own / "distinct.npy").exists():
                (distinct,) = read_arrays(own, _DISTINCT, words=n_words)
            numbers = exactly(_Numbers, read_json(own / _NUMBERS))
            if len(pids) != n_texts:
                raise ValueError(f"it is of {counted(len(pids), 'text')}; expected {n_texts}")
            if (
                np.any(np.diff(pids) <= 0)
                or np.any(titles < 0)
                or any(
                    np.any(each < 0) or np.any(each > n_texts)
                    for each in (df, distinct)
                    if each is not None
                )
            ):
                raise ValueError("its numbers are not those of texts")
        return cls(pids, titles, vocabulary, ngrams, compounds, tokenizer, numbers, df, distinct)

    def __len__(self) -> int:
        return len(self.pids)

    @property
    def df(self) -> Counts:
        """As in `VersionStatistics`."""
        return self._df

    @property
    def distinct_df(self) -> Counts | None:
        """As in `VersionStatistics`."""
        return self._distinct_df

    @property
    def n_distinct(self) -> int:
        """As in `WordStatistics`."""
        return self.numbers.n_distinct

    @property
    def average_length(self) -> float:
        """As in `WordStatistics`."""
        return self.numbers.average_length

    @property
    def average_title_length(self) -> float:
        """As in `WordStatistics`."""
        return self.numbers.average_title_length

    @property
    def average_ngrams(self) -> float:
        """As in `WordStatistics`."""
        return self.numbers.average_ngrams


def save_statistics(folder: Path, texts: "InMemory") -> None:
    """Write the statistics of texts into the folder of their version."""
    own, words = folder / FOLDER, texts.lexical
    own.mkdir()
    words.ngrams.save(own)
    write_arrays(own, _ARRAYS, texts.pids, words.titles, words.df.astype(np.int32))
    if words.distinct_df is not None:
        write_arrays(own, _DISTINCT, words.distinct_df.astype(np.int32))
    numbers = _Numbers(
        words.average_length,
        words.average_title_length,
        words.average_ngrams,
        words.n_distinct,
        texts.typical_cosine,
    )
    (own / _NUMBERS).write_bytes(msgspec.json.encode(asdict(numbers)))
