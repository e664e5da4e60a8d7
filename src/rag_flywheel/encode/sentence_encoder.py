"""The default encoder: a sentence-transformers model.

No other module imports sentence-transformers.
"""

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from rag_flywheel.encode.bert import Bert, prepare_torch
from rag_flywheel.encode.model_folder import model_folder, model_name, not_found
from rag_flywheel.encode.revision import revision_of
from rag_flywheel.encode.token_counter import TokenCounter
from rag_flywheel.encode.tower import Tower
from rag_flywheel.errors import EncoderError
from rag_flywheel.records import Vectors

_BATCH = 32


class SentenceEncoder:
    """A sentence-transformers model as an Encoder.

    It uses bfloat16 arithmetic where the processor has it (cosine to float32 above 0.999; passages 3
    times as fast, a query twice). Its last digits depend on the size of a batch: passages have their
    vectors stored once, and queries are encoded one by one. A model that `Bert` can compute is left
    to it; any other is encoded by the library, its queries in float32.
    """

    def __init__(self, model: Any, *, name: str, revision: str, bf16: bool) -> None:
        self.model = model
        self._fast = Bert.of(model, half=bf16)
        self.bf16 = bf16
        self._lock = threading.Lock()  # fast tokenizers refuse concurrent use
        self.name = name
        self.revision = revision
        self.dim: int = int(model.get_embedding_dimension())

    @cached_property
    def _counter(self) -> TokenCounter | None:
        return TokenCounter.of_model(self.model)

    @property
    def max_tokens(self) -> int | None:
        """How many tokens of a passage are read; None if the model does not say."""
        return None if self._counter is None else self._counter.max_tokens

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The tokens of passages as the model reads them, those that it adds included."""
        if self._counter is None:
            raise EncoderError(f"the model {self.name!r} does not say how many tokens a text has")
        return self._counter.count(texts)

    @classmethod
    def load(cls, name: str) -> "SentenceEncoder":
        """Load a model by name or path; see `find_model` for where it is looked for.

        No code that a model brings is run, whatever its files say, and only safetensors are read.
        Raises EncoderNotFoundError, naming the remedies, when it is nowhere, and EncoderError for a
        model that needs code of its own.
        """
        folder = model_folder(name)
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        bf16 = prepare_torch()
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            model = SentenceTransformer(
                str(folder),
                device="cpu",
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
        except Exception as error:  # of any kind, by what the files of a model say
            raise not_found(name, f"{error}".strip().partition("\n")[0]) from error
        own = model_name(name, folder)
        return cls(model, name=own, revision=_revision(model), bf16=bf16)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows; other texts in the call change a vector by 1e-6 at most."""
        if self._fast is not None and texts:
            return self._fast.encode(texts, alone=self.bf16)
        return self._encode(self.model.encode_query, texts)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows, in bfloat16 arithmetic where the processor has it."""
        if self._fast is not None and texts:
            return self._fast.encode(texts)
        if not self.bf16:
            return self._encode(self.model.encode_document, texts)
        import torch

        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self._encode(self.model.encode_document, texts)

    def tower(self) -> Tower:
        """A copy of the model whose last layers can be tuned."""
        with self._lock:
            return Tower(self.model, self.revision)

    def with_tower(self, tower: Tower) -> "SentenceEncoder":
        """An encoder of queries by a tuned tower."""
        return SentenceEncoder(
            tower.model.eval(), name=self.name, revision=tower.revision, bf16=self.bf16
        )

    def _encode(self, method: Any, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.empty((0, self.dim), dtype=np.float32)
        with self._lock:
            found = method(
                list(texts),
                batch_size=_BATCH,
                normalize_embeddings=True,
                convert_to_tensor=True,
                show_progress_bar=False,
            )
        vectors: Vectors = found.float().cpu().numpy()
        return vectors


def _revision(model: Any) -> str:
    """Names the weights: a hash over every parameter, so that a path and a hub name agree."""
    return revision_of({key: value.float().numpy() for key, value in model.state_dict().items()})
