"""Stores passages in SQL.

A row is one text that a passage had, for ever: an edit ends a row and begins another.
"""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from msgspec import UNSET

from rag_flywheel.checks import value_at
from rag_flywheel.records import MetadataValue, Passage, Pids
from rag_flywheel.store import column_checks
from rag_flywheel.store.connection import Connection, append_rows, each_row, in_chunks, scalar
from rag_flywheel.store.near_identical import Words, sketch

_OF_ONE_TEXT = 64  # rows of the same text that are read
_SKETCHED = 50_000  # keys of sketches that are stored at a time
_END = " ?!.\u3002\u061f\u037e"  # of sentences: also the Chinese, Arabic and Greek marks


@dataclass(frozen=True)
class StoredPassage:
    """One row: a text of a passage. `lineage` is the row whose votes it inherits."""

    pid: int
    passage: Passage
    text_hash: bytes
    lineage: int


def encoded_text(passage: Passage) -> str:
    """What an encoder is given for a passage."""
    return f"{passage.title} {passage.text}".strip()


def passage_hash(passage: Passage) -> bytes:
    """16 bytes that name the text an encoder is given for a passage."""
    return _hash("passage", encoded_text(passage))


def body_hash(text: str) -> bytes:
    """16 bytes that name the words of a text without its title, whatever blanks, case and marks."""
    return Words.of(text).digest()


def query_digest(query: str) -> bytes:
    """16 bytes that depend on a query's text alone; queries that `normalised` makes the same have the
    same. They order questions alike in every index; what is stored is `questions.query_hash`."""
    return _hash("query", normalised(query))


def normalised(query: str) -> str:
    """A query without what people type differently: blanks, letters' case, compatibility forms (full
    width, ligatures: Unicode NFKC), and marks that end a sentence.

    A query of nothing but such marks stays as it is.
    """
    folded = unicodedata.normalize("NFKC", query).casefold()
    plain = " ".join(unicodedata.normalize("NFKC", folded).split())
    return plain.rstrip(_END) or plain


def _hash(kind: str, text: str) -> bytes:
    data = f"{kind}\n{text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16).digest()


_COLUMNS = "pid, id, title, text, metadata, text_hash, lineage"
PRESENT = "ended IS NULL AND origin = 'index'"
"""SQL: a text is in the index now."""
ALL_PRESENT = f"passages p INDEXED BY passages_present WHERE {PRESENT}"
"""SQL: the texts in the index now, by an index of them alone; other texts are not read."""
NEXT_PID = (  # numbers are not used again
    "SELECT max(coalesce((SELECT max(pid) FROM passages), 0), coalesce((SELECT seq FROM "
    "sqlite_sequence WHERE name = 'passages'), 0)) + 1"
)
_WITHOUT_VECTOR = (
    f"{ALL_PRESENT} AND NOT EXISTS "
    "(SELECT 1 FROM vectors v WHERE v.text_hash = p.text_hash AND v.revision = ?)"
)


def stored_row(row: tuple[Any, ...]) -> StoredPassage:
    """A row of the columns pid, id, title, text, metadata, text_hash, lineage.

    Raises CorruptFileError when one of them is not what it must be.
    """
    pid, id_, title, text, metadata, text_hash, lineage = row
    for name, value in (("id", id_), ("title", title), ("text", text)):
        if type(value) is not str:
            column_checks.refuse(f"passages.{name} of row {pid}", value, "text")
    values = {}
    if metadata != "{}":
        values = column_checks.metadata("passages.metadata", metadata)
    return StoredPassage(
        pid,
        Passage(id_, text, title, values),
        column_checks.hashed("passages.text_hash", text_hash),
        column_checks.whole("passages.lineage", lineage),
    )


def advance_clock(conn: Connection, events: int = 1) -> int:
    """Take the next `events` event numbers; returns the first of them."""
    seq = scalar(conn, "UPDATE clock SET seq = seq + ? RETURNING seq", (events,))
    return column_checks.whole("clock.seq", seq) - events + 1


