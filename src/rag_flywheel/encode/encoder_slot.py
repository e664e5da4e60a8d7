"""Holds the encoders of one index, loaded on first use: always the ones its versions were built with."""

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable
from weakref import WeakValueDictionary

from rag_flywheel.encode.make import find_token_counter, make_encoder
from rag_flywheel.encode.token_counter import TokenCounter
from rag_flywheel.encode.tower import TaughtEncoder, Tower, Weights, require_tunable
from rag_flywheel.encoder import Encoder, QueryEncoder, check_encoder
from rag_flywheel.errors import EncoderError, EncoderMismatchError
from rag_flywheel.records import Vectors
from rag_flywheel.store import encoders
from rag_flywheel.store.database import Database
from rag_flywheel.store.encoders import Identity

log = logging.getLogger("rag_flywheel")


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
    """The encoders of one index: that of the live version, given as an object or by its spec, and those of
    other versions by what is noted of them; thread-safe."""

    def __init__(
        self, database: Database, given: Encoder | str, *, by_settings: bool = False
    ) -> None:
        """given: the encoder, or its spec; by_settings: the settings of the folder name it, no caller."""
        self._database = database
        self._given = given
        self._by_settings = by_settings
        self._encoder: Encoder | None = None
        self._objects: dict[str, Encoder] = {}  # by revision, those that the caller gave
        self._others = WeakValueDictionary[str, Encoder]()  # by revision, while a version has them
        self._lock = threading.RLock()

    def get(self) -> Encoder:
        """The encoder that new texts are embedded with, which is that of the live version; an object, or
        one that is new to the index, is checked at once.

        Raises EncoderNotFoundError, EncoderError, and EncoderMismatchError when the live version was built
        with another one.
        """
        with self._lock:
            if self._encoder is None:
                self._encoder = self._found()
            elif (known := self._known()) is not None and not _is_same(self._encoder, known):
                self._encoder = self._of(known)  # another encoder went live
            return self._encoder

    def at_hand(self) -> Encoder:
        """The encoder of the live version, or where that cannot be had here, the one before: for what may
        compare texts by either, as the credit of an answer's passages. Raises as `get` where there is none.
        """
        try:
            return self.get()
        except EncoderMismatchError:
            with self._lock:
                if self._encoder is None:
                    raise
                return self._encoder

    def of(self, name: str, revision: str, dim: int) -> Encoder:
        """The encoder that a version was built with, which may not be the live one.

        Raises EncoderMismatchError when it was given as an object, and is not the one that is given here.
        """
        wanted = Identity(name, revision, dim)
        with self._lock:
            found = self.get() if self._encoder is None else self._encoder
            return found if _is_same(found, wanted) else self._of(wanted)

    def use(self, encoder: Encoder) -> None:
        """Take an object for the encoder of versions that were built with it."""
        with self._lock:
            self._objects[encoder.revision] = encoder

    def spec(self) -> str:
        """The spec that makes the encoder of the live version; "": it is an object."""
        found = self.get()
        with self._database.reading() as conn:
            noted = encoders.known(conn).get(found.revision)
        if noted is not None:
            return noted.spec
        return self._given if isinstance(self._given, str) else ""

    def warm(self) -> None:
        """Load all that the encoder needs for many texts. Raises as `get`."""
        if isinstance(encoder := self.get(), _Warmable):
            encoder.warm()

    def _found(self) -> Encoder:
        given, known = self._given, self._known()
        if isinstance(given, str):
            if known is None:
                return self._recorded(make_encoder(given))
            return self._named(given, known)
        encoder = self._recorded(check_encoder(given))
        self._objects[encoder.revision] = encoder
        return encoder

    def _named(self, spec: str, known: Identity) -> Encoder:
        """The live encoder by its spec. Where that is the spec of another encoder of the index, the settings
        were read before a change, and what is noted of the live one counts; a caller is told."""
        noted = self._noted()
        others = [each for each in noted.values() if each.spec == spec and each.identity != known]
        if not others or noted.get(known.revision, others[0]).spec == spec:
            return NamedEncoder(spec, name=known.name, revision=known.revision, dim=known.dim)
        if not self._by_settings:
            _require_same(known, others[0].identity)
        log.warning("the settings name encoder %r; the live version has %r", spec, known.name)
        return self._of(known)

    def _of(self, wanted: Identity) -> Encoder:
        if (given := self._objects.get(wanted.revision)) is not None and _is_same(given, wanted):
            return given
        if (other := self._others.get(wanted.revision)) is not None and _is_same(other, wanted):
            return other
        noted = self._noted().get(wanted.revision)
        if noted is None or not noted.spec:
            found = self._encoder or self._given
            _require_same(wanted, found if isinstance(found, str) else _identity(found))
            raise AssertionError("another encoder was wanted")
        made = NamedEncoder(noted.spec, name=wanted.name, revision=wanted.revision, dim=wanted.dim)
        self._others[wanted.revision] = made
        return made

    def _noted(self) -> dict[str, encoders.KnownEncoder]:
        with self._database.reading() as conn:
            return encoders.known(conn)

    def _known(self) -> Identity | None:
        with self._database.reading() as conn:
            return encoders.identity(conn)

    def _recorded(self, encoder: Encoder) -> Encoder:
        """The encoder, if it is the index's; an index without one records this encoder."""
        known = self._known()
        if known is None and not self._database.read_only:
            with self._database.transaction() as conn:
                if encoders.identity(conn) is None:
                    encoders.write_identity(conn, _identity(encoder))
            known = self._known()
        if known is not None:
            _require_same(known, _identity(encoder))
        return encoder


class OneEncoder:
    """The encoders of an index that never had but one."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def get(self) -> Encoder:
        """The encoder."""
        return self._encoder

    def of(self, name: str, revision: str, dim: int) -> Encoder:
        """The encoder. Raises EncoderMismatchError when a version was built with another one."""
        if not _is_same(self._encoder, Identity(name, revision, dim)):
            _require_same(Identity(name, revision, dim), _identity(self._encoder))
        return self._encoder


def _identity(encoder: Encoder) -> Identity:
    return Identity(encoder.name, encoder.revision, encoder.dim)


def _is_same(encoder: Encoder, wanted: Identity) -> bool:
    """Whether vectors of it can be compared with those of the encoder that is wanted."""
    return (encoder.revision, encoder.dim) == (wanted.revision, wanted.dim)


def _require_same(known: Identity, found: Identity | str) -> None:
    if known == found:
        return
    what = f"the spec {found!r}"
    if isinstance(found, Identity):
        what = f"{found.name!r}, revision {found.revision}, {found.dim} wide"
    raise EncoderMismatchError(
        f"this index was built with encoder {known.name!r}, revision {known.revision}, {known.dim} wide; "
        f"found {what}. Open it with its own encoder, or change to the other one: `rag-flywheel "
        "change-encoder`, or `Flywheel.change_encoder` for an object"
    )
