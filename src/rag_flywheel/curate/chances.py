"""Computes the chance of each passage to answer a past query, before its votes and after them.

Chances before the votes come from the version's memory, else from the scores that were logged when
the query was answered.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rag_flywheel.rank.memory import Memory
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.rank.posterior import NAMED, NAMED_BY, credited
from rag_flywheel.rank.raters import digest_of
from rag_flywheel.rank.score import chance_of
from rag_flywheel.rank.stored_evidence import PastQuery, Provenance
from rag_flywheel.records import Judgment, QueryKey
from rag_flywheel.store import forgetting, mutes, retrievals, votes

RULES = 5  # raised whenever the same votes come to give other chances


def rests_on(
    until: int,
    parameters: Parameters,
    weights: Mapping[str, float],
    judged_by: str | None,
    revision: str,
    conn: sqlite3.Connection,
) -> Provenance:
    """Everything that determines `past_queries` besides the version's memory and the vectors.

    until: the number of the last event that is used.
    weights: of the users who are no ordinary voters, by their hashes.
    judged_by: as in the source of events.
    revision: the encoder revision of the vectors of queries.
    """
    settings = {
        "rules": RULES,
        "named": NAMED,
        "judged_by": judged_by,
        "rates": asdict(parameters.rates),
        "choice": parameters.choice,
        "answers": parameters.answers,
        "trusts": votes.stored_trusts(conn),
        "muted": sorted(mutes.muted(conn)),
        "raters": digest_of(weights),
        "queries": revision,
    }
    by = json.dumps(settings, sort_keys=True) if judged_by is not None else ""
    return Provenance(until, forgetting.count_begun(conn), by)


def past_queries(
    memory: Memory,
    parameters: Parameters,
    judged: Sequence[Judgment],
    conn: sqlite3.Connection,
) -> dict[QueryKey, PastQuery]:
    """The past queries of these judgments, with the chances of their passages after the votes.

    memory, parameters: of one version.
    """
    answers = parameters.answers
    by_query: dict[QueryKey, list[Judgment]] = defaultdict(list)
    for judgment in judged:
        by_query[QueryKey(judgment.query, judgment.tenant)].append(judgment)
    before = {
        key: memory.before(row) if (row := memory.rows.get(key)) is not None else {}
        for key in by_query
    }
    unknown = [key for key, js in by_query.items() if any(j.lineage not in before[key] for j in js)]
    first = retrievals.first_retrievals(conn, unknown)
    rows = {key: sorted({first[key], *(j.retrieval for j in by_query[key])}) for key in unknown}
    needed = sorted({r for some in rows.values() for r in some})
    logged = retrievals.logged_scores(conn, needed, with_known=False)
    for key in unknown:
        before[key] = completed(before[key], [logged[row] for row in rows[key]], answers)
    return {
        key: PastQuery(
            credited(
                with_named(before[key], judgments),
                judgments,
                parameters.rates,
                choice=parameters.choice,
                several=answers is not None,
            ),
            tuple(dict.fromkeys(s for j in judgments for s in j.votes)),
        )
        for key, judgments in by_query.items()
    }


def with_named(before: dict[int, float], judgments: Sequence[Judgment]) -> dict[int, float]:
    """The chances with at least 0.05 for each passage that a user named.

    A user picks a named passage from the whole index, not from the hits that were shown.
    """
    named = (j.lineage for j in judgments if j.named >= NAMED_BY)
    return {**before, **{p: max(before.get(p, 0.0), NAMED) for p in named}}


def completed(
    before: Mapping[int, float],
    shown: Sequence[Sequence[tuple[int, float]]],
    answers: float | None,
) -> dict[int, float]:
    """Chances extended by those of other passages from the first answer that showed them.

    shown: (lineage, score) of the hits of each answer, the first answer first. answers: as in
    `Parameters`.
    """
    chances = dict(before)
    for hits in shown:
        for lineage, score in hits:
            chances.setdefault(lineage, chance_of(score, answers))
    total = max(sum(chances.values()), 1.0) if answers is None else 1.0
    return {p: chance / total for p, chance in chances.items()}
