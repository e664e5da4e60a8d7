"""Computes which known answers act on ranking: imported or pinned ones, and those accepted in review.

What users said is no part of it: votes are evidence of their own. It must not know how ranking uses
the answers.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rag_flywheel.curate.groups import NEAR_DUPLICATE
from rag_flywheel.curate.opinions import standing_decisions
from rag_flywheel.curate.source import Source
from rag_flywheel.records import Acting, Known, QueryKey
from rag_flywheel.store import column_checks, golden, passages
from rag_flywheel.store.embedding import vectors_of
from rag_flywheel.store.event_types import Decision, ImportedAnswer

_Target = tuple[str | None, int]
"""A tenant, and the lineage of a passage text."""


@dataclass
class _Said:
    """What was said of one text as the answer of one question: the last of each kind."""

    imported: ImportedAnswer | None = None
    pinned: ImportedAnswer | None = None
    decision: Decision | None = None


def acting_answers(
    conn: sqlite3.Connection, source: Source, *, until: int, typical_cosine: float
) -> Acting:
    """The known answers that act after event number `until`.

    A reviewer's rejection takes back what was known before it, for near-duplicates of the question
    too: those of cosine 0.9, scaled from typical_cosine, that of two texts, to 1. A pin after it acts.
    """
    said: dict[_Target, dict[bytes, _Said]] = defaultdict(lambda: defaultdict(_Said))
    for answer in golden.answers_until(conn, until):
        of = said[answer.tenant, answer.lineage][answer.query]
        if answer.source == "pinned":
            of.pinned = answer
        else:
            of.imported = answer
    for decision in standing_decisions(golden.decisions_until(conn, until)):
        said[decision.tenant, decision.lineage][decision.query].decision = decision
    if not said:
        return Acting()
    present = passages.present_lineages(conn)
    least = typical_cosine + NEAR_DUPLICATE * (1.0 - typical_cosine)
    answers: dict[QueryKey, list[Known]] = defaultdict(list)
    for (tenant, lineage), by_query in said.items():
        if lineage not in present:
            continue
        rejected = _rejected(conn, source, by_query, least)
        for query, each in by_query.items():
            if (known := _known(lineage, each, rejected.get(query, -1))) is not None:
                answers[QueryKey(query, tenant)].append(known)
    found = {key: tuple(some) for key, some in answers.items()}
    return Acting(found, frozenset(lineage for _, lineage in said))


def _known(lineage: int, said: _Said, rejected: int) -> Known | None:
    """The known answer that was said; rejected: the number of the rejection that stands, -1: none."""
    grades: dict[str, int] = {}
    if said.imported is not None and rejected < 0:
        grades["imported"] = said.imported.grade
    if said.pinned is not None and said.pinned.seq > rejected:
        grades["pinned"] = said.pinned.grade
    if said.decision is not None and said.decision.kind == "accept" and rejected < 0:
        grades["review"] = max(1, *grades.values()) if grades else 1
    sources = tuple(sorted(name for name, grade in grades.items() if grade > 0))
    return Known(lineage, max(grades[name] for name in sources), sources) if sources else None


def _rejected(
    conn: sqlite3.Connection, source: Source, said: Mapping[bytes, _Said], least: float
) -> dict[bytes, int]:
    """{query: number of the rejection} of those whose last decision, or that of a near-duplicate of
    theirs, is one. said: on one text, under one tenant."""
    decided = {query: each.decision for query, each in said.items() if each.decision is not None}
    if not any(decision.kind == "reject" for decision in decided.values()):
        return {}
    alike = _near_duplicates(conn, source, list(said), least)
    found = {}
    for query in said:
        last = max(
            (decided[other] for other in alike[query] if other in decided),
            key=lambda decision: decision.seq,
            default=None,
        )
        if last is not None and last.kind == "reject":
            found[query] = last.seq
    return found


def _near_duplicates(
    conn: sqlite3.Connection, source: Source, queries: Sequence[bytes], least: float
) -> dict[bytes, list[bytes]]:
    """The queries that ask the same as each, itself among them."""
    if len(queries) == 1:
        return {queries[0]: [queries[0]]}
    texts = column_checks.complete("query_hash", golden.query_texts(conn, queries), queries)
    vectors = vectors_of(conn, texts, source.queries)
    return {
        query: [
            other
            for other in queries
            if other == query or float(vectors[query] @ vectors[other]) >= least
        ]
        for query in queries
    }
