"""The screen of those who vote: how far each is trusted, who looks like a crowd, and who is muted."""

from typing import Annotated

from fastapi import APIRouter, Form, Response

from rag_flywheel.errors import UnknownIdError, quoted
from rag_flywheel.report.raters import Rater
from rag_flywheel.service.dashboard.pages import Page, PageRoute, Part, part, sees

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Reviewer = Annotated[Page, sees("review", whole_index=True)]
Operator = Annotated[Page, sees("admin", whole_index=True)]
_SLOW_S = 20.0


@router.get("/voters")
def voters(page: Reviewer, number: Part = 1) -> Response:
    """Everybody who voted under an id, crowds first, then those with the least weight."""
    found = page.aged("voters", page.fw.raters, fresh_s=_SLOW_S)
    items, number, n_parts = part(found.value or [], number)
    most = max((each.n_votes for each in found.value or []), default=0)
    return page.render(
        "voters.html", found=found, items=items, number=number, n_parts=n_parts, most=most
    )


@router.get("/voters/mute")
def confirm(page: Operator, user: str = "") -> Response:
    """Ask whether the votes of a user are to be left out, or to count again."""
    return page.render("confirm_mute.html", rater=_rater(page, user))


@router.post("/voters/mute")
def mute(
    page: Operator, user: Annotated[str, Form()] = "", muted: Annotated[str, Form()] = ""
) -> Response:
    """Leave out the votes of a user, or count them again."""
    rater = _rater(page, user)
    if muted:
        page.fw.mute(raters=[rater.user])
        return page.changed("/voters", "Muted: their votes are left out from now on.")
    page.fw.unmute(raters=[rater.user])
    return page.changed("/voters", "Unmuted: their votes count again.")


def _rater(page: Page, user: str) -> Rater:
    for rater in page.fw.raters():
        if rater.user == user:
            return rater
    raise UnknownIdError(
        f"no voter {quoted(user)} is known; expected a hash that this screen lists"
    )
