"""The screens that show how an index does: overview, health and coverage."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Response
from markupsafe import Markup

from rag_flywheel.records import PastRefresh
from rag_flywheel.service.dashboard.charts import bars, lines
from rag_flywheel.service.dashboard.pages import Page, PageRoute, sees
from rag_flywheel.service.problems import Refused

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Watcher = Annotated[Page, sees("read", whole_index=True)]
_REFRESHES = 40
_DAYS = 60.0
_QUALITY = {
    "golden questions": "golden_ndcg@10",
    "held-out questions (hits with votes)": "condensed_ndcg",
}
_DRAWN_S = 3600.0  # a picture of the same refreshes is the same
_SLOW_S = 20.0  # so long the numbers of the folder are shown as they are


@router.get("/overview")
def overview(page: Annotated[Page, sees("read")]) -> Response:
    """The numbers of the index, its quality by refresh, and its votes by day."""
    whole = page.key.tenant is None
    refreshes = page.fw.refreshes(_REFRESHES) if whole else []
    measured = [each for each in reversed(refreshes) if _has_quality(each)]
    newest = measured[-1].at if measured else ""
    return page.render(
        "overview.html",
        whole=whole,
        numbers=page.aged("status", page.fw.status, fresh_s=_SLOW_S) if whole else None,
        health=page.aged("health", page.fw.health) if whole else None,
        votes=page.aged("activity", partial(_by_day, page)),
        quality=page.aged(("quality", newest), partial(_quality, measured), fresh_s=_DRAWN_S),
        refreshes=refreshes[:10],
        n_quality=len(measured),
    )


@router.get("/health")
def health(page: Watcher) -> Response:
    """Every check of the health of the index."""
    return page.render("health.html", health=page.aged("health", page.fw.health))


@dataclass(frozen=True)
class Told:
    """A record, to be read: its sentences, its values by name, and its lists of records as tables."""

    sentences: tuple[str, ...]
    values: tuple[tuple[str, str], ...]
    tables: tuple[tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]], ...]


@router.get("/coverage")
def coverage(page: Annotated[Page, sees("review")]) -> Response:
    """How far votes reach, where the library can tell."""
    compute = getattr(page.fw, "coverage", None)
    if compute is None:
        raise Refused(404, "NotFound", "this release does not measure coverage")
    found = page.aged("coverage", lambda: told(compute(**page.tenant)), fresh_s=_SLOW_S)
    return page.render("coverage.html", coverage=found)


def told(record: Any) -> Told:
    """A record of the library, to be read."""
    sentences: list[str] = []
    values: list[tuple[str, str]] = []
    tables = []
    for each in fields(record):
        name, value = each.name.replace("_", " "), getattr(record, each.name)
        if not isinstance(value, tuple):
            values.append((name, _value(value)))
        elif value and is_dataclass(value[0]):
            columns = tuple(column.name for column in fields(value[0]))
            rows = tuple(tuple(_value(getattr(row, c)) for c in columns) for row in value)
            tables.append((name, tuple(c.replace("_", " ") for c in columns), rows))
        else:
            sentences += [_value(part) for part in value]
    return Told(tuple(sentences), tuple(values), tuple(tables))


def _value(value: object) -> str:
    if value is None:
        return "not known"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _has_quality(refresh: PastRefresh) -> bool:
    return any(name in refresh.scores for name in _QUALITY.values())


def _quality(measured: Sequence[PastRefresh]) -> Markup:
    """The quality after each refresh: of the new weights where they went live, else of those that stayed."""

    def score(refresh: PastRefresh, name: str) -> float | None:
        return refresh.scores.get(name if refresh.parameters == "new" else f"{name}_before")

    series = {words: [score(r, name) for r in measured] for words, name in _QUALITY.items()}
    title = "Quality (nDCG) of what was live after each refresh"
    return lines(title, _times(measured), series, shares=True)


def _times(refreshes: Sequence[PastRefresh]) -> list[str]:
    return [each.at[5:16].replace("T", " ") for each in refreshes]


def _by_day(page: Page) -> Markup:
    """The votes by day; blank where nothing was asked."""
    days = page.fw.activity(_DAYS, **page.tenant)
    votes = {"helpful": [d.helpful for d in days], "harmful": [d.harmful for d in days]}
    return bars("Votes by day", [each.day for each in days], votes) if days else Markup("")
