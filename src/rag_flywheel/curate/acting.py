"""Computes which known answers act on ranking: imported or pinned ones, and those accepted in review.

What users said is no part of it: votes are evidence of their own. It must not know how ranking uses
the answers.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from rag_flywheel.curate.groups import NEAR_DUPLICATE
from rag_flywheel.curate.opinions import standing_decisions
from rag_flywheel.curate.source import Source
from rag_flywheel.records import Acting, Known, QueryKey
from rag_flywheel.store import golden
from rag_flywheel.store.embedding import past_query_vectors
from rag_flywheel.store.event_types import Decision, ImportedAnswer

Present = Callable[[Collection[int]], Collection[int]]
"""Those of some lineages that a text in the index now has."""
_Target = tuple[str | None, int]
"""A tenant, and the lineage of a passage text."""


@dataclass
class _Said:
    """What was said of one text as the answer of one question: the last of each kind."""

    imported: ImportedAnswer | None = None
    pinned: ImportedAnswer | None = None
    decision: Decision | None = None


def acting_answers(
    conn: sqlite3.Connection,
    source: Source,
    present: Present,
    *,
    until: int,
    typical_cosine: float,
    before: Acting | None = None,
    changed: Collection[int] = (),
) -> Acting:
    """The known answers that act after event number `until`.

    A reviewer's rejection takes back what was known before it, for near-duplicates of the question
    too: those of cosine 0.9, scaled from typical_cosine, that of two texts, to 1. A pin after it acts.
    before: the answers that acted earlier; then only those on texts of the lineages in `changed` are
    read anew.
    """
    lineages = None if before is None else sorted(changed)
    answers = dict(before.answers) if before is not None else {}
    found, spoken_of = _read(conn, source, present, until, typical_cosine, lineages)
    for key, known in found.items():
        others = [k for k in answers.get(key, ()) if k.lineage not in changed]
        some = sorted([*others, *known], key=lambda k: k.lineage)
        answers[key] = tuple(some)
        if not some:
            del answers[key]
    earlier = before.lineages if before is not None else frozenset[int]()
    return Acting(answers, earlier | spoken_of)


def _read(
    conn: sqlite3.Connection,
    source: Source,
    present: Present,
    until: int,
    typical_cosine: float,
    lineages: Sequence[int] | None,
) -> tuple[dict[QueryKey, list[Known]], set[int]]:
    """The known answers of every question that anything was said of, and the lineages of the texts.

    lineages: only what was said of these texts is read; None: all.
    """
    said: dict[_Target, dict[bytes, _Said]] = defaultdict(lambda: defaultdict(_Said))
    for answer in golden.answers_until(conn, until, lineages):
        of = said[answer.tenant, answer.lineage][answer.query]
        if answer.source == "pinned":
            of.pinned = answer
        else:
            of.imported = answer
    decisions = golden.decisions_until(conn, until, lineages)
    for decision in standing_decisions(decisions):
        said[decision.tenant, decision.lineage][decision.query].decision = decision
    for undone in decisions:  # its question is among those found, with nothing known
        _ = said[undone.tenant, undone.lineage][undone.query]
    spoken_of = {lineage for _, lineage in said}
    there = present(spoken_of)
    least = typical_cosine + NEAR_DUPLICATE * (1.0 - typical_cosine)
    found: dict[QueryKey, list[Known]] = defaultdict(list)
    for (tenant, lineage), by_query in said.items():
        rejected = _rejected(conn, source, by_query, least)
        for query, each in by_query.items():
            of_query = found[QueryKey(query, tenant)]
            known = _known(lineage, each, rejected.get(query, -1))
            if known is not None and lineage in there:
                of_query.append(known)
    return found, spoken_of


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
    rows = past_query_vectors(conn, queries, source.queries)
    vectors = dict(zip(queries, rows[: len(queries)], strict=True))
    return {
        query: [
            other
            for other in queries
            if other == query or float(vectors[query] @ vectors[other]) >= least
        ]
        for query in queries
    }
