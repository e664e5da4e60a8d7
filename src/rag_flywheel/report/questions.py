"""Reports what users ask: the questions asked most, those served worst, and those voters disagree on."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, get_args

from rag_flywheel.curate.judgments import judgments
from rag_flywheel.records import Judgment, QueryKey, QuestionSummary, TenantScope
from rag_flywheel.store import log, passages, votes
from rag_flywheel.store.database import Database

QuestionOrder: TypeAlias = Literal["asked", "worst", "disputed"]
QUESTION_ORDERS: tuple[QuestionOrder, ...] = get_args(QuestionOrder)
_ORDERS: Mapping[QuestionOrder, Callable[[QuestionSummary], float]] = {
    "asked": lambda q: -q.n,
    "worst": lambda q: -q.n * (1.0 - (1.0 if q.answerable is None else q.answerable)),
    "disputed": lambda q: -q.disputed,
}


def questions(
    database: Database, scope: TenantScope, n: int, order: QuestionOrder, *, last: int | None
) -> list[QuestionSummary]:
    """The first n questions in this order.

    asked: those asked most. worst: those of which the most askings are expected to be without an answer,
        by how answerable they were when last asked. disputed: those on whose passages people disagree.
    last: the number of the last vote that counts; None: all count.
    """
    with database.snapshot() as conn:
        asked = log.askings(conn, scope)
        served = log.answerable(conn, [each.newest for each in asked])
        now = passages.read_clock(conn)
        every = judgments(votes.votes_until(conn, now if last is None else min(last, now)))
    said: dict[QueryKey, list[Judgment]] = defaultdict(list)
    for judgment in every:
        said[QueryKey(judgment.query, judgment.tenant)].append(judgment)
    found = [
        QuestionSummary(
            query=each.query,
            tenant=each.question.tenant,
            n=each.n,
            n_people=each.n_people,
            first=log.utc(each.first),
            last=log.utc(each.last),
            answerable=served[each.newest],
            helpful=sum(j.helpful for j in said[each.question]),
            harmful=sum(j.harmful for j in said[each.question]),
            disputed=sum(min(j.helpful, j.harmful) for j in said[each.question]),
        )
        for each in asked
    ]
    if order == "disputed":
        found = [each for each in found if each.disputed > 0.0]
    return sorted(found, key=_ORDERS[order])[:n]