def read_clock(conn: Connection) -> int:
    """The number of the newest event."""
    return column_checks.whole("clock.seq", scalar(conn, "SELECT seq FROM clock"))


def current_by_id(conn: Connection, ids: Sequence[str]) -> dict[str, StoredPassage]:
    """The present text of each of these passage ids that is in the index."""
    sql = f"SELECT {_COLUMNS} FROM passages WHERE {PRESENT} AND id IN (%s)"
    rows = in_chunks(conn, sql, ids)
    return {stored.passage.id: stored for stored in map(stored_row, rows)}


def pids_by_id(conn: Connection, ids: Sequence[str]) -> dict[str, int]:
    """The row of the present text of each of these passage ids; no text is read."""
    rows = in_chunks(conn, f"SELECT id, pid FROM passages WHERE {PRESENT} AND id IN (%s)", ids)
    return {str(id_): int(pid) for id_, pid in rows}


def present_with_body(conn: Connection, hashed: bytes, n: int) -> list[StoredPassage]:
    """The first n present texts whose words are these, given as `body_hash`."""
    sql = f"SELECT {_COLUMNS} FROM passages WHERE body_hash = ? AND {PRESENT} ORDER BY pid LIMIT ?"
    return [stored_row(row) for row in conn.execute(sql, (hashed, n))]


def titles_and_metadata(
    conn: Connection,
) -> Iterator[tuple[int, str, dict[str, MetadataValue]]]:
    """(row, title, metadata) of each present text; no text is read."""
    rows = each_row(conn, f"SELECT pid, title, metadata FROM passages WHERE {PRESENT} ORDER BY pid")
    for pid, title, metadata in rows:
        yield int(pid), str(title), column_checks.metadata("passages.metadata", metadata)


def earlier_texts(conn: Connection, passage_id: str, text_hash: bytes) -> list[StoredPassage]:
    """Earlier texts of one passage: the latest that is this very text, then the 20 latest.

    Texts that an application's own retriever found count as earlier ones.
    """
    where = "FROM passages WHERE id = ? AND (ended IS NOT NULL OR origin = 'rerank')"
    same = conn.execute(
        f"SELECT {_COLUMNS} {where} AND text_hash = ? ORDER BY pid DESC LIMIT 1",
        (passage_id, text_hash),
    )
    latest = conn.execute(f"SELECT {_COLUMNS} {where} ORDER BY pid DESC LIMIT 20", (passage_id,))
    return [stored_row(row) for row in (*same, *latest)]


@dataclass(frozen=True)
class KnownRow:
    """A row of any time and origin; present: in the index now."""

    stored: StoredPassage
    present: bool
    born: int


_KNOWN = f"SELECT {_COLUMNS}, {PRESENT}, born FROM passages WHERE "


def rows_with_text(conn: Connection, text_hash: bytes) -> list[KnownRow]:
    """Every row of this very text."""
    return _known(conn.execute(f"{_KNOWN} text_hash = ?", (text_hash,)))


def rows_with_body(conn: Connection, body: bytes, most: int) -> list[KnownRow]:
    """The newest rows whose text has these words, whatever its title."""
    sql = f"{_KNOWN} body_hash = ? ORDER BY pid DESC LIMIT ?"
    return _known(conn.execute(sql, (body, most)))


