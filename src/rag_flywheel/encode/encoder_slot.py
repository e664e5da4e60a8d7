"""Holds the encoders of one index, loaded on first use: always the ones its versions were built with."""

import logging
import threading
from weakref import WeakValueDictionary

from rag_flywheel.encode.cluster import Cluster
from rag_flywheel.encode.named_encoder import (
    NamedEncoder,
    Warmable,
    identity_of,
    is_same,
    make_named,
    require_same,
)
from rag_flywheel.encoder import Encoder, check_encoder
from rag_flywheel.errors import EncoderError, EncoderMismatchError
from rag_flywheel.store import encoders
from rag_flywheel.store.database import Database
from rag_flywheel.store.encoders import Identity

log = logging.getLogger("rag_flywheel")
_FOR_ONE, _FOR_MANY = 512, 16_384  # texts, for this process or for the workers of a cluster


class EncoderSlot:
    """The encoders of one index: that of the live version, given as an object or by its spec, and those of
    other versions by what is noted of them; thread-safe."""

    def __init__(
        self,
        database: Database,
        given: Encoder | str,
        *,
        by_settings: bool = False,
        cluster: Cluster | None = None,
    ) -> None:
        """given: the encoder, or its spec; by_settings: the settings of the folder name it, no caller;
        cluster: whose workers embed what comes in parts. Raises EncoderError for an object beside a cluster.
        """
        _require_spec(given, cluster)
        self._database = database
        self._cluster = cluster
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
            elif (known := self._known()) is not None and not is_same(self._encoder, known):
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
            return found if is_same(found, wanted) else self._of(wanted)

    @property
    def at_once(self) -> int:
        """How many texts are best embedded in one call, where they are many."""
        return _FOR_ONE if self._cluster is None else _FOR_MANY

    def other(self, given: Encoder | str) -> Encoder:
        """An encoder that the index may change to, loaded. Raises EncoderNotFoundError, EncoderError."""
        _require_spec(given, self._cluster)
        return make_named(given, self._cluster) if isinstance(given, str) else check_encoder(given)

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
        if isinstance(encoder := self.get(), Warmable):
            encoder.warm()

    def _found(self) -> Encoder:
        given, known = self._given, self._known()
        if isinstance(given, str):
            if known is None:
                return self._recorded(make_named(given, self._cluster))
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
            return NamedEncoder(spec, known, cluster=self._cluster)
        if not self._by_settings:
            require_same(known, others[0].identity)
        log.warning("the settings name encoder %r; the live version has %r", spec, known.name)
        return self._of(known)

    def _of(self, wanted: Identity) -> Encoder:
        if (given := self._objects.get(wanted.revision)) is not None and is_same(given, wanted):
            return given
        if (other := self._others.get(wanted.revision)) is not None and is_same(other, wanted):
            return other
        noted = self._noted().get(wanted.revision)
        if noted is None or not noted.spec:
            found = self._encoder or self._given
            require_same(wanted, found if isinstance(found, str) else identity_of(found))
            raise AssertionError("another encoder was wanted")
        made = NamedEncoder(noted.spec, wanted, cluster=self._cluster)
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
                    encoders.write_identity(conn, identity_of(encoder))
            known = self._known()
        if known is not None:
            require_same(known, identity_of(encoder))
        return encoder


def _require_spec(given: Encoder | str, cluster: Cluster | None) -> None:
    """Raises EncoderError for an object that no worker of a cluster could make."""
    if cluster is not None and not isinstance(given, str | NamedEncoder):
        raise EncoderError(
            f"the encoder is an object, {type(given).__name__}, which Dask workers cannot make; expected "
            "'sentence-transformers:NAME' or 'module:factory' that can be imported there"
        )


class OneEncoder:
    """The encoders of an index that never had but one."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def get(self) -> Encoder:
        """The encoder."""
        return self._encoder

    def of(self, name: str, revision: str, dim: int) -> Encoder:
        """The encoder. Raises EncoderMismatchError when a version was built with another one."""
        if not is_same(self._encoder, Identity(name, revision, dim)):
            require_same(Identity(name, revision, dim), identity_of(self._encoder))
        return self._encoder
