"""What votes say of past queries: the chance of each passage, before the votes and after them.

Chances before the votes come from the version's memory, else from the scores that were logged when
the query was answered.
"""

import json
import math
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence

from rag_flywheel.rank.memory import Memory
from rag_flywheel.rank.posterior import credited
from rag_flywheel.rank.stored_evidence import PastQuery, Provenance
from rag_flywheel.records import Judgment, QueryKey
from rag_flywheel.store import forgetting, retrievals, votes

NAMED = 0.05  # the least chance, before the votes, of a passage that a user named
RULES = 1  # raised whenever the same votes come to say something else


def rests_on(
    until: int, noise: float, judged_by: str | None, revision: str, conn: sqlite3.Connection
) -> Provenance:
    """All that `past_queries` rests on for votes up to event number `until`, besides the version's
    memory, and their vectors; judged_by: of the source of events; revision: of those vectors."""
    said = {
        "rules": RULES,
        "named": NAMED,
        "judged_by": judged_by,
        "noise": noise,
        "trusts": votes.stored_trusts(conn),
        "queries": revision,
    }
    by = json.dumps(said, sort_keys=True) if judged_by is not None else ""
    return Provenance(until, forgetting.count_begun(conn), by)


def past_queries(
    memory: Memory,
    noise: float,
    judged: Sequence[Judgment],
    conn: sqlite3.Connection,
) -> dict[QueryKey, PastQuery]:
    """What these judgments say of the past queries that they are on; noise: the share of votes that
    are wrong."""
    found: dict[QueryKey, list[Judgment]] = defaultdict(list)
    for judgment in judged:
        found[QueryKey(judgment.query, judgment.tenant)].append(judgment)
    known = memory.rows
    before = {
        key: memory.before(row) if (row := known.get(key)) is not None else {} for key in found
    }
    unknown = [key for key, js in found.items() if any(j.lineage not in before[key] for j in js)]
    first = retrievals.first_retrievals(conn, unknown)
    rows = {key: sorted({first[key], *(j.retrieval for j in found[key])}) for key in unknown}
    logged = retrievals.logged_scores(conn, sorted({r for some in rows.values() for r in some}))
    for key in unknown:
        before[key] = completed(before[key], [logged[row] for row in rows[key]])
    for key, judgments in found.items():
        before[key] = with_named(before[key], judgments)
    return {
        key: PastQuery(
            credited(before[key], judgments, noise),
            tuple(dict.fromkeys(s for j in judgments for s in j.votes)),
        )
        for key, judgments in found.items()
    }


def with_named(before: dict[int, float], judgments: Sequence[Judgment]) -> dict[int, float]:
    """With a chance for passages that a user named, though nothing in them spoke for it: whoever
    names one out of all the index says more than who ticks one of those shown."""
    named = (j.lineage for j in judgments if j.named)
    return {**before, **{p: max(before.get(p, 0.0), NAMED) for p in named}}


def completed(
    known: Mapping[int, float], shown: Sequence[Sequence[tuple[int, float]]]
) -> dict[int, float]:
    """The known chances and, for other passages, those of the first answer that showed them."""
    chances = dict(known)
    for hits in shown:
        for lineage, score in hits:
            chances.setdefault(lineage, math.exp(min(score, 0.0)))
    total = sum(chances.values())
    return {p: chance / max(total, 1.0) for p, chance in chances.items()}