def rows_like(
    conn: Connection, sketches: Sequence[Sequence[int]], bucket: int, most: int
) -> list[list[KnownRow]]:
    """For each sketch the rows that share the most keys with it; bucket: how many are read for each key,
    the newest."""
    keys = sorted({key for sketch in sketches for key in sketch})
    sql = (
        "SELECT value, (SELECT group_concat(pid) FROM (SELECT pid FROM sketches WHERE key = value "
        "ORDER BY pid DESC LIMIT ?) newest) FROM json_each(?) each"
    )
    found = conn.execute(sql, (bucket, json.dumps(keys)))
    pids = {key: list(map(int, joined.split(","))) for key, joined in found if joined}
    best = [_most_shared([pids[key] for key in sketch if key in pids], most) for sketch in sketches]
    wanted = sorted({pid for some in best for pid in some})
    known = _known(in_chunks(conn, f"{_KNOWN} pid IN (%s)", wanted))
    rows = {row.stored.pid: row for row in known}
    return [[rows[pid] for pid in some if pid in rows] for some in best]


def _most_shared(buckets: Sequence[Sequence[int]], most: int) -> list[int]:
    """The pids that are in the most buckets, of equals the newest first."""
    counts = Counter(chain.from_iterable(buckets))
    return sorted(counts, key=lambda pid: (counts[pid], pid), reverse=True)[:most]


def with_rows(
    conn: Connection, ids: Sequence[str], texts: Sequence[bytes], bodies: Sequence[bytes]
) -> tuple[set[str], set[bytes], set[bytes]]:
    """Those of these ids, text hashes and body hashes that any row has, whether it has ended or not."""
    sql = "SELECT DISTINCT {0} FROM passages WHERE {0} IN (%s)"
    found = [
        {row[0] for row in in_chunks(conn, sql.format(column), values)}
        for column, values in (("id", ids), ("text_hash", texts), ("body_hash", bodies))
    ]
    return found[0], found[1], found[2]


def _known(rows: Iterable[tuple[Any, ...]]) -> list[KnownRow]:
    return [
        KnownRow(stored_row(tuple(row)), bool(present), column_checks.whole("passages.born", born))
        for *row, present, born in rows
    ]


def rows_of_lineage(conn: Connection, lineage: int) -> list[StoredPassage]:
    """The texts in the index now that inherit the votes of a row, or are it."""
    sql = f"SELECT {_COLUMNS} FROM passages WHERE {PRESENT} AND lineage = ? ORDER BY pid"
    return [stored_row(row) for row in conn.execute(sql, (lineage,))]


def ids_by_lineage(conn: Connection, lineages: Sequence[int]) -> dict[int, dict[str, int]]:
    """{lineage: {id: pid}} of the texts in the index now."""
    found: dict[int, dict[str, int]] = {}
    sql = f"SELECT lineage, id, pid FROM passages WHERE {PRESENT} AND lineage IN (%s)"
    for lineage, id_, pid in in_chunks(conn, sql, lineages):
        found.setdefault(int(lineage), {})[str(id_)] = int(pid)
    return found


def pids_by_lineage(conn: Connection, lineages: Sequence[int]) -> dict[int, list[int]]:
    """{lineage: ascending pids} of the texts in the index now."""
    found: dict[int, list[int]] = {}
    sql = f"SELECT lineage, pid FROM passages WHERE {PRESENT} AND lineage IN (%s)"
    for lineage, pid in sorted(in_chunks(conn, sql, lineages)):
        found.setdefault(int(lineage), []).append(int(pid))
    return found


def insert(
    conn: Connection,
    passage: Passage,
    *,
    seq: int,
    lineage: int | None,
    origin: str = "index",
    named: "Named | None" = None,
) -> int:
    """Begin a row; returns its pid. lineage None: it inherits no votes. named: by what a text of the index
    is found, of which the caller stores the sketch; None: it is found out and stored."""
    sketched = named is None and origin == "index"
    if sketched:
        named = Named.of(Words.of(encoded_text(passage)), Words.of(passage.text))
    pid = column_checks.whole("passages.pid", scalar(conn, NEXT_PID))
    row = {
        "pid": pid,
        "id": passage.id,
        "origin": origin,
        "title": passage.title,
        "text": passage.text,
        "metadata": metadata_json(passage.metadata),
        "text_hash": passage_hash(passage),
        "body_hash": None if named is None else named.body_hash,
        "lineage": pid if lineage is None else lineage,
        "born": seq,
    }
    append_rows(conn, "passages", row)
    if sketched and named is not None:
        put_sketches(conn, [(pid, named.keys)])
    return pid


