"""Writes an index's passages, past queries and the grades from their votes as a BEIR folder."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rag_flywheel.curate.judgments import judgments
from rag_flywheel.disk import disk_errors, new_folder
from rag_flywheel.errors import InputError
from rag_flywheel.formats.beir import query_id, write_lines, write_queries
from rag_flywheel.records import ALL_TENANTS, ExportReport, QueryKey, TenantScope
from rag_flywheel.store import passages as store
from rag_flywheel.store import retrievals, votes
from rag_flywheel.store.database import Database
from rag_flywheel.store.tenants import shows

SPLITS = {"train": 70, "dev": 80, "test": 100}
"""A query is in the first of these whose number is above its hash modulo 100."""
_AT_ONCE = 500  # passages held in memory
_LEAST = 0.5  # smaller differences between the sums of votes give no grade
_Grades = Mapping[QueryKey, Mapping[str, int]]


def export(
    root: Path,
    database: Database,
    path: str | Path,
    *,
    last: int | None,
    scope: TenantScope = ALL_TENANTS,
) -> ExportReport:
    """Write the BEIR folder `path`, whole or not at all; it must be new or empty.

    last: the number of the last event whose votes are written; None writes all. scope: whose passages
    and queries.

    Raises InputError, CorruptFileError, StorageError.
    """
    if not isinstance(path, str | Path):
        raise InputError(f"path is {type(path).__name__}; expected the name of a new folder")
    out = Path(path).resolve()
    with disk_errors(out), new_folder(out, outside=root.resolve()) as staged:
        return _write(staged, root.resolve().name, database, last, scope)


def split_of(digest: bytes) -> str:
    """The split of a query, by the digest of its text alone: other queries never change it."""
    bucket = int.from_bytes(digest[:8], "big") % 100
    return next(name for name, end in SPLITS.items() if bucket < end)


def _write(
    folder: Path, index: str, database: Database, last: int | None, scope: TenantScope
) -> ExportReport:
    with database.snapshot() as conn:
        now = store.read_clock(conn)
        last = now if last is None else min(last, now)
        ids = _write_corpus(conn, folder / "corpus.jsonl", scope)
        grades = _grades(conn, ids, last, scope)
        texts = retrievals.query_texts(conn, sorted({query for query, _ in grades}), scope)
    n_without = sum(not texts[past.query_hash] for past in grades)
    grades = {past: found for past, found in grades.items() if texts[past.query_hash]}
    digests = {past: store.query_digest(texts[past.query_hash]) for past in grades}
    names = {past: query_id(digest, past.tenant) for past, digest in digests.items()}
    order = sorted(grades, key=lambda past: names[past])
    answered = [past for past in order if 1 in grades[past].values()]
    parts = {split: [p for p in answered if split_of(digests[p]) == split] for split in SPLITS}
    qrels = {
        split: ((names[p], *grade) for p in part for grade in sorted(grades[p].items()))
        for split, part in parts.items()
        if part or split == "train"  # readers want one file at least, and take absence for none
    }
    write_queries(folder, ((names[p], texts[p.query_hash], p.tenant) for p in order), qrels)
    report = ExportReport(
        n_passages=sum(map(len, ids.values())),
        n_queries=len(answered),
        n_judgments=sum(len(grades[past]) for past in answered),
        n_left_out=len(order) - len(answered),
        n_without_words=n_without,
    )
    (folder / "README.md").write_text(
        _README.format(
            index=index,
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            last=last,
            report=report,
            whose=_whose(scope),
            n_relevant=sum(sum(grades[past].values()) for past in answered),
            **{split: len(part) for split, part in parts.items()},
        ),
        encoding="utf-8",
    )
    return report


def _whose(scope: TenantScope) -> str:
    if scope.tenant is None:
        return "all tenants, and a benchmark on this folder asks among all of them"
    return f"the tenant {scope.tenant} alone, as are the queries"


def _write_corpus(conn: sqlite3.Connection, path: Path, scope: TenantScope) -> dict[int, list[str]]:
    """Write the passages by id, a few in memory at once; returns their ids by lineage."""
    stored_now = (s for s in store.present(conn) if shows(scope, s.passage))
    rows = sorted((s.passage.id, s.pid, s.lineage) for s in stored_now)

    def lines() -> Iterator[Mapping[str, object]]:
        for start in range(0, len(rows), _AT_ONCE):
            pids = [pid for _, pid, _ in rows[start : start + _AT_ONCE]]
            stored = store.fetch(conn, pids)
            for p in (stored[pid].passage for pid in pids):
                metadata = dict(p.metadata)
                yield {"_id": p.id, "title": p.title, "text": p.text, "metadata": metadata}

    write_lines(path, lines())
    ids: dict[int, list[str]] = {}
    for id_, _, lineage in rows:
        ids.setdefault(lineage, []).append(id_)
    return ids


def _grades(
    conn: sqlite3.Connection, ids: Mapping[int, Sequence[str]], last: int, scope: TenantScope
) -> _Grades:
    """The grades, 1 or 0 by passage id, of each past query in the scope with a verdict on a present text.

    Pairs whose votes are about even have no grade.
    """
    graded: dict[QueryKey, dict[str, int]] = {}
    for judgment in judgments(votes.votes_until(conn, last)):
        if judgment.lineage in ids and scope.holds(judgment.tenant):
            grades = graded.setdefault(QueryKey(judgment.query, judgment.tenant), {})
            if abs(judgment.helpful - judgment.harmful) >= _LEAST:
                grade = int(judgment.helpful > judgment.harmful)
                grades.update(dict.fromkeys(ids[judgment.lineage], grade))
    return graded


_README = """\
# Passages, queries and votes of the index `{index}`

Exported {date} by rag-flywheel, with the votes up to event number {last}.

| file | what |
|---|---|
| `corpus.jsonl` | {report.n_passages} passages: `_id`, `title`, `text`, `metadata` |
| `queries.jsonl` | past queries with a vote that stands on a passage of the index: `_id`, `text` |
| `qrels/train.tsv`, `dev.tsv`, `test.tsv` | {train}, {dev} and {test} queries: \
{report.n_judgments} grades, {n_relevant} of them 1 |

A grade is 1 where more verdicts on the passage are "helpful" than "harmful", 0 where fewer are. The
last verdict of a user on a hit counts. A verdict on a whole answer counts in parts for its
passages; pairs on which less than half a verdict is left over are left out.
{report.n_left_out} queries have no passage of grade 1: they are in no split.
{report.n_without_words} past queries with votes are left out, since their words are not stored.
Votes on texts that were edited to other words, or removed, are not in it, nor votes that a
rollback holds back. A split without queries has no file, but for train.

The id of a query is the hash of its text, and alone decides its split: about 70 % train, 10 % dev
and 20 % test, the same in every export. Under a tenant key there is one query for each text and
tenant; its id ends in a hash of the tenant, which `metadata` names, and the split still follows
the text. Passages are those of {whose}.

## Limits

- Only hits that were shown have votes. Whatever ranking was live chose them, so such qrels favour
  it and rankings like it: a better one finds passages that nobody has judged, which count as wrong.
- Votes are noisy. Many grades rest on one vote.
- Queries in other words for the same need may fall into different splits.
- Passages are those of the day of the export, votes are older.

## Privacy

User ids, sessions, answers and reasons of votes are not exported. The texts of queries are, as
users typed them, and so are passages with their metadata: look before you pass this folder on.
"""
