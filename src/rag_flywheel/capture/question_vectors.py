"""Makes the vectors of the questions of an import: of the first at once, for they keep it waiting; the others
wait for the next refresh."""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property

from rag_flywheel.encoder import TextEncoder
from rag_flywheel.records import Progress
from rag_flywheel.store.database import Database
from rag_flywheel.store.embedding import shortest_first, stored_vectors_of
from rag_flywheel.store.golden import query_texts
from rag_flywheel.store.vectors import hashes_with_vector

MOST_AT_ONCE = 512
"""Questions with votes that an import embeds itself: some seconds' work of a model on one core."""


class QuestionVectors:
    """Stores vectors of the questions of one import.

    load_encoder: the encoder of queries, loaded when a question first needs it.
    """

    def __init__(
        self,
        database: Database,
        load_encoder: Callable[[], TextEncoder],
        progress: Progress | None,
    ) -> None:
        self._database = database
        self._load_encoder = load_encoder
        self._progress = progress
        self._left = MOST_AT_ONCE

    @cached_property
    def _encoder(self) -> TextEncoder:
        return self._load_encoder()

    def store(self, texts: Mapping[bytes, str]) -> None:
        """Store the vectors of all of these questions, by hash, that have none."""
        given = shortest_first(texts)
        stored_vectors_of(self._database, given, self._encoder, self._progress, "embed questions")

    def store_first(self, hashes: Iterable[bytes]) -> None:
        """Store those of the first of these recorded questions, as many as the import may still embed."""
        if not self._left:
            return
        wanted = list(dict.fromkeys(hashes))
        with self._database.reading() as conn:
            there = hashes_with_vector(conn, wanted, self._encoder.revision)
            lacking = [name for name in wanted if name not in there][: self._left]
            texts = query_texts(conn, lacking)
        self._left -= len(lacking)
        self.store({name: text for name, text in texts.items() if text})
