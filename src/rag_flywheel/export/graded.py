"""Grades of passages for past questions, as qrels of benchmarks have them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rag_flywheel.curate.judgments import judgments
from rag_flywheel.export.allowed import Asked, allowed_votes
from rag_flywheel.formats.beir import query_id
from rag_flywheel.records import QueryKey
from rag_flywheel.store import passages, retrievals
from rag_flywheel.store.connection import Connection

SPLITS = {"train": 70, "dev": 80, "test": 100}
"""A question is in the first of these whose number is above its hash modulo 100."""
LEAST = 0.5  # smaller differences between the sums of votes give no grade
WITHOUT_WORDS = "questions whose words are not stored"


def split_of(digest: bytes) -> str:
    """The split of a question, by the digest of its text alone: other questions never change it."""
    bucket = int.from_bytes(digest[:8], "big") % 100
    return next(name for name, end in SPLITS.items() if bucket < end)


@dataclass(frozen=True)
class Graded:
    """Past questions with a verdict on a text of the index: their words, ids and splits, and the grades, 1
    or 0, by passage id; pairs whose votes are about even have none. All are in the order of the ids.

    n_without_words: the questions that are not among them, since their words are not stored.
    """

    grades: Mapping[QueryKey, Mapping[str, int]]
    words: Mapping[QueryKey, str]
    names: Mapping[QueryKey, str]
    splits: Mapping[QueryKey, str]
    n_without_words: int


def graded(conn: Connection, asked: Asked, ids: Mapping[int, Sequence[str]]) -> Graded:
    """The grades that the votes give. ids: of the passages that are exported, by lineage."""
    grades: dict[QueryKey, dict[str, int]] = {}
    for judgment in judgments(allowed_votes(conn, asked)):
        if judgment.lineage in ids:
            of_question = grades.setdefault(QueryKey(judgment.query, judgment.tenant), {})
            if abs(judgment.helpful - judgment.harmful) >= LEAST:
                grade = int(judgment.helpful > judgment.harmful)
                of_question.update(dict.fromkeys(ids[judgment.lineage], grade))
    words = words_of(conn, asked, grades)
    digests = {key: passages.query_digest(text) for key, text in words.items()}
    names = {key: query_id(digest, key.tenant) for key, digest in digests.items()}
    order = sorted(words, key=names.__getitem__)
    return Graded(
        {key: dict(sorted(grades[key].items())) for key in order},
        {key: words[key] for key in order},
        {key: names[key] for key in order},
        {key: split_of(digests[key]) for key in order},
        len(grades) - len(words),
    )


def words_of(conn: Connection, asked: Asked, questions: Iterable[QueryKey]) -> dict[QueryKey, str]:
    """The words of these questions, as they may be passed on; none of those whose words are not stored."""
    wanted = dict.fromkeys(questions)
    found = retrievals.first_words(conn, sorted({key.query_hash for key in wanted}), asked.scope)
    masked = {key: asked.masked(found[key]) for key in wanted if key in found}
    return {key: text for key, text in masked.items() if text.strip()}
