"""What went with the users who were forgotten, so that an export of before does not bring it back.

Of each retrieval that was deleted, and of each vote on a retrieval that others asked for, a keyed hash stays,
and of what was imported also the key of that. They name no user, and say nothing without the key of the index
and the very row of such an export.
"""

import hashlib
from collections.abc import Collection, Iterable

from rag_flywheel.store.connection import Connection, in_chunks
from rag_flywheel.store.users import user_key

_BYTES = 16


class Forgotten:
    """Names what may have been deleted, under a key that is derived from that of the index."""

    def __init__(self, conn: Connection) -> None:
        """Raises CorruptFileError when the index has no key."""
        self._key = hashlib.blake2b(b"forgotten", key=user_key(conn), digest_size=32).digest()

    def retrieval(self, id_: str) -> bytes:
        """What stays of a retrieval."""
        return self._hash("retrieval", id_)

    def vote(
        self, retrieval_id: str, pid: int | None, kind: str, verdict: str, at: float
    ) -> list[bytes]:
        """What stays of a vote on a passage, pid, or of other feedback, None: one key with its time to the
        millisecond, and one to the second."""
        what = self._said(retrieval_id, pid, kind, verdict)
        return [self._hash(*what, "ms", round(at * 1e3)), self._hash(*what, "s", int(at))]

    def votes_at(
        self, retrieval_id: str, pid: int | None, kind: str, verdict: str, at: float
    ) -> list[bytes]:
        """The keys of which one was noted for a vote that was cast at this time, as an export says; a program
        that saved it anew may have cut it to seconds, or rounded it to milliseconds."""
        what = self._said(retrieval_id, pid, kind, verdict)
        near = [self._hash(*what, "ms", round(at * 1e3) + d) for d in (-1, 0, 1)]
        return [self._hash(*what, "s", int(at)), *near] if at == int(at) else near

    @staticmethod
    def _said(retrieval_id: str, pid: int | None, kind: str, verdict: str) -> tuple[object, ...]:
        return "vote", retrieval_id, pid if kind == "vote" else None, kind, verdict

    def _hash(self, *parts: object) -> bytes:
        text = repr(parts).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, key=self._key, digest_size=_BYTES).digest()


def note_user(conn: Connection, user: str) -> None:
    """Note what `delete_user` is about to delete of a user, given as a hash."""
    of = Forgotten(conn)
    mine = conn.execute("SELECT id FROM retrievals WHERE user_id = ?", (user,))
    _append(conn, (of.retrieval(str(id_)) for (id_,) in mine))
    for table, columns in (
        ("votes", "v.pid, 'vote', v.verdict"),
        ("answer_votes", "NULL, v.kind, v.verdict"),
    ):
        cast = conn.execute(
            f"SELECT r.id, {columns}, v.at FROM {table} v JOIN retrievals r ON r.rid = v.rid "
            "WHERE v.user_id = :user AND r.user_id IS NOT :user",
            {"user": user},
        )
        _append(conn, (key for row in cast for key in of.vote(*row)))
    imported = conn.execute(
        "SELECT key FROM imports WHERE rid IN (SELECT rid FROM retrievals WHERE user_id = :user) "
        "OR seq IN (SELECT seq FROM votes WHERE user_id = :user) "
        "OR seq IN (SELECT seq FROM answer_votes WHERE user_id = :user) "
        "OR seq IN (SELECT seq FROM notes WHERE user_id = :user)",
        {"user": user},
    )
    _append(conn, (bytes(key) for (key,) in imported))


def _append(conn: Connection, keys: Iterable[bytes]) -> None:
    conn.executemany(
        "INSERT INTO forgotten (key) VALUES (?) ON CONFLICT DO NOTHING",
        [(key,) for key in sorted(set(keys))],
    )


def among(conn: Connection, keys: Collection[bytes]) -> set[bytes]:
    """Those of these keys that are noted."""
    return {
        bytes(row[0])
        for row in in_chunks(conn, "SELECT key FROM forgotten WHERE key IN (%s)", sorted(set(keys)))
    }
