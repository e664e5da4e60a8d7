"""The encoder of one index: loaded when first needed, and always the one the index was made with."""

import threading

from rag_flywheel.errors import EncoderMismatchError
from rag_flywheel.index.encoder import Encoder, check_encoder, make_encoder
from rag_flywheel.store import journal
from rag_flywheel.store.database import Database


class EncoderSlot:
    """Holds the encoder that `given` is, or names; thread-safe."""

    def __init__(self, database: Database, given: Encoder | str) -> None:
        self._database = database
        self._given = given
        self._encoder: Encoder | None = None
        self._lock = threading.Lock()

    def get(self) -> Encoder:
        """The encoder, loaded and checked at the first call.

        Raises EncoderNotFoundError, EncoderError, and EncoderMismatchError when the index was made
        with another one.
        """
        with self._lock:
            if self._encoder is None:
                given = self._given
                encoder = make_encoder(given) if isinstance(given, str) else check_encoder(given)
                self._require_same(encoder)
                self._encoder = encoder
            return self._encoder

    def _require_same(self, encoder: Encoder) -> None:
        mine = {"encoder": encoder.name, "revision": encoder.revision, "dim": str(encoder.dim)}
        with self._database.reading() as conn:
            known = {key: journal.read_meta(conn, key) for key in mine}
        if known["encoder"] is None:
            with self._database.transaction() as conn:
                known = {key: journal.read_meta(conn, key) for key in mine}
                if known["encoder"] is None:
                    for key, value in mine.items():
                        journal.write_meta(conn, key, value)
                    return
        if known != mine:
            raise EncoderMismatchError(
                f"this index was made with encoder {known['encoder']!r}, revision "
                f"{known['revision']}, {known['dim']} wide; found {mine['encoder']!r}, revision "
                f"{mine['revision']}, {mine['dim']} wide. Open it with its own encoder, or make a "
                "new index for the other one"
            )