@dataclass(frozen=True)
class Named:
    """By what a text is found: `body_hash` of its text, and the keys of its sketch."""

    body_hash: bytes
    keys: Sequence[int]

    @classmethod
    def of(cls, whole: Words, body: Words) -> "Named":
        """From the words with the title, and those without it."""
        return cls(body.digest(), sketch(whole))


def put_sketches(conn: Connection, sketches: Iterable[tuple[int, Iterable[int]]]) -> None:
    """Store (pid, sketch of its text) of rows, by which near-identical texts are found."""
    numbers = (number for pid, keys in sketches for key in keys for number in (key, pid))
    rows = np.fromiter(numbers, dtype=np.int64).reshape(-1, 2)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]  # in the order in which they are stored
    for start in range(0, len(rows), _SKETCHED):
        part = rows[start : start + _SKETCHED].tolist()
        conn.executemany(
            "INSERT INTO sketches (key, pid) VALUES (?, ?) ON CONFLICT DO NOTHING", part
        )


def last_pid(conn: Connection) -> int:
    """The number of the newest row, 0: there is none."""
    return int(scalar(conn, "SELECT coalesce(max(pid), 0) FROM passages"))


def update_in_place(conn: Connection, pid: int, passage: Passage, seq: int) -> None:
    """Change the metadata of a row whose encoded text stays the same, at event `seq`."""
    conn.execute(
        "UPDATE passages SET title = ?, text = ?, metadata = ?, edited = ? WHERE pid = ?",
        (passage.title, passage.text, metadata_json(passage.metadata), seq, pid),
    )


def last_edit(conn: Connection) -> int:
    """The number of the last event that changed the metadata of a text, 0: none did."""
    sql = "SELECT coalesce(max(edited), 0) FROM passages INDEXED BY passages_edited WHERE edited IS NOT NULL"
    return column_checks.whole("passages.edited", scalar(conn, sql))


def end(conn: Connection, pids: Iterable[int], seq: int) -> None:
    """End rows: their texts are not served from now on."""
    conn.executemany("UPDATE passages SET ended = ? WHERE pid = ?", [(seq, p) for p in pids])


@dataclass(frozen=True)
class Tenancy:
    """The metadata key that names the tenant, None: there is one tenant; default: the tenant, as JSON,
    of a text without it."""

    key: str | None = None
    default: str | None = None

    def of(self, passage: Passage) -> str | None:
        """The tenant of a passage as JSON, None: it has none."""
        value = None if self.key is None else value_at(passage.metadata, self.key)
        if value is None or value is UNSET:
            return self.default
        return json.dumps(value, default=str, sort_keys=True)


ONE_TENANT = Tenancy()


def join(conn: Connection, lineage: int, to: int) -> None:
    """Let the rows of a lineage without votes or known answers, an application's own candidates too,
    inherit those of another."""
    conn.execute("UPDATE passages SET lineage = ? WHERE lineage = ?", (to, lineage))


def pids_of_given(
    conn: Connection, texts: Sequence[Passage], tenancy: Tenancy = ONE_TENANT
) -> list[int]:
    """The pids of texts that an application's own retriever found; a row is begun for each new one."""
    seq, pids = read_clock(conn), list[int]()
    begun: dict[tuple[bytes, str | None], int] = {}
    for text, (pid, lineage) in zip(texts, rows_of_texts(conn, texts, tenancy), strict=True):
        if pid < 0:
            key = passage_hash(text), tenancy.of(text)
            of = lineage if lineage >= 0 else begun.get(key)
            pid = insert(conn, text, seq=seq, lineage=of, origin="rerank")
            begun.setdefault(key, pid if of is None else of)
        pids.append(pid)
    _restore_erased(conn, dict(zip(pids, texts, strict=True)))
    return pids


