"""The Encoder protocol, and the checks that every answer of an encoder passes.

It must not know which model library is behind an encoder.
"""

import importlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from rag_flywheel.errors import CorruptFileError, EncoderError, EncoderNotFoundError
from rag_flywheel.index.tower import Tower
from rag_flywheel.records import Vectors

_UNIT_TOLERANCE = 0.01  # half-precision models are off by up to half a percent


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into unit vectors.

    name, revision: what made the vectors; another revision means other vectors. dim: their width.
    Both methods return float32 (n, dim) with rows of unit length, in the order of the texts.
    """

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def revision(self) -> str:
        """Names the weights: vectors of different revisions are never compared."""

    @property
    def dim(self) -> int:
        """Width of a vector."""

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of queries."""

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Vectors of passages."""


@runtime_checkable
class TunableEncoder(Encoder, Protocol):
    """An Encoder whose queries can be taught by votes; its passages stay what they are."""

    def tower(self) -> Tower:
        """A copy of the side of queries as it was made, ready to be taught."""

    def with_tower(self, tower: Tower) -> "QueryEncoder":
        """What encodes queries as they are taught."""


class QueryEncoder(Protocol):
    """Turns queries into unit vectors, those that are compared with an Encoder's passages."""

    @property
    def revision(self) -> str:
        """Names the weights."""

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""


def require_tunable(encoder: Encoder) -> TunableEncoder:
    """The encoder, if its queries can be taught. Raises EncoderError."""
    if not isinstance(encoder, TunableEncoder):
        raise EncoderError(
            f"encoder {encoder.name!r} cannot be tuned: it has no tower(); expected a "
            "sentence-transformers model, or an encoder with the TunableEncoder protocol. Refresh "
            "without tuning"
        )
    return encoder


class TunedQueries:
    """Queries under the weights that a version was taught; they load by `load` or the first query.

    path: the file of those weights; revision: what they must come to. Thread-safe. Raises, when
    they load, CorruptFileError, EncoderError, EncoderNotFoundError.
    """

    def __init__(self, encoder: Encoder, path: Path, revision: str) -> None:
        self.revision = revision
        self._encoder = encoder
        self._path = path
        self._made: QueryEncoder | None = None
        self._lock = threading.Lock()

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._made is not None

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        return self.load().encode_queries(texts)

    def load(self) -> QueryEncoder:
        """What encodes, with its weights in memory."""
        with self._lock:
            if self._made is None:
                encoder = require_tunable(self._encoder)
                tower = encoder.tower()
                tower.load(self._path)
                if tower.revision != self.revision:
                    raise CorruptFileError(
                        f"{self._path} holds revision {tower.revision}; its version says "
                        f"{self.revision}. Run `rag-flywheel rollback` to another version"
                    )
                self._made = encoder.with_tower(tower)
            return self._made


def make_encoder(spec: str) -> Encoder:
    """The encoder that `spec` names: "sentence-transformers:NAME_OR_PATH" or "module:factory".

    Raises EncoderNotFoundError when it cannot be had, saying what to do.
    """
    module, _, name = spec.partition(":")
    if not module or not name:
        raise EncoderNotFoundError(
            f"encoder is {spec!r}; expected 'sentence-transformers:NAME' or 'module:factory'. "
            "An index made with an encoder object is opened with encoder=THE OBJECT"
        )
    if module == "sentence-transformers":
        from rag_flywheel.index.sentence_encoder import SentenceEncoder

        return SentenceEncoder.load(name)
    try:
        made: object = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, TypeError) as error:
        raise EncoderNotFoundError(
            f"encoder {spec!r} cannot be made ({error}); expected an importable module with a "
            "function or class of that name, called without arguments"
        ) from error
    return check_encoder(made)


def check_encoder(encoder: object) -> Encoder:
    """The object, if it has what the protocol asks for. Raises EncoderError."""
    if isinstance(encoder, type) or not isinstance(encoder, Encoder):
        raise EncoderError(
            f"{type(encoder).__name__} is no encoder; expected name, revision, dim, "
            "encode_queries(texts) and encode_passages(texts)"
        )
    for field in ("name", "revision"):
        value: object = getattr(encoder, field)
        if not isinstance(value, str) or not value:
            raise EncoderError(
                f"an encoder has the {field} {value!r}; expected a string, not empty"
            )
    dim = encoder.dim
    if type(dim) is not int or dim < 1:
        raise EncoderError(f"encoder {encoder.name!r} has dim {dim!r}; expected a whole number > 0")
    return encoder


def encode(
    method: Callable[[Sequence[str]], npt.ArrayLike], texts: Sequence[str], dim: int
) -> Vectors:
    """What `method` makes of the texts, checked: float32 (len(texts), dim), unit rows.

    Raises EncoderError on another shape, NaN or infinity, or rows that are not of unit length.
    """
    answer = method(texts)
    try:
        found = np.asarray(answer)
    except ValueError as error:
        raise EncoderError(
            f"the encoder returned rows of different shapes; expected ({len(texts)}, {dim})"
        ) from error
    if found.shape != (len(texts), dim):
        raise EncoderError(
            f"the encoder returned an array of shape {found.shape} for {len(texts)} texts; "
            f"expected ({len(texts)}, {dim})"
        )
    if found.dtype.kind != "f" or not np.isfinite(found).all():
        raise EncoderError(
            f"the encoder returned {found.dtype} values with NaN, infinity or no fractions; "
            "expected finite float32"
        )
    vectors = found.astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    off = np.abs(lengths - 1.0)
    if off.max(initial=0.0) > _UNIT_TOLERANCE:
        worst = lengths.flat[off.argmax()]
        raise EncoderError(
            f"the encoder returned a vector of length {worst:.3f}; expected unit length: divide "
            "each row by its norm"
        )
    unit: Vectors = vectors / lengths
    return unit
