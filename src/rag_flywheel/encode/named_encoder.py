"""An encoder by its spec, whose model loads when it is needed: in this process, or on a cluster's workers."""

import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Literal, Protocol, runtime_checkable

from rag_flywheel.encode.cluster import Cluster
from rag_flywheel.encode.make import find_token_counter, make_encoder
from rag_flywheel.encode.token_counter import TokenCounter
from rag_flywheel.encode.tower import TaughtEncoder, Tower, Weights, require_tunable
from rag_flywheel.encoder import Encoder, InParts, QueryEncoder
from rag_flywheel.errors import EncoderError, EncoderMismatchError
from rag_flywheel.records import Vectors
from rag_flywheel.store.encoders import Identity

Kind = Literal["queries", "passages"]


@runtime_checkable
class Warmable(Protocol):
    """An encoder that needs more for many texts than for the first few."""

    def warm(self) -> None:
        """Load all of it."""


class NamedEncoder:
    """An Encoder by its spec, whose name, revision and width are stored in the index.

    The model behind it loads at the first text: a refresh with nothing to embed loads none.
    model: that model, where it was loaded before. cluster: whose workers encode what comes in several
    parts; each of them makes the model by its spec.
    Raises, when it loads, EncoderNotFoundError, EncoderError, EncoderMismatchError.
    """

    def __init__(
        self,
        spec: str,
        identity: Identity,
        *,
        model: Encoder | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        self.name, self.revision, self.dim = identity
        self._spec = spec
        self._model = model
        self._cluster = cluster
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

    @property
    def encode_queries_in_parts(self) -> InParts | None:
        """Encodes queries in parts by the workers of the cluster; None: there is none."""
        return self._in_parts("queries")

    @property
    def encode_passages_in_parts(self) -> InParts | None:
        """Encodes passages in parts by the workers of the cluster; None: there is none."""
        return self._in_parts("passages")

    def _in_parts(self, kind: Kind) -> InParts | None:
        if self._cluster is None:
            return None
        return partial(self._cluster.encode, partial(_embed, self._spec, identity_of(self), kind))

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
        if isinstance(model := self._loaded(), Warmable):
            model.warm()

    def _loaded(self) -> Encoder:
        with self._lock:
            if self._model is None:
                model = make_encoder(self._spec)
                require_same(identity_of(self), identity_of(model))
                self._model = model
            return self._model


def make_named(spec: str, cluster: Cluster | None) -> Encoder:
    """The encoder that a spec names, loaded; what comes in parts is encoded by the workers of the cluster.

    Raises EncoderNotFoundError.
    """
    model = make_encoder(spec)
    if cluster is None:
        return model
    return NamedEncoder(spec, identity_of(model), model=model, cluster=cluster)


def _embed(spec: str, identity: Identity, kind: Kind, texts: Sequence[str]) -> Vectors:
    """What a worker of a cluster does with a part."""
    with _one_model:
        encoder = _on_worker(spec, identity)
    return encoder.encode_queries(texts) if kind == "queries" else encoder.encode_passages(texts)


_one_model = threading.Lock()


@lru_cache(maxsize=1)
def _on_worker(spec: str, identity: Identity) -> NamedEncoder:
    """The encoder of this worker, which keeps its model from one part to the next."""
    return NamedEncoder(spec, identity)


def identity_of(encoder: Encoder) -> Identity:
    """What tells an encoder from others."""
    return Identity(encoder.name, encoder.revision, encoder.dim)


def is_same(encoder: Encoder, wanted: Identity) -> bool:
    """Whether vectors of it can be compared with those of the encoder that is wanted."""
    return (encoder.revision, encoder.dim) == (wanted.revision, wanted.dim)


def require_same(known: Identity, found: Identity | str) -> None:
    """Raises EncoderMismatchError when what was found, an encoder or its spec, is not the index's encoder."""
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
