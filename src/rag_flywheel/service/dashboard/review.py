"""The screen on which one decides what waits in the review queue."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Form, Response

from rag_flywheel.errors import UnknownIdError, quoted
from rag_flywheel.records import ReviewItem
from rag_flywheel.service.dashboard.pages import Page, PageRoute, Part, part, sees, without_controls
from rag_flywheel.service.problems import Refused

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Reviewer = Annotated[Page, sees("review")]
Given = Annotated[str, Form()]
MOST_IN_LIST = (
    1_000  # characters of a text that can be edited in the list; longer ones on their own page
)


@router.get("/review")
def queue(page: Reviewer, number: Part = 1) -> Response:
    """What waits for a decision, what has the most votes first."""
    found = page.aged("review", partial(_items, page))
    items, number, n_parts = part(found.value or [], number)
    return page.render(
        "review.html",
        found=found,
        items=items,
        number=number,
        n_parts=n_parts,
        most=MOST_IN_LIST,
        whole=False,
    )


@router.get("/review/item")
def item(page: Reviewer, id: str = "") -> Response:
    """One item with its whole text."""
    found = next((each for each in _items(page) if each.id == id), None)
    if found is None:
        raise UnknownIdError(f"no item {quoted(id)} waits; it may have been decided meanwhile")
    return page.render("review_item.html", item=found, most=10**9, whole=True)


@router.post("/review/decide")
def decide(
    page: Reviewer, item: Given = "", decision: Given = "", text: Given = "", as_was: Given = ""
) -> Response:
    """Accept or reject an item. text: a user's text as the reviewer edited it; as_was: "1" without one."""
    if decision == "accept":
        edited = None if as_was or not text else text.replace("\r\n", "\n")
        made = page.fw.review.accept(
            item, text=_changed(page, item, edited), user_id=_by(page), **page.tenant
        )
        where = f": passage {made} is an answer" if made else ""
        return page.changed("/review", f"Accepted{where}. It can be undone.")
    if decision != "reject":
        raise Refused(422, "InvalidRequest", "found a decision that this page does not send")
    page.fw.review.reject(item, user_id=_by(page), **page.tenant)
    return page.changed("/review", "Rejected. It can be undone.")


@router.post("/review/undo")
def undo(page: Reviewer) -> Response:
    """Take back the last decision."""
    done = page.fw.review.undo(user_id=_by(page), **page.tenant)
    return page.changed("/review", f"Undone: item {done} is as it was before.")


def _changed(page: Page, id_: str, text: str | None) -> str | None:
    """The text where it is not the author's own; None: it is."""
    if text is None:
        return None
    own = next((each.text for each in _items(page) if each.id == id_), text)
    return None if text == without_controls(own.replace("\r\n", "\n")) else text


def _items(page: Page) -> list[ReviewItem]:
    return page.fw.review.items(**page.tenant)


def _by(page: Page) -> str | None:
    """Who decides: the name of the key; None in open access."""
    return page.key.name if page.session.key_id is not None else None
