"""The screen on which one asks, votes, and sees the order change."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Form, Response
from fastapi.responses import RedirectResponse

from rag_flywheel.records import Explanation, Hit, PastVotes, Retrieval
from rag_flywheel.service.dashboard.pages import Page, PageRoute, sees
from rag_flywheel.service.problems import Refused

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Asker = Annotated[Page, sees("read")]
Given = Annotated[str, Form()]
_K = 8
_MOST_VOTES = 5  # questions with votes that are listed behind a hit


@dataclass(frozen=True)
class Seen:
    """A hit as the page shows it. was: the rank that it had when this was asked first, None: none."""

    hit: Hit
    was: int | None
    terms: Sequence[tuple[str, float]]
    votes: Sequence[PastVotes]
    n_votes: int

    @property
    def moved(self) -> int:
        """By how many ranks it rose."""
        return 0 if self.was is None else self.was - self.hit.rank


@dataclass(frozen=True)
class Asked:
    """A question, its hits now, and the ids in the order in which they were shown first."""

    query: str
    retrieval: Retrieval
    hits: Sequence[Seen]
    first: Sequence[str]
    gone: Sequence[str]

    @property
    def most(self) -> float:
        """The largest term of any hit."""
        return max((abs(value) for each in self.hits for _, value in each.terms), default=0.0)

    @property
    def order(self) -> str:
        """The first order, to be sent along with the next vote."""
        return json.dumps(list(self.first))


@router.get("/")
def form(page: Asker) -> Response:
    """The form for a question."""
    return page.render(
        "ask.html", query="", other="", user="", asked=None, beside=None, shown="", again=False
    )


@router.get("/ask")
def start_over(page: Asker) -> Response:
    """An answer is the answer to a form, and has no address."""
    return RedirectResponse(page.url("/"), status_code=303)


@router.post("/ask")
def ask(
    page: Asker,
    query: Given = "",
    other: Given = "",
    user: Given = "",
    vote: Given = "",
    shown: Given = "",
    asked: Given = "",
    beside: Given = "",
    order: Given = "[]",
    order_beside: Given = "[]",
) -> Response:
    """Answer a question; with a vote, record that first, and answer the same question again.

    shown: the retrieval that is voted on; asked, beside: the questions shown with it; order,
        order_beside: the orders in which their passages were shown first.
    """
    first, first_beside = _ids(order), _ids(order_beside)
    if vote:
        query = asked
        _vote(page, vote, shown, first, user)
        found = page.fw.retrieve(query, _K, record=False, **page.tenant)
    else:
        first = []
        found = page.fw.retrieve(query, _K, user_id=user.strip() or None, **page.tenant)
        shown = found.id or ""
    other = other.strip()
    return page.render(
        "ask.html",
        query=query,
        other=other,
        user=user,
        asked=_asked(page, found, first),
        beside=_beside(page, other, first_beside if other == beside else []),
        shown=shown,
        again=bool(vote),
    )


def _vote(page: Page, vote: str, shown: str, first: Sequence[str], user: str) -> None:
    """Record a vote as the page sends it: helpful, harmful or retract, and the first rank of the hit."""
    if not page.may("vote"):
        raise Refused(403, "Forbidden", "this key lacks the scope vote")
    verdict, _, rank = vote.partition(":")
    if verdict not in ("helpful", "harmful", "retract") or not rank.isdecimal():
        raise Refused(422, "InvalidRequest", "found a vote that this page does not send")
    place = int(rank[:9]) - 1
    if not 0 <= place < len(first):
        raise Refused(422, "InvalidRequest", "found a vote on a hit that was not shown")
    page.call.count_votes((user.strip() or None, shown))
    page.fw.feedback(
        shown,
        first[place],
        verdict,  # type: ignore[arg-type]
        user_id=user.strip() or None,
        **page.tenant,
    )


def _beside(page: Page, other: str, first: Sequence[str]) -> Asked | None:
    if not other:
        return None
    return _asked(page, page.fw.retrieve(other, _K, record=False, **page.tenant), first)


def _asked(page: Page, found: Retrieval, first: Sequence[str]) -> Asked:
    first = list(first) or [hit.passage_id for hit in found.hits]
    ranks = {id_: rank for rank, id_ in enumerate(first, 1)}
    now = {hit.passage_id for hit in found.hits}
    hits = [_seen(page, hit, ranks.get(hit.passage_id)) for hit in found.hits]
    return Asked(found.query, found, hits, first, [id_ for id_ in first if id_ not in now])


def _seen(page: Page, hit: Hit, was: int | None) -> Seen:
    votes = page.fw.votes_behind(hit, **page.tenant) if hit.explanation.votes else []
    ordered = sorted(votes, key=lambda v: -(v.helpful + v.harmful + abs(v.shared)))
    return Seen(
        hit, was, _terms(hit.explanation), ordered[:_MOST_VOTES], len(hit.explanation.votes)
    )


def _terms(explanation: Explanation) -> list[tuple[str, float]]:
    """The terms of a score by name, the largest first; what votes add comes first of all."""
    terms = sorted(explanation.terms.items(), key=lambda term: -abs(term[1]))
    shown = [(name, value) for name, value in terms if abs(value) >= 0.005]
    return [("votes", explanation.evidence), *shown] if explanation.evidence else shown


def _ids(order: str) -> list[str]:
    """The ids that a page sends along; none where it sends anything else."""
    try:
        found = json.loads(order)
    except (ValueError, RecursionError):
        return []
    good = isinstance(found, list) and all(isinstance(each, str) for each in found)
    return found[:_K] if good else []
