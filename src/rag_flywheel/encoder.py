"""Defines the Encoder protocol, and checks every vector that an encoder returns."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from rag_flywheel.errors import EncoderError, FlywheelError, counted
from rag_flywheel.records import Vectors

Parts = Sequence[Sequence[str]]
InParts = Callable[[Parts], Iterable[tuple[int, npt.ArrayLike]]]
"""(number of a part, the vectors of its texts), as parts are done."""
_UNIT_TOLERANCE = 0.01  # half-precision models are off by up to half a percent


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into unit vectors.

    name, revision: the model and its weights; another revision means other vectors. dim: their width.
    Both methods return float32 (n, dim) with rows of unit length, in the order of the texts.
    Optional: `max_tokens`, how many tokens of a passage it reads, and `count_tokens(texts)`, the tokens
    of each text, those that it adds included. Documents are cut by them (`Chunking.for_encoder`). `warm()`,
    which loads what many texts need; `Flywheel.warm` calls it. `encode_queries_in_parts(parts)` and
    `encode_passages_in_parts(parts)`, for what encodes on several machines at once: they take several lists
    of texts, and yield (number of a part from 0, its vectors) as parts are done, in any order.
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

    revision: names the weights, under which vectors are stored; dim: their width; parts_method: encodes
    several lists of texts at once, None: nothing but one after the other.
    """

    revision: str
    dim: int
    method: Callable[[Sequence[str]], npt.ArrayLike]
    parts_method: InParts | None = None

    @classmethod
    def of_passages(cls, encoder: Encoder) -> "TextEncoder":
        """The passage side of an encoder."""
        in_parts = getattr(encoder, "encode_passages_in_parts", None)
        return cls(encoder.revision, encoder.dim, encoder.encode_passages, in_parts)

    @classmethod
    def of_queries(cls, encoder: QueryEncoder, dim: int) -> "TextEncoder":
        """The query side of an encoder, whose vectors are so wide."""
        in_parts = getattr(encoder, "encode_queries_in_parts", None)
        return cls(encoder.revision, dim, encoder.encode_queries, in_parts)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """The checked vectors of the texts, float32 (len(texts), dim), unit rows.

        Raises EncoderError on another shape, NaN or infinity, or rows that are not of unit length, and
        from what the encoder itself raises.
        """
        with _its_own_errors(len(texts)):
            answer = self.method(texts)
        return self._checked(answer, len(texts))

    def encode_parts(self, parts: Parts) -> Iterator[tuple[int, Vectors]]:
        """(number of a part, the checked vectors of its texts), in the order in which they are done.

        Raises as `encode`.
        """
        if self.parts_method is None or len(parts) < 2:
            for number, texts in enumerate(parts):
                yield number, self.encode(texts)
            return
        left = set(range(len(parts)))
        with _its_own_errors(sum(map(len, parts))):
            made = iter(self.parts_method(parts))
        while left:
            with _its_own_errors(sum(len(parts[number]) for number in left)):
                number, answer = next(made, (-1, None))
            if number not in left:
                what = "no more parts" if answer is None else f"part {number!r}"
                raise EncoderError(
                    f"the encoder returned {what} of {len(parts)}; expected each of them once"
                )
            left.remove(number)
            yield number, self._checked(answer, len(parts[number]))

    def _checked(self, answer: npt.ArrayLike | None, n: int) -> Vectors:
        """The vectors of n texts that an encoder answered with, as float32 unit rows. Raises EncoderError."""
        try:
            found = np.asarray(answer)
        except ValueError as error:
            raise EncoderError(
                f"the encoder returned rows of different shapes; expected ({n}, {self.dim})"
            ) from error
        if found.shape != (n, self.dim):
            raise EncoderError(
                f"the encoder returned an array of shape {found.shape} for {counted(n, 'text')}; "
                f"expected ({n}, {self.dim})"
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


@contextmanager
def _its_own_errors(n: int) -> Iterator[None]:
    """Raises EncoderError for what an encoder itself raises on so many texts."""
    try:
        yield
    except FlywheelError:
        raise
    except Exception as error:
        raise EncoderError(
            f"the encoder failed on {counted(n, 'text')} ({type(error).__name__}); its own "
            "error, which may quote texts, is the cause of this one: mend it, and repeat the call"
        ) from error


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