def _restore_erased(conn: Connection, texts: Mapping[int, Passage]) -> None:
    """Store these texts, by pid, where only their digests were left."""
    erased = "SELECT pid FROM passages WHERE pid IN (%s) AND text = '' AND origin = 'rerank'"
    for (pid,) in list(in_chunks(conn, erased, list(texts))):
        text = texts[pid]
        conn.execute(
            "UPDATE passages SET title = ?, text = ?, metadata = ? WHERE pid = ?",
            (text.title, text.text, metadata_json(text.metadata), pid),
        )


def rows_of_texts(
    conn: Connection, texts: Sequence[Passage], tenancy: Tenancy = ONE_TENANT
) -> list[tuple[int, int]]:
    """For each id and text, (pid, lineage) of the row whose votes are on it.

    The present text of the index goes first, then the latest row, whether of the index or not. Where
    no row has the id and the text, pid is -1, and the lineage that of the same text of the same tenant
    under another id, else -1.
    """
    rows = in_chunks(
        conn,
        "SELECT pid, lineage, id, text_hash FROM passages WHERE id IN (%s) "
        f"ORDER BY {PRESENT}, pid",
        [p.id for p in texts],
    )
    known = {
        (id_, column_checks.hashed("passages.text_hash", text_hash)): (
            pid,
            column_checks.whole("passages.lineage", lineage),
        )
        for pid, lineage, id_, text_hash in rows
    }
    found = []
    for text in texts:
        row = known.get((text.id, passage_hash(text)))
        found.append(row or (-1, _lineage_elsewhere(conn, text, tenancy)))
    return found


def _lineage_elsewhere(conn: Connection, text: Passage, tenancy: Tenancy) -> int:
    """The lineage of this very text under another id; -1: there is none among the newest rows of it."""
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM passages WHERE text_hash = ? ORDER BY {PRESENT} DESC, pid DESC "
        "LIMIT ?",
        (passage_hash(text), 1 if tenancy.key is None else _OF_ONE_TEXT),
    )
    own, key = tenancy.of(text), Tenancy(tenancy.key)
    return next((s.lineage for s in map(stored_row, rows) if key.of(s.passage) == own), -1)


def fetch(conn: Connection, pids: Sequence[int]) -> dict[int, StoredPassage]:
    """The rows of these pids that have not ended."""
    rows = in_chunks(
        conn, f"SELECT {_COLUMNS} FROM passages WHERE ended IS NULL AND pid IN (%s)", pids
    )
    return {stored.pid: stored for stored in map(stored_row, rows)}


def rows_of(conn: Connection, pids: Sequence[int]) -> dict[int, StoredPassage]:
    """The rows of these pids that are stored, whether they have ended or not."""
    found = in_chunks(conn, f"SELECT {_COLUMNS} FROM passages WHERE pid IN (%s)", pids)
    return {stored.pid: stored for stored in map(stored_row, found)}


def present(conn: Connection) -> Iterator[StoredPassage]:
    """Every text that is in the index now, by pid."""
    rows = each_row(conn, f"SELECT {_COLUMNS} FROM passages WHERE {PRESENT} ORDER BY pid")
    return map(stored_row, rows)


def present_after(conn: Connection, id_: str) -> Iterator[StoredPassage]:
    """The texts in the index whose ids come after this one, in the order of their ids."""
    sql = f"SELECT {_COLUMNS} FROM passages WHERE {PRESENT} AND id > ? ORDER BY id"
    return map(stored_row, each_row(conn, sql, (id_,)))


def without_vector(conn: Connection, revision: str) -> Iterator[StoredPassage]:
    """The texts in the index now that have no vector of this encoder revision."""
    rows = each_row(conn, f"SELECT {_COLUMNS} FROM {_WITHOUT_VECTOR}", (revision,))
    return map(stored_row, rows)


