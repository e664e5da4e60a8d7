"""The default encoder where `Bert` computes the model: sentence-transformers is not imported.

That library takes seconds to load, several times as long as everything else that one query takes.
"""

import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from rag_flywheel.encode.bert import Bert, prepare_torch
from rag_flywheel.encode.plain_model import PREFIX, PlainModel, read_plain_model
from rag_flywheel.encode.revision import revision_of
from rag_flywheel.encode.sentence_encoder import SentenceEncoder
from rag_flywheel.encode.token_counter import TokenCounter
from rag_flywheel.encode.tower import TAUGHT, Tower, Weights, require_fitting
from rag_flywheel.encoder import QueryEncoder
from rag_flywheel.errors import EncoderError
from rag_flywheel.records import Vectors


class BertQueries:
    """Encodes queries by the weights of a revision; each by itself in bfloat16, where last digits
    depend on what is computed together."""

    def __init__(self, bert: Bert, revision: str, *, bf16: bool) -> None:
        self.revision = revision
        self._bert = bert
        self._alone = bf16

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows; other texts in the call change a vector by 1e-6 at most."""
        return self._bert.encode(texts, alone=self._alone)


class BertEncoder:
    """A sentence-transformers model as an Encoder, computed without the library; thread-safe.

    Its vectors and its revision are those of `SentenceEncoder`, arithmetic in bfloat16 included. The
    library loads when the encoder is to be tuned, and must then give the same vectors.
    """

    def __init__(self, plain: PlainModel, folder: Path, *, name: str, bf16: bool) -> None:
        self._plain = plain
        self._folder = folder
        self._bert = _bert(plain, half=bf16)
        self._library: SentenceEncoder | None = None
        self._lock = threading.Lock()
        self.bf16 = bf16
        self.name = name
        self.revision = revision_of({PREFIX + n: t.numpy() for n, t in plain.weights.items()})
        self.dim = self._bert.dim
        self._queries = BertQueries(self._bert, self.revision, bf16=bf16)

    @classmethod
    def of_folder(cls, folder: Path, *, name: str) -> "BertEncoder | None":
        """The model in a folder that `model_folder` found; None when it is left to the library."""
        plain = read_plain_model(folder)
        return None if plain is None else cls(plain, folder, name=name, bf16=prepare_torch())

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
        return self._bert.encode(texts)

    def tower(self) -> Tower:
        """A copy of the model whose last layers can be tuned. Raises EncoderError."""
        return self._loaded().tower()

    def with_tower(self, tower: Tower) -> QueryEncoder:
        """An encoder of queries by a tuned tower."""
        return self._loaded().with_tower(tower)

    def with_taught(self, taught: Mapping[str, Weights], name: str) -> QueryEncoder | None:
        """An encoder of queries by the weights of a tuned tower, which is not made; name: how an error
        refers to them. None: a tower is needed. Raises CorruptFileError when they do not fit."""
        import torch

        n, plain = self._plain.shape.layers, self._plain
        if n < 2:
            return None
        layers = tuple(f"encoder.layer.{i}." for i in range(max(n - TAUGHT, 0), n))
        own = {key: value for key, value in plain.weights.items() if key.startswith(layers)}
        require_fitting(taught, {PREFIX + key: tuple(t.shape) for key, t in own.items()}, name)
        given = {key: torch.from_numpy(taught[PREFIX + key]) for key in own}
        tuned = PlainModel(
            plain.shape, {**plain.weights, **given}, plain.tokenizer, plain.max_tokens
        )
        revision = revision_of(taught, base=self.revision)
        return BertQueries(_bert(tuned, half=self.bf16), revision, bf16=self.bf16)

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
    return Bert(plain.shape, plain.weights, plain.tokenizer, plain.max_tokens, half=half)
