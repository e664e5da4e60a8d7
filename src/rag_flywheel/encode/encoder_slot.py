"""Holds the encoder of one index: loaded on first use, and always the one the index was made with."""

import re
import threading
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from rag_flywheel.encode.make import find_token_counter, make_encoder
from rag_flywheel.encode.token_counter import TokenCounter
from rag_flywheel.encode.tower import TaughtEncoder, Tower, Weights, require_tunable
from rag_flywheel.encoder import Encoder, QueryEncoder, check_encoder
from rag_flywheel.errors import CorruptFileError, EncoderError, EncoderMismatchError
from rag_flywheel.records import Vectors
from rag_flywheel.store import journal
from rag_flywheel.store.database import Database


@runtime_checkable
class _Warmable(Protocol):
    """An encoder that needs more for many texts than for the first few."""

    def warm(self) -> None:
        """Load all of it."""


class NamedEncoder:
    """An Encoder by its spec, whose name, revision and width are stored in the index.

    The model behind it loads at the first text: a refresh with nothing to embed loads none.
    Raises, when it loads, EncoderNotFoundError, EncoderError, EncoderMismatchError.
    """

    def __init__(self, spec: str, *, name: str, revision: str, dim: int) -> None:
        self.name = name
        self.revision = revision
        self.dim = dim
        self._spec = spec
        self._model: Encoder | None = None
        self._counter: TokenCounter | None = None
        self._lock = threading.Lock()

    @property
    def max_tokens(self) -> int | None:
        """How many tokens of a passage it reads; None if it does not say. Loads no more than needed."""
        if (counter := self._tokens()) is not None:
            return counter.max_tokens
        found: int | None = getattr(self._loaded(), "max_tokens", None)
        return found

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """The tokens of passages as it reads them. Raises EncoderError if it cannot count them."""
        if (counter := self._tokens()) is not None:
            return counter.count(texts)
        model = self._loaded()
        count = getattr(model, "count_tokens", None)
        if count is None:
            raise EncoderError(f"the encoder {self.name!r} has no count_tokens(texts)")
        found: Sequence[int] = count(texts)
        return found

    def _tokens(self) -> TokenCounter | None:
        """The counter of a model on this machine, while the model itself is not loaded."""
        with self._lock:
            if self._counter is None and self._model is None:
                self._counter = find_token_counter(self._spec)
            return self._counter

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        return self._loaded().encode_queries(texts)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        return self._loaded().encode_passages(texts)

    def tower(self) -> Tower:
        """A copy of its encoder of queries. Raises EncoderError when that cannot be tuned."""
        return require_tunable(self._loaded()).tower()

    def with_tower(self, tower: Tower) -> QueryEncoder:
        """An encoder of queries by a tuned tower."""
        return require_tunable(self._loaded()).with_tower(tower)

    def with_taught(self, taught: Mapping[str, Weights], name: str) -> QueryEncoder | None:
        """An encoder of queries by tuned weights; None where a tower is needed to make one."""
        model = self._loaded()
        return model.with_taught(taught, name) if isinstance(model, TaughtEncoder) else None

    def warm(self) -> None:
        """Load the model, and what it encodes many texts with."""
        if isinstance(model := self._loaded(), _Warmable):
            model.warm()

    def _loaded(self) -> Encoder:
        with self._lock:
            if self._model is None:
                model = make_encoder(self._spec)
                _require_same(_identity(self), _identity(model))
                self._model = model
            return self._model


class EncoderSlot:
    """Holds the encoder that is given as an object or by its spec; thread-safe."""

    def __init__(self, database: Database, given: Encoder | str) -> None:
        self._database = database
        self._given = given
        self._encoder: Encoder | None = None
        self._lock = threading.Lock()

    def get(self) -> Encoder:
        """The encoder; an object, or one that is new to the index, is checked at once.

        Raises EncoderNotFoundError, EncoderError, and EncoderMismatchError when the index was made
        with another one.
        """
        with self._lock:
            if self._encoder is None:
                self._encoder = self._found()
            return self._encoder

    def warm(self) -> None:
        """Load all that the encoder needs for many texts. Raises as `get`."""
        if isinstance(encoder := self.get(), _Warmable):
            encoder.warm()

    def _found(self) -> Encoder:
        known = self._known()
        if known is not None and isinstance(self._given, str):
            name, revision, dim = known
            return NamedEncoder(self._given, name=name, revision=revision, dim=_width(dim))
        given = self._given
        encoder = make_encoder(given) if isinstance(given, str) else check_encoder(given)
        _require_same(self._recorded(encoder), _identity(encoder))
        return encoder

    def _known(self) -> tuple[str, str, str] | None:
        with self._database.reading() as conn:
            found = [journal.read_meta(conn, key) for key in _KEYS]
        if any(value is None for value in found):
            return None
        name, revision, dim = map(str, found)
        return name, revision, dim

    def _recorded(self, encoder: Encoder) -> tuple[str, str, str]:
        """The identity of the index's encoder; an index without one records this encoder."""
        if (known := self._known()) is not None:
            return known
        if self._database.read_only:
            return _identity(encoder)
        with self._database.transaction() as conn:
            if journal.read_meta(conn, _KEYS[0]) is None:
                for key, value in zip(_KEYS, _identity(encoder), strict=True):
                    journal.write_meta(conn, key, value)
        return self._known() or _identity(encoder)


_KEYS = ("encoder", "revision", "dim")


def _identity(encoder: Encoder) -> tuple[str, str, str]:
    return encoder.name, encoder.revision, str(encoder.dim)


def _width(found: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,4}", found, re.ASCII):
        raise CorruptFileError(
            f"flywheel.db: meta 'dim' is {found[:40]!r}; expected the width of a vector. Run "
            "`rag-flywheel verify`, and restore the database from a backup"
        )
    return int(found)


def _require_same(known: tuple[str, str, str], found: tuple[str, str, str]) -> None:
    if known != found:
        raise EncoderMismatchError(
            f"this index was made with encoder {known[0]!r}, revision {known[1]}, {known[2]} wide; "
            f"found {found[0]!r}, revision {found[1]}, {found[2]} wide. Open it with its own "
            "encoder, or make a new index for the other one"
        )
