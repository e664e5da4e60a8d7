"""The screens of passages: a search, and one passage with its votes and the questions that it answers."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Response

from rag_flywheel.errors import UnknownIdError
from rag_flywheel.records import Passage, PassageJudgment
from rag_flywheel.service.dashboard.pages import PER_PAGE, Page, PageRoute, sees

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Reader = Annotated[Page, sees("read")]
_MOST_QUESTIONS = 100  # of a passage that are listed
_SLOW_S = 20.0


@router.get("/passages")
def passages(page: Reader, q: str = "", after: str = "") -> Response:
    """The passages in the order of their ids; q: those that fit some words, or have this id."""
    if q.strip():
        return page.render("passages.html", items=_found(page, q), q=q, more="")
    items = page.fw.passages(n=PER_PAGE + 1, after=after, **page.tenant)
    more = items[PER_PAGE - 1].id if len(items) > PER_PAGE else ""
    return page.render("passages.html", items=items[:PER_PAGE], q="", more=more)


@router.get("/passages/one")
def passage(page: Reader, id: str = "") -> Response:
    """One passage."""
    found = page.fw.passage(id, **page.tenant)
    judged = known = None
    if page.may("review"):
        compute = partial(page.fw.judgments, **page.tenant)
        judged = page.aged("judgments", compute, fresh_s=_SLOW_S)
        known = page.aged("golden", partial(page.fw.golden.items, **page.tenant), fresh_s=_SLOW_S)
    mine = [j for j in (judged.value or [] if judged else []) if j.passage_id == id]
    return page.render(
        "passage.html",
        passage=found,
        judged=judged,
        known=known,
        votes=_ordered(mine)[:_MOST_QUESTIONS],
        n_questions=len(mine),
        answers=[g for g in (known.value or [] if known else []) if g.answers.get(id, 0) > 0][
            :_MOST_QUESTIONS
        ],
    )


def _found(page: Page, q: str) -> list[Passage]:
    """The passage with this id, if there is one, and those that fit the words best."""
    first: list[Passage] = []
    with suppress(UnknownIdError):
        first.append(page.fw.passage(q.strip(), **page.tenant))
    hits = page.fw.retrieve(q, PER_PAGE, record=False, **page.tenant).hits
    others = [Passage(h.passage_id, h.text, h.title, h.metadata) for h in hits]
    return first + [each for each in others if each.id not in {p.id for p in first}]


def _ordered(judged: Sequence[PassageJudgment]) -> list[PassageJudgment]:
    return sorted(judged, key=lambda j: -(j.helpful + j.harmful))
