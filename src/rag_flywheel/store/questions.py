"""Names questions by keyed hashes: who has a version but not the database cannot try guesses at them."""

import hashlib

from rag_flywheel.store.connection import Connection
from rag_flywheel.store.passages import query_digest
from rag_flywheel.store.users import user_key

_BYTES = 16


def question_key(conn: Connection) -> bytes:
    """The key that questions of this index are hashed under, 32 bytes, derived from that of its users.

    Raises CorruptFileError when the index has none.
    """
    return hashlib.blake2b(b"questions", key=user_key(conn), digest_size=32).digest()


def query_hash(key: bytes, query: str) -> bytes:
    """16 bytes that name a question: keyed BLAKE2b (RFC 7693), the same for queries that `normalised`
    makes the same.

    key: as `question_key` returns it.
    """
    return keyed(key, query_digest(query))


def keyed(key: bytes, digest: bytes) -> bytes:
    """The name of a question by its digest."""
    return hashlib.blake2b(digest, key=key, digest_size=_BYTES).digest()