def present_heirs(conn: Connection, lineages: Sequence[int]) -> dict[int, StoredPassage]:
    """The texts in the index now, by the row whose votes each inherits; of copies the oldest."""
    sql = f"SELECT {_COLUMNS} FROM passages WHERE {PRESENT} AND lineage IN (%s) ORDER BY pid DESC"
    rows = in_chunks(conn, sql, lineages)
    return {stored.lineage: stored for stored in map(stored_row, rows)}


def present_pids(conn: Connection) -> Pids:
    """Pids of every text that is in the index now, ascending."""
    rows = each_row(conn, f"SELECT pid FROM {ALL_PRESENT}")
    return np.sort(np.fromiter((row[0] for row in rows), dtype=np.int64))


def lineages_of(conn: Connection, pids: Sequence[int]) -> set[int]:
    """The rows whose votes these texts inherit, or inherited before they ended."""
    rows = in_chunks(conn, "SELECT lineage FROM passages WHERE pid IN (%s)", pids)
    return {column_checks.whole("passages.lineage", row[0]) for row in rows}


def inheritors(conn: Connection) -> list[tuple[int, int]]:
    """(pid, lineage) of the texts in the index now that inherit the votes of another row."""
    rows = conn.execute(f"SELECT pid, lineage FROM {ALL_PRESENT} AND lineage != pid")
    return [(int(pid), column_checks.whole("passages.lineage", lineage)) for pid, lineage in rows]


def changed_since(conn: Connection, seq: int) -> tuple[dict[int, int], list[int]]:
    """({pid: the row whose votes it inherits} of the texts of the index begun after event `seq` and not
    ended, by pid; pids ended after it)."""
    born = conn.execute(
        "SELECT pid, lineage FROM passages INDEXED BY passages_born "
        f"WHERE born > ? AND {PRESENT} ORDER BY pid",
        (seq,),
    )
    ended = conn.execute("SELECT pid FROM passages WHERE ended > ?", (seq,))
    lineages = {int(pid): column_checks.whole("passages.lineage", lineage) for pid, lineage in born}
    return lineages, [int(row[0]) for row in ended]


def last_change(conn: Connection, until: int) -> int:
    """The number of the last event up to `until` that began or ended a text of the index."""
    sql = (
        "SELECT (SELECT born FROM passages WHERE born <= ? AND origin = 'index' ORDER BY born DESC "
        "LIMIT 1), (SELECT max(ended) FROM passages WHERE ended <= ?)"
    )
    born, ended = conn.execute(sql, (until, until)).fetchone()
    return max(
        column_checks.whole("passages.born", born or 0),
        column_checks.whole("passages.ended", ended or 0),
    )


def metadata_json(metadata: Mapping[str, MetadataValue]) -> str:
    """Metadata as it is stored: JSON with sorted keys."""
    return json.dumps(dict(metadata), ensure_ascii=False, sort_keys=True, allow_nan=False)


def text_of(conn: Connection, pid: int) -> str | None:
    """The encoded text of a row, whether it has ended or not."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM passages WHERE pid = ?", (pid,)).fetchone()
    return None if row is None else encoded_text(stored_row(row).passage)


def count_passages(conn: Connection, after: int = 0) -> int:
    """How many texts are in the index now that were begun after event number `after`."""
    sql = f"SELECT count(*) FROM passages WHERE {PRESENT} AND born > ?"
    return int(scalar(conn, sql, (after,)))


def count_changes(conn: Connection, after: int) -> int:
    """How many texts of the index were begun or ended after event number `after`."""
    sql = "SELECT count(*) FROM passages WHERE origin = 'index' AND (born > ? OR ended > ?)"
    return int(scalar(conn, sql, (after, after)))


def count_without_vector(conn: Connection, revision: str) -> int:
    """How many texts of the index have no vector of this encoder revision."""
    return int(scalar(conn, f"SELECT count(*) FROM {_WITHOUT_VECTOR}", (revision,)))
