"""The screens of what users ask: their questions, and the gaps."""

from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from rag_flywheel.service.dashboard.pages import Page, PageRoute, Part, part, sees

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Reviewer = Annotated[Page, sees("review")]
_MOST = 500  # questions that are listed
_SLOW_S = 20.0
ORDERS = {"asked": "asked most", "worst": "served worst", "disputed": "disagreed on"}


@router.get("/questions")
def questions(
    page: Reviewer,
    order: Literal["asked", "worst", "disputed"] = "asked",
    number: Part = 1,
) -> Response:
    """The questions that were asked, in one of three orders."""
    compute = partial(page.fw.questions, _MOST, order=order, **page.tenant)
    found = page.aged(("questions", order), compute, fresh_s=_SLOW_S)
    items, number, n_parts = part(found.value or [], number)
    return page.render(
        "questions.html",
        found=found,
        items=items,
        number=number,
        n_parts=n_parts,
        order=order,
        orders=ORDERS,
    )


@router.get("/gaps")
def gaps(
    page: Reviewer,
    days: Annotated[float, Query(gt=0, lt=1e5)] = 30.0,
    number: Part = 1,
) -> Response:
    """The topics without a good answer, with how often they were asked in the period before."""
    compute = partial(page.fw.gaps, days, **page.tenant)
    found = page.aged(("gaps", days), compute, fresh_s=_SLOW_S)
    items, number, n_parts = part(found.value or [], number)
    return page.render(
        "gaps.html", found=found, items=items, number=number, n_parts=n_parts, days=days
    )
