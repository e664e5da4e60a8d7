"""Defines the Encoder protocol, and checks every vector that an encoder returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from rag_flywheel.errors import EncoderError, FlywheelError, counted
from rag_flywheel.records import Vectors

_UNIT_TOLERANCE = 0.01  # half-precision models are off by up to half a percent


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into unit vectors.

    name, revision: the model and its weights; another revision means other vectors. dim: their width.
    Both methods return float32 (n, dim) with rows of unit length, in the order of the texts.
    Optional: `max_tokens`, how many tokens of a passage it reads, and `count_tokens(texts)`, the tokens
    of each text, those that it adds included. Documents are cut by them (`Chunking.for_encoder`). `warm()`,
    which loads what many texts need; `Flywheel.warm` calls it.
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


class QueryEncoder(Protocol):
    """Turns queries into unit vectors, to be compared with an Encoder's vectors of passages."""

    @property
    def revision(self) -> str:
        """Names the weights."""

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""


class Encoders(Protocol):
    """The encoders of an index: an older version may have another one than the live version."""

    def get(self) -> Encoder:
        """That which new texts are embedded with, which is that of the live version."""

    def of(self, name: str, revision: str, dim: int) -> Encoder:
        """That which a version was built with. Raises EncoderMismatchError."""


@dataclass(frozen=True)
class TextEncoder:
    """Encodes texts of one kind, queries or passages, by the `method` of an encoder.

    revision: names the weights, under which vectors are stored; dim: their width.
    """

    revision: str
    dim: int
    method: Callable[[Sequence[str]], npt.ArrayLike]

    @classmethod
    def of_passages(cls, encoder: Encoder) -> "TextEncoder":
        """The passage side of an encoder."""
        return cls(encoder.revision, encoder.dim, encoder.encode_passages)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """The checked vectors of the texts, float32 (len(texts), dim), unit rows.

        Raises EncoderError on another shape, NaN or infinity, or rows that are not of unit length, and
        from what the encoder itself raises.
        """
        try:
            answer = self.method(texts)
        except FlywheelError:
            raise
        except Exception as error:
            raise EncoderError(
                f"the encoder failed on {counted(len(texts), 'text')} ({type(error).__name__}); its own "
                "error, which may quote texts, is the cause of this one: mend it, and repeat the call"
            ) from error
        try:
            found = np.asarray(answer)
        except ValueError as error:
            raise EncoderError(
                f"the encoder returned rows of different shapes; expected ({len(texts)}, {self.dim})"
            ) from error
        if found.shape != (len(texts), self.dim):
            raise EncoderError(
                f"the encoder returned an array of shape {found.shape} for {counted(len(texts), 'text')}; "
                f"expected ({len(texts)}, {self.dim})"
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


def check_encoder(encoder: object) -> Encoder:
    """The object, if it implements the protocol. Raises EncoderError."""
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
