"""Writes an index's passages, past questions and the grades from their votes as a BEIR folder."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from rag_flywheel.export.allowed import Asked
from rag_flywheel.export.graded import SPLITS, WITHOUT_WORDS, graded
from rag_flywheel.export.log_files import Written
from rag_flywheel.formats.beir import write_lines, write_queries
from rag_flywheel.records import Progress, TenantScope
from rag_flywheel.store import passages as store
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.tenants import shows

WITHOUT_ANSWER = "questions without a helpful passage"
_AT_ONCE = 500  # passages held in memory


def write_beir(conn: Connection, asked: Asked, folder: Path, progress: Progress | None) -> Written:
    """Write corpus.jsonl, queries.jsonl, qrels/*.tsv and README.md into a new folder."""
    if progress is not None:
        progress("reading passages and votes", 0, 1)
    ids = _write_corpus(conn, folder / "corpus.jsonl", asked.scope)
    found = graded(conn, asked, ids)
    answered = [key for key, grades in found.grades.items() if 1 in grades.values()]
    parts = {split: [k for k in answered if found.splits[k] == split] for split in SPLITS}
    qrels = {
        split: ((found.names[k], *grade) for k in part for grade in found.grades[k].items())
        for split, part in parts.items()
        if part or split == "train"  # readers want one file at least, and take absence for none
    }
    queries = ((found.names[k], words, k.tenant) for k, words in found.words.items())
    write_queries(folder, queries, qrels)
    n_passages, n_judgments = (
        sum(map(len, ids.values())),
        sum(len(found.grades[k]) for k in answered),
    )
    n_left_out = len(found.grades) - len(answered)
    (folder / "README.md").write_text(
        _README.format(
            index=asked.root.name,
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            last=asked.until(conn),
            n_passages=n_passages,
            n_judgments=n_judgments,
            n_left_out=n_left_out,
            n_without_words=found.n_without_words,
            whose=_whose(asked.scope),
            n_relevant=sum(sum(found.grades[k].values()) for k in answered),
            **{split: len(part) for split, part in parts.items()},
        ),
        encoding="utf-8",
    )
    left_out = {WITHOUT_ANSWER: n_left_out, WITHOUT_WORDS: found.n_without_words}
    return (
        {"passages": n_passages, "questions": len(answered), "judgments": n_judgments},
        {what: n for what, n in left_out.items() if n},
    )


def _whose(scope: TenantScope) -> str:
    if scope.tenant is None:
        return "all tenants, and a benchmark on this folder asks among all of them"
    return f"the tenant {scope.tenant} alone, as are the queries"


def _write_corpus(conn: Connection, path: Path, scope: TenantScope) -> dict[int, list[str]]:
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


_README = """\
# Passages, queries and votes of the index `{index}`

Exported {date} by rag-flywheel, with the votes up to event number {last}.

| file | what |
|---|---|
| `corpus.jsonl` | {n_passages} passages: `_id`, `title`, `text`, `metadata` |
| `queries.jsonl` | past queries with a vote that stands on a passage of the index: `_id`, `text` |
| `qrels/train.tsv`, `dev.tsv`, `test.tsv` | {train}, {dev} and {test} queries: \
{n_judgments} grades, {n_relevant} of them 1 |

A grade is 1 where more verdicts on the passage are "helpful" than "harmful", 0 where fewer are. The
last verdict of a user on a hit counts. A verdict on a whole answer counts in parts for its
passages; pairs on which less than half a verdict is left over are left out.
{n_left_out} queries have no passage of grade 1: they are in no split.
{n_without_words} past queries with votes are left out, since their words are not stored.
Votes on texts that were edited to other words, or removed, are not in it, nor votes that a
rollback holds back, nor those of people who opted out, or on their questions. A split without
queries has no file, but for train.

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
