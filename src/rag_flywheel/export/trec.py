"""Writes the newest ranking of each past question as a run of TREC, with the grades from votes as qrels."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rag_flywheel.export.allowed import Asked
from rag_flywheel.export.graded import WITHOUT_WORDS, graded
from rag_flywheel.export.log_files import Written
from rag_flywheel.formats.trec import write_qrels, write_run, write_topics
from rag_flywheel.records import Progress
from rag_flywheel.store import passages, retrievals
from rag_flywheel.store.connection import Connection
from rag_flywheel.store.tenants import shows

TAG = "rag-flywheel"
EVEN = "questions on whose passages the votes are even"
FILES = ("topics.tsv", "run.trec", "qrels.trec")
_AT_ONCE = 500  # questions whose hits are held in memory


def write_trec(conn: Connection, asked: Asked, folder: Path, progress: Progress | None) -> Written:
    """Write topics.tsv, run.trec and qrels.trec into a folder: of the questions with a grade, for trec_eval
    leaves out what the qrels do not name."""
    if progress is not None:
        progress("reading passages and votes", 0, 1)
    ids: dict[int, list[str]] = {}
    for stored in passages.present(conn):
        if shows(asked.scope, stored.passage):
            ids.setdefault(stored.lineage, []).append(stored.passage.id)
    found = graded(conn, asked, ids)
    topics, run, qrels = (folder / name for name in FILES)
    keys = [key for key, grades in found.grades.items() if grades]
    n_questions = write_topics(topics, ((found.names[k], found.words[k]) for k in keys))
    n_grades = write_qrels(
        qrels, ((found.names[k], *grade) for k in keys for grade in found.grades[k].items())
    )
    last = retrievals.last_asked(
        conn, sorted({k.query_hash for k in keys}), asked.scope, asked.period
    )
    shown = {found.names[key]: last[key].rid for key in keys if key in last}
    n_rows = write_run(run, _ranked(conn, shown), TAG)
    left_out = {EVEN: len(found.grades) - len(keys), WITHOUT_WORDS: found.n_without_words}
    written = {"questions": n_questions, "ranks": n_rows, "judgments": n_grades}
    return written, {what: n for what, n in left_out.items() if n}


def _ranked(
    conn: Connection, shown: Mapping[str, int]
) -> Iterator[tuple[str, Sequence[tuple[str, float]]]]:
    """(question id, its hits) of each row of a retrieval, by question id."""
    names = list(shown)
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        hits = retrievals.logged_hits(conn, [shown[name] for name in some])
        for name in some:
            yield name, [(id_, score) for _, id_, score in hits[shown[name]]]
