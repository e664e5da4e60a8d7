"""The judgments of an index as callers read them: by the words of questions and the ids of passages."""

from rag_flywheel.curate.judgments import judgments
from rag_flywheel.records import PassageJudgment, TenantScope
from rag_flywheel.store import passages, retrievals, votes
from rag_flywheel.store.database import Database


def passage_judgments(
    database: Database, scope: TenantScope, *, last: int | None = None
) -> list[PassageJudgment]:
    """The judgments of the scope on passages that are in the index, in the order of their first votes.

    last: the number of the last event that counts; None: all count.
    """
    with database.snapshot() as conn:
        now = passages.read_clock(conn)
        until = now if last is None else min(last, now)
        found = [j for j in judgments(votes.votes_until(conn, until)) if scope.holds(j.tenant)]
        ids = passages.ids_by_lineage(conn, sorted({j.lineage for j in found}))
        texts = retrievals.query_texts(conn, sorted({j.query for j in found}), scope)
    return [
        PassageJudgment(texts.get(j.query, ""), j.tenant, id_, j.helpful, j.harmful, j.votes)
        for j in found
        for id_ in sorted(ids.get(j.lineage, ()))
    ]
