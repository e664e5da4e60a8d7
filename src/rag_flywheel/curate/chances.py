"""Computes the chance of each passage to answer a past query, before its votes and after them.

Chances before the votes come from the version's memory, else from the scores that were logged when
the query was answered.
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.rank.memory import Memory
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.rank.posterior import LEAST_CHANCE, NAMED, NAMED_BY, credited, log_odds_of
from rag_flywheel.rank.raters import digest_of
from rag_flywheel.rank.score import chance_of
from rag_flywheel.rank.stored_evidence import PastQuery, Provenance, Supports
from rag_flywheel.records import Judgment, QueryKey
from rag_flywheel.store import forgetting, mutes, retrievals, votes
from rag_flywheel.store.connection import Connection

RULES = 5  # raised whenever the same votes come to give other chances


def rests_on(
    until: int,
    parameters: Parameters,
    weights: Mapping[str, float],
    judged_by: str | None,
    revision: str,
    conn: Connection,
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
    conn: Connection,
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


def past_supports(
    memory: Memory,
    parameters: Parameters,
    judged: Sequence[Judgment],
    conn: Connection,
) -> Supports:
    """`past_queries` as arrays: the same numbers, without an object for each passage of each question.

    memory, parameters: of one version.
    """
    by_query: dict[QueryKey, list[Judgment]] = defaultdict(list)
    for judgment in judged:
        by_query[QueryKey(judgment.query, judgment.tenant)].append(judgment)
    places = {key: _places(memory, key, some) for key, some in by_query.items()}
    others = [j for key, some in by_query.items() if places[key] is None for j in some]
    one_by_one = Supports.of(past_queries(memory, parameters, others, conn))
    numbers = {key: i for i, key in enumerate(by_query)}
    of_others = np.array([numbers[key] for key in one_by_one.keys], dtype=np.int64)
    of_memory = _credited(memory, parameters, by_query, places, numbers)
    one = one_by_one
    others_too: tuple[npt.NDArray[Any], ...] = (
        np.repeat(of_others, one.counts),
        one.lineages,
        one.chances,
        one.log_odds,
        one.named,
    )
    every = [np.concatenate(both) for both in zip(of_memory, others_too, strict=True)]
    row, lineages, chances, log_odds, named = every
    order = np.lexsort((lineages, -chances, row))
    return Supports(
        tuple(by_query),
        [tuple(dict.fromkeys(s for j in some for s in j.votes)) for some in by_query.values()],
        np.bincount(row, minlength=len(by_query)),
        lineages[order],
        chances[order],
        log_odds[order],
        named[order],
    )


def _places(memory: Memory, key: QueryKey, judgments: Sequence[Judgment]) -> list[int] | None:
    """Where the memory holds the passages of these judgments on one question; None where it lacks one, or
    where their chances are not those that it holds."""
    row = memory.rows.get(key)
    if row is None or any(j.named >= NAMED_BY for j in judgments):
        return None
    start, end = int(memory.offsets[row]), int(memory.offsets[row + 1])
    place = dict(zip(memory.lineages[start:end].tolist(), range(start, end), strict=True))
    wanted = {j.lineage for j in judgments}
    if len(place) < end - start or len(wanted) < len(judgments) or not wanted <= place.keys():
        return None
    return [place[j.lineage] for j in judgments]


def _credited(
    memory: Memory,
    parameters: Parameters,
    by_query: Mapping[QueryKey, Sequence[Judgment]],
    places: Mapping[QueryKey, list[int] | None],
    numbers: Mapping[QueryKey, int],
) -> tuple[npt.NDArray[Any], ...]:
    """(number of the question, lineage, chance, log-odds, named) of what `credited` finds for all questions
    whose passages are in the memory."""
    several, before = parameters.answers is not None, memory.chances.astype(np.float64)
    power, odds, kept = np.zeros(len(before)), before.copy(), np.zeros(len(before), dtype=np.bool_)
    number = np.full(len(memory.keys), -1)
    total = np.zeros(len(memory.keys))
    for key, at in places.items():
        if at is None:
            continue
        of_key = memory.rows[key]
        number[of_key] = numbers[key]
        for place, judgment in zip(at, by_query[key], strict=True):
            power[place] = added = log_odds_of(judgment, parameters.rates, parameters.choice)
            odds[place] *= math.exp(added)
            kept[place] = several or judgment.helpful > judgment.harmful
        if not several:  # summed as Python does, whose last digit may be another
            part = slice(memory.offsets[of_key], memory.offsets[of_key + 1])
            total[of_key] = sum(odds[part].tolist()) + max(0.0, 1.0 - sum(before[part].tolist()))
    counts = np.diff(memory.offsets)
    every = odds + np.maximum(1.0 - before, 0.0) if several else np.repeat(total, counts)
    likely = (every > 0.0) & ((odds >= LEAST_CHANCE * every) | (kept & (odds > 0.0)))
    row = np.repeat(number, counts)
    used = np.flatnonzero((row >= 0) & (likely | (power != 0.0)))
    chances = np.where(likely[used], odds[used] / np.maximum(every[used], 1e-300), 0.0)
    named = np.zeros(len(used), dtype=np.uint8)
    return row[used], memory.lineages[used], chances, power[used], named


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
