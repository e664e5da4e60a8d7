"""Reads the stored vectors of texts by hash, and encodes those that are missing.

A text "" is one whose words are not stored: where it has no vector either, it gets one of zeros, which is
like no other.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from rag_flywheel.encoder import TextEncoder
from rag_flywheel.records import Progress, Vectors
from rag_flywheel.store import column_checks
from rag_flywheel.store.database import Database
from rag_flywheel.store.golden import query_texts
from rag_flywheel.store.vectors import fill_vectors, put_vectors, read_vectors

AT_ONCE = 256
"""Texts per commit of vectors: at most so many are encoded again after a crash."""
MOST_WHILE_ANSWERING = 256
"""Past queries without a vector that are encoded while a question waits for its answer."""


def vectors_of(
    conn: sqlite3.Connection, texts: Mapping[bytes, str], encoder: TextEncoder
) -> dict[bytes, Vectors]:
    """The vectors of these texts by hash, float32 (dim,).

    Those that are missing are encoded in one go, in the order of `texts`, and not stored.
    """
    found = read_vectors(conn, list(texts), encoder.revision, encoder.dim)
    missing = _encodable(texts, found, encoder.dim)
    if missing:
        found.update(zip(missing, encoder.encode(list(missing.values())), strict=True))
    return found


def _encodable(
    texts: Mapping[bytes, str], found: dict[bytes, Vectors], dim: int
) -> dict[bytes, str]:
    """The texts that no vector was found of; those without words get zeros in `found`."""
    missing = {h: text for h, text in texts.items() if h not in found}
    found.update((h, np.zeros(dim, np.float32)) for h, text in missing.items() if not text)
    return {h: text for h, text in missing.items() if text}


def vectors_in_order(
    conn: sqlite3.Connection, hashes: Sequence[bytes], texts: Sequence[str], encoder: TextEncoder
) -> Vectors:
    """float32 (n, dim): the vectors of these n texts, given with their hashes.

    Those that are missing are encoded in one go, in the order of `texts`, and not stored.
    """
    rows = np.empty((len(hashes), encoder.dim), np.float32)
    missing = set(fill_vectors(conn, hashes, encoder.revision, rows))
    if missing:
        new = {h: text for h, text in zip(hashes, texts, strict=True) if h in missing}
        encoded = dict(zip(new, encoder.encode(list(new.values())), strict=True))
        for i, h in enumerate(hashes):
            if h in encoded:
                rows[i] = encoded[h]
    return rows


def past_query_vectors(
    conn: sqlite3.Connection, hashes: Sequence[bytes], encoder: TextEncoder
) -> Vectors:
    """float32 (2 n or more, dim): the vectors of these n past queries, as `fill_past_query_vectors` sets
    them, then rows that are not set."""
    rows = np.empty((max(64, 2 * len(hashes)), encoder.dim), np.float32)
    fill_past_query_vectors(conn, hashes, encoder, rows)
    return rows


def fill_past_query_vectors(
    conn: sqlite3.Connection, hashes: Sequence[bytes], encoder: TextEncoder, rows: Vectors
) -> None:
    """Put the vectors of these n past queries into the first n rows, float32 (n or more, dim).

    Those that are missing are encoded in one go, in the order of their texts, and not stored. More than 256
    would keep an answer waiting: these get zeros, which are like no other, until a refresh embeds them.
    """
    missing = fill_vectors(conn, hashes, encoder.revision, rows)
    if not missing:
        return
    texts = column_checks.complete("query_hash", query_texts(conn, missing), missing)
    rows[[i for i, h in enumerate(hashes) if h in texts]] = 0.0
    missing = sorted((h for h in missing if texts[h]), key=texts.__getitem__)
    if 0 < len(missing) <= MOST_WHILE_ANSWERING:
        encoded = dict(zip(missing, encoder.encode([texts[h] for h in missing]), strict=True))
        for i, h in enumerate(hashes):
            if h in encoded:
                rows[i] = encoded[h]


def shortest_first(texts: Mapping[bytes, str]) -> dict[bytes, str]:
    """Texts by hash in the order in which they are encoded fastest: together with others of their length."""
    return dict(sorted(texts.items(), key=lambda each: (len(each[1]), each[1])))


def stored_vectors_of(
    database: Database,
    texts: Mapping[bytes, str],
    encoder: TextEncoder,
    progress: Progress | None = None,
    step: str = "",
) -> dict[bytes, Vectors]:
    """As `vectors_of`, but those that are missing are encoded and stored by `store_vectors`."""
    with database.reading() as conn:
        found = read_vectors(conn, list(texts), encoder.revision, encoder.dim)
    missing = _encodable(texts, found, encoder.dim)
    for part, made in store_vectors(database, missing, encoder, progress, step):
        found.update(zip(part, made, strict=True))
    return found


def store_vectors(
    database: Database,
    missing: Mapping[bytes, str],
    encoder: TextEncoder,
    progress: Progress | None = None,
    step: str = "",
) -> Iterator[tuple[list[bytes], Vectors]]:
    """Encode these texts by hash, 256 in one go. Each part is committed before it is yielded with its
    hashes, in the order in which they are done. step: the first argument of `progress`."""
    hashes = list(missing)
    parts = [hashes[i : i + AT_ONCE] for i in range(0, len(hashes), AT_ONCE)]
    texts = [[missing[h] for h in part] for part in parts]
    n_done = 0
    if progress is not None and parts:
        progress(step, n_done, len(hashes))
    for number, made in encoder.encode_parts(texts):
        part = parts[number]
        with database.transaction(durable=False) as conn:
            put_vectors(conn, part, made, encoder.revision)
        yield part, made
        n_done += len(part)
        if progress is not None and n_done < len(hashes):
            progress(step, n_done, len(hashes))
