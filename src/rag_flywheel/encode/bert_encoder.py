"""The default encoder where `Bert` computes the model: sentence-transformers is not imported, and torch only
when more than a few queries come.

Those libraries take seconds to load, several times as long as everything else that one query takes.
"""

import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from rag_flywheel.encode.bert import Bert, prepare_torch
from rag_flywheel.encode.model_folder import missing_package
from rag_flywheel.encode.numpy_bert import NumpyBert
from rag_flywheel.encode.plain_model import PREFIX, PlainModel, read_plain_model
from rag_flywheel.encode.revision import revision_of
from rag_flywheel.encode.sentence_encoder import SentenceEncoder
from rag_flywheel.encode.token_counter import TokenCounter
from rag_flywheel.encode.tower import TAUGHT, Tower, Weights, require_fitting
from rag_flywheel.encoder import QueryEncoder
from rag_flywheel.errors import EncoderError
from rag_flywheel.records import Vectors

FEW = 64  # queries; each takes up to 5 ms longer than by torch, whose import takes 1500 ms


class BertQueries:
    """Encodes queries by the weights of a revision; thread-safe.

    The first few of a process are computed by numpy in float32, for a command that asks one question takes
    less time than importing torch does. All others are computed by torch: each by itself in bfloat16,
    where last digits depend on what is computed together.
    """

    def __init__(self, plain: PlainModel, revision: str, bf16: bool | None = None) -> None:
        self.revision = revision
        self._plain = plain
        self._bf16 = bf16
        self._by_numpy: NumpyBert | None = None
        self._n_by_numpy = 0
        self._by_torch: Bert | None = None
        self._lock = threading.Lock()

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows; other texts in the call change a vector by 1e-6 at most."""
        few = self._few(len(texts))
        if few is not None:
            return few.encode(texts)
        return self.bert().encode(texts, alone=self.bf16)

    def bert(self) -> Bert:
        """The model computed by torch, which is imported. Raises EncoderNotFoundError without torch."""
        with self._lock:
            if self._by_torch is None:
                try:
                    self._by_torch = _bert(self._plain, half=self.bf16)
                except ModuleNotFoundError as error:
                    raise missing_package(error) from error
                self._by_numpy = None
            return self._by_torch

    @property
    def bf16(self) -> bool:
        """Whether torch computes it in bfloat16: None was given, and the processor does. Imports torch."""
        if self._bf16 is None:
            self._bf16 = prepare_torch()
        return self._bf16

    def _few(self, n: int) -> NumpyBert | None:
        """The model computed by numpy, while torch is not there and few texts have come."""
        with self._lock:
            self._n_by_numpy += n
            if self._by_torch is not None or self._n_by_numpy > FEW or "torch" in sys.modules:
                self._by_numpy = None
            elif self._by_numpy is None:
                self._by_numpy = _numpy_bert(self._plain)
            return self._by_numpy


class BertEncoder:
    """A sentence-transformers model as an Encoder, computed without the library; thread-safe.

    Its vectors and its revision are those of `SentenceEncoder`, arithmetic in bfloat16 included, but for the
    first queries of a process (see `BertQueries`). The library loads when the encoder is to be tuned, and
    must then give the same vectors. bf16: of `BertQueries`.
    """

    def __init__(
        self, plain: PlainModel, folder: Path, *, name: str, bf16: bool | None = None
    ) -> None:
        self._plain = plain
        self._folder = folder
        self._bf16 = bf16
        self._library: SentenceEncoder | None = None
        self._lock = threading.Lock()
        self.name = name
        self.revision = revision_of({PREFIX + n: w for n, w in plain.weights.items()})
        self.dim: int = plain.weights["embeddings.word_embeddings.weight"].shape[1]
        self._queries = BertQueries(plain, self.revision, bf16)

    @classmethod
    def of_folder(cls, folder: Path, *, name: str) -> "BertEncoder | None":
        """The model in a folder that `model_folder` found; None when it is left to the library."""
        plain = read_plain_model(folder)
        return None if plain is None else cls(plain, folder, name=name)

    @property
    def bf16(self) -> bool:
        """Whether passages are computed in bfloat16. Imports torch."""
        return self._queries.bf16

    def warm(self) -> None:
        """Import torch, by which all but the first queries are computed. Raises EncoderNotFoundError."""
        self._queries.bert()

    @cached_property
    def _counter(self) -> TokenCounter:
        return TokenCounter.of_tokenizer(self._plain.tokenizer, self._plain.max_tokens)

    @property
    def max_tokens(self) -> int:
        """How many tokens of a passage are read."""
        return self._plain.max_tokens

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The tokens of passages as the model reads them, those that it adds included."""
        return self._counter.count(texts)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows; other texts in the call change a vector by 1e-6 at most."""
        return self._queries.encode_queries(texts)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows, in bfloat16 arithmetic where the processor has it."""
        return self._queries.bert().encode(texts)

    def tower(self) -> Tower:
        """A copy of the model whose last layers can be tuned. Raises EncoderError."""
        return self._loaded().tower()

    def with_tower(self, tower: Tower) -> QueryEncoder:
        """An encoder of queries by a tuned tower."""
        return self._loaded().with_tower(tower)

    def with_taught(self, taught: Mapping[str, Weights], name: str) -> QueryEncoder | None:
        """An encoder of queries by the weights of a tuned tower, which is not made; name: how an error
        refers to them. None: a tower is needed. Raises CorruptFileError when they do not fit."""
        n, plain = self._plain.shape.layers, self._plain
        if n < 2:
            return None
        layers = tuple(f"encoder.layer.{i}." for i in range(max(n - TAUGHT, 0), n))
        own = {key: value for key, value in plain.weights.items() if key.startswith(layers)}
        require_fitting(taught, {PREFIX + key: t.shape for key, t in own.items()}, name)
        given = {key: taught[PREFIX + key] for key in own}
        tuned = PlainModel(
            plain.shape, {**plain.weights, **given}, plain.tokenizer, plain.max_tokens
        )
        return BertQueries(tuned, revision_of(taught, base=self.revision), self._bf16)

    def _loaded(self) -> SentenceEncoder:
        """The library's encoder. Raises EncoderError when its vectors are others."""
        with self._lock:
            if self._library is None:
                library = SentenceEncoder.load(str(self._folder))
                same = library.revision == self.revision
                if not same or not _bert(self._plain, half=False).agrees_with(library.model):
                    raise EncoderError(
                        f"sentence-transformers gives other vectors for the model {self._folder} than "
                        "its files say, so it cannot be tuned; expected the same. Refresh without "
                        "tuning"
                    )
                self._library = library
            return self._library


def _bert(plain: PlainModel, *, half: bool) -> Bert:
    import torch

    weights = {name: torch.from_numpy(values) for name, values in plain.weights.items()}
    return Bert(plain.shape, weights, plain.tokenizer, plain.max_tokens, half=half)


def _numpy_bert(plain: PlainModel) -> NumpyBert:
    return NumpyBert(plain.shape, plain.weights, plain.tokenizer, plain.max_tokens)
