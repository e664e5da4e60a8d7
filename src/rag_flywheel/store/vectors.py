"""Stores vectors in SQL by text hash and encoder revision, so that no text is embedded twice."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from rag_flywheel.records import Pids, Vectors
from rag_flywheel.store import column_checks, journal
from rag_flywheel.store.connection import Connection, each_row, in_chunks, in_parts

_TUNED = "tuned_revisions"
_AT_ONCE = 1_000  # vectors
_PART = 65_536  # vectors
_MANY = (
    20_000  # vectors, which take 30 MB; more are read in the order in which they lie in the file
)
_FEW = 1_000  # vectors that are looked up each by itself
_SAMPLED = 64  # of more are looked up first, to see whether they lie together


def read_vectors(
    conn: Connection, hashes: Sequence[bytes], revision: str, dim: int
) -> dict[bytes, Vectors]:
    """Stored vectors, float32 (dim,), by text hash. Raises CorruptFileError."""
    sql = "SELECT text_hash, vector FROM vectors WHERE text_hash IN (%s) AND revision = ?"
    rows = in_chunks(conn, sql, hashes, (revision,))
    return {h: column_checks.vector("a vector", v, dim) for h, v in rows}


def fill_vectors(
    conn: Connection, hashes: Sequence[bytes], revision: str, rows: Vectors
) -> list[bytes]:
    """Put the stored vector of the text hashes[i] into rows[i]; returns the hashes that have none.

    Very many are read in the order in which they lie in the file. Raises CorruptFileError.
    """
    if not hashes:
        return []
    row_of = dict(zip(reversed(hashes), range(len(hashes) - 1, -1, -1), strict=True))
    if len(row_of) <= _FEW:
        missing = _fill_by_hash(conn, sorted(row_of), row_of, revision, rows)
    elif span := _span(conn, row_of, revision):
        missing = _fill_in_span(conn, span, row_of, revision, rows)
        missing = _fill_by_hash(conn, sorted(missing), row_of, revision, rows)
    elif len(row_of) <= _MANY:
        missing = _fill_by_hash(conn, sorted(row_of), row_of, revision, rows)
    else:
        missing = _fill_by_place(conn, row_of, revision, rows)
    _fill_repeated(hashes, row_of, rows)
    return missing


def _fill_by_hash(
    conn: Connection,
    hashes: Sequence[bytes],
    row_of: Mapping[bytes, int],
    revision: str,
    rows: Vectors,
) -> list[bytes]:
    """`fill_vectors` for some distinct hashes, each looked up by itself. row_of: by hash."""
    sql = "SELECT text_hash, vector FROM vectors WHERE text_hash IN (%s) AND revision = ?"
    return _filled(in_chunks(conn, sql, hashes, (revision,)), hashes, row_of, rows)


def _span(conn: Connection, row_of: Mapping[bytes, int], revision: str) -> tuple[int, int] | None:
    """(first, last) place in the file between which nearly all of these vectors lie, as some of them
    say; None: as many others lie between them, or none of the some is stored."""
    some = list(islice(row_of, 0, None, len(row_of) // _SAMPLED))
    sql = "SELECT rowid FROM vectors WHERE text_hash IN (%s) AND revision = ?"
    places = sorted(row[0] for row in in_chunks(conn, sql, some, (revision,)))
    if not places:
        return None
    first, last = places[0], places[-1]
    more = (last - first) // _SAMPLED * 4
    wide = last - first + 2 * more > 2 * len(row_of)
    return None if wide else (first - more, last + more)


def _fill_in_span(
    conn: Connection,
    span: tuple[int, int],
    row_of: Mapping[bytes, int],
    revision: str,
    rows: Vectors,
) -> list[bytes]:
    """`fill_vectors` for those that lie between two places in the file, read from the one to the other:
    in a fourth of the time that it takes to look up each."""
    sql = "SELECT text_hash, vector FROM vectors WHERE rowid BETWEEN ? AND ? AND revision = ?"
    return _filled(each_row(conn, sql, (*span, revision)), row_of, row_of, rows)


def _fill_by_place(
    conn: Connection, row_of: Mapping[bytes, int], revision: str, rows: Vectors
) -> list[bytes]:
    """`fill_vectors` in the order in which they lie in the file."""
    key = "SELECT rowid, text_hash FROM vectors WHERE text_hash IN (%s) AND revision = ?"
    found = sorted(in_chunks(conn, key, sorted(row_of), (revision,)))
    hash_at = dict(found)
    by_place = "SELECT rowid, vector FROM vectors WHERE rowid IN (%s) ORDER BY rowid"
    lying = in_chunks(conn, by_place, list(hash_at))
    return _filled(((hash_at[at], vector) for at, vector in lying), row_of, row_of, rows)


def _filled(
    found: Iterator[tuple[bytes, Any]],
    hashes: Iterable[bytes],
    row_of: Mapping[bytes, int],
    rows: Vectors,
) -> list[bytes]:
    """Put each vector that was found for one of the hashes into its row; returns the hashes that none
    was found for."""
    missing, put = {name: row_of[name] for name in hashes}, list[int]()
    whole, size, dim = rows.data.cast("B"), 4 * rows.shape[1], rows.shape[1]
    for name, vector in found:
        if (row := missing.pop(name, None)) is None:
            continue
        try:
            whole[row * size : (row + 1) * size] = vector
        except (TypeError, ValueError):
            column_checks.vector("a vector", vector, dim)  # which says what is wrong
            raise
        put.append(row)
    at = np.sort(np.array(put, dtype=np.int64))
    for part in np.split(at, range(_AT_ONCE, len(at), _AT_ONCE)):
        together = len(part) and part[-1] - part[0] == len(part) - 1
        some = (
            rows[part[0] : part[-1] + 1] if together else rows[part]
        )  # without a copy, or with one
        column_checks.unit_rows("a vector", some)
    return list(missing)


def _fill_repeated(hashes: Sequence[bytes], row_of: Mapping[bytes, int], rows: Vectors) -> None:
    """The rows of hashes that stood before are copied from theirs."""
    if len(row_of) == len(hashes):
        return
    for i, h in enumerate(hashes):
        if row_of[h] != i:
            rows[i] = rows[row_of[h]]


def hashes_with_vector(conn: Connection, hashes: Sequence[bytes], revision: str) -> set[bytes]:
    """Which of these texts have a stored vector."""
    sql = "SELECT text_hash FROM vectors WHERE text_hash IN (%s) AND revision = ?"
    rows = in_chunks(conn, sql, hashes, (revision,))
    return {bytes(row[0]) for row in rows}


def put_vectors(conn: Connection, hashes: Sequence[bytes], vectors: Vectors, revision: str) -> None:
    """Store vectors under (text hash, encoder revision); those already there stay."""
    rows = zip(hashes, (v.tobytes() for v in np.ascontiguousarray(vectors)), strict=True)
    conn.executemany(
        "INSERT INTO vectors (text_hash, vector, revision) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        [(h, v, revision) for h, v in rows],
    )


def noted_revisions(conn: Connection) -> set[str]:
    """The revisions of tuned encoders that vectors are stored under."""
    text = journal.read_meta(conn, _TUNED)
    names = [] if text is None else column_checks.parsed(f"meta {_TUNED!r}", text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        column_checks.refuse(f"meta {_TUNED!r}", text, "names in a list")
    return set(names)


def note_revision(conn: Connection, revision: str) -> None:
    """Note that vectors are stored under the revision of a tuned encoder."""
    names = noted_revisions(conn) | {revision}
    journal.write_meta(conn, _TUNED, json.dumps(sorted(names)))


def drop_revisions(conn: Connection, revisions: Collection[str]) -> int:
    """Delete the vectors of these tuned encoders; returns how many."""
    names = noted_revisions(conn) - set(revisions)
    journal.write_meta(conn, _TUNED, json.dumps(sorted(names)))
    sql = "DELETE FROM vectors WHERE revision = ?"
    return sum(conn.execute(sql, (revision,)).rowcount for revision in sorted(revisions))


def drop_some(conn: Connection, revision: str, most: int) -> int:
    """Delete at most so many vectors of an encoder; returns how many."""
    some = "SELECT rowid FROM vectors WHERE revision = ? LIMIT ?"
    deleted = conn.execute(f"DELETE FROM vectors WHERE rowid IN ({some})", (revision, most))
    return int(deleted.rowcount)


def drop_query_vectors(conn: Connection, queries: Sequence[bytes]) -> None:
    """Delete those vectors of these query hashes that no stored question has any more.

    A query and a passage never have the same hash, since the kind is part of what is hashed.
    """
    asked = " AND ".join(
        f"NOT EXISTS (SELECT 1 FROM {table} t WHERE t.query_hash = vectors.text_hash)"
        for table in ("retrievals", "golden", "reviews")
    )
    conn.executemany(
        f"DELETE FROM vectors WHERE text_hash = ? AND {asked}", [(h,) for h in queries]
    )


def present_vectors(conn: Connection, revision: str, dim: int) -> Iterator[tuple[Pids, Vectors]]:
    """The present texts of the index that have a vector, as (pids ascending, float32 (n, dim)).

    They come part by part, so that they need not all be in memory.
    """
    rows = each_row(
        conn,
        "SELECT p.pid, v.vector FROM passages p JOIN vectors v "
        "ON v.text_hash = p.text_hash AND v.revision = ? "
        "WHERE p.ended IS NULL AND p.origin = 'index' ORDER BY p.pid",
        (revision,),
    )
    for part in in_parts(rows, _PART):
        yield _vectors(part, dim)


def some_vectors(
    conn: Connection, pids: Sequence[int], revision: str, dim: int
) -> tuple[Pids, Vectors]:
    """(pids ascending, float32 (n, dim)) of these texts, which must all have a vector."""
    sql = (
        "SELECT p.pid, v.vector FROM passages p JOIN vectors v ON v.text_hash = p.text_hash "
        "WHERE p.pid IN (%s) AND v.revision = ?"
    )
    rows = in_chunks(conn, sql, pids, (revision,))
    return _vectors(sorted(rows, key=lambda row: int(row[0])), dim)


def _vectors(rows: Sequence[tuple[int, bytes]], dim: int) -> tuple[Pids, Vectors]:
    """Rows of (pid, vector) as arrays."""
    vectors = np.empty((len(rows), dim), dtype=np.float32)
    for i, (pid, vector) in enumerate(rows):
        vectors[i] = column_checks.vector(f"the vector of passage row {pid}", vector, dim)
    return np.array([row[0] for row in rows], dtype=np.int64), vectors
