"""Under any filter a database finds what memory finds, however metadata changed since it was written."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lite import Both
from rag_flywheel import Passage
from rag_flywheel.index import remote

RNG = np.random.default_rng(11)
N = 240
TIES = 1e-4  # as in test_whole_collections.py
WORDS = [f"{a}{b}" for a in ("plum", "fig", "oak", "elm", "ash", "yew") for b in range(40)]
Open = Callable[..., Both]
FILTERS: list[dict[str, Any] | None] = [
    None,
    {"shelf": 3},
    {"shelf": {"in": [3, 4, 1_000]}},
    {"shelf": {"ne": 3}},
    {"half": "left"},
    {"not": {"half": "left"}},
    {"one": True},
    {"one": {"exists": False}},
    {"shelf": 1_000},
    {"and": [{"half": "left"}, {"shelf": {"lt": 5}}]},
    {"or": [{"one": True}, {"shelf": 7}]},
    {"deep.year": {"gte": 2_020}},
]


def metadata(i: int) -> dict[str, Any]:
    own: dict[str, Any] = {
        "shelf": i % 40,
        "half": "left" if i % 2 else "right",
        "firm": f"f{i % 3}",
    }
    own["deep"] = {"year": 2_000 + i % 24}
    return {**own, "one": True} if i == 77 else own


def made(i: int, **changes: Any) -> Passage:
    """A passage whose length no other one has, so that none ties by BM25."""
    words = np.random.default_rng(i).choice(WORDS, size=5 + i).tolist()
    return Passage(f"p{i:03}", " ".join(words), metadata={**metadata(i), **changes})


@pytest.fixture(params=["named", "asked for more"])
def built(request: pytest.FixtureRequest, both: Open, monkeypatch: pytest.MonkeyPatch) -> Both:
    """A version of which a filter names its passages, or of which the database is asked for more."""
    monkeypatch.setattr(remote, "LISTED", 4_096 if request.param == "named" else 5)
    found = both(n_lookups=0, n_candidates=12, tenant_key="firm", tenant_required=False)
    found.do(lambda fw: fw.add([made(i) for i in range(N)]))
    found.do(lambda fw: fw.refresh())
    return found


def alike(both: Both, **more: Any) -> list[list[str]]:
    """Asks both under every filter; returns the hits."""
    queries = [" ".join(RNG.choice(WORDS, size=4)) for _ in range(2)]
    return [
        both.same(query, k=8, within=TIES, where=where, **more)
        for query in queries
        for where in FILTERS
    ]


def test_narrow_wide_and_empty_filters_and_tenants(built: Both) -> None:
    found = alike(built, all_tenants=True)
    assert found[6] == found[18] == ["p077"]
    assert found[8] == found[20] == []
    assert sum(map(len, found)) > 100
    assert any(alike(built, tenant="f1"))
    assert not any(alike(built, tenant="nobody"))


def test_metadata_that_changed_since_the_version_was_made(built: Both) -> None:
    before = alike(built, all_tenants=True)
    assert before[6] == ["p077"]
    built.do(
        lambda fw: fw.add(
            [
                made(77, one=False, shelf=1_000),  # the same texts
                made(79, one=True, firm="f1"),
                *(made(i, half="left", firm="f9") for i in range(0, N, 3)),
            ]
        )
    )
    for _ in range(2):
        found = alike(built, all_tenants=True)
        assert found[6] == ["p079"] and found[8] == ["p077"]
        assert any(alike(built, tenant="f9")) and any(alike(built, tenant="f1"))
        reports = built.do(lambda fw: fw.refresh())  # has nothing to do, for no text changed
        assert [report.outcome for report in reports] == ["unchanged", "unchanged"]


def test_passages_that_came_and_went(built: Both) -> None:
    gone = [f"p{i:03}" for i in range(0, N, 4)]
    new = [
        Passage(f"n{i}", made(i).text + " fresh" * 300, metadata={**metadata(i), "shelf": 3})
        for i in range(20)
    ]
    built.do(lambda fw: fw.add(new, remove=gone))
    for more in ({"all_tenants": True}, {"tenant": "f1"}):
        assert not {id_ for hits in alike(built, **more) for id_ in hits} & set(gone)
    built.do(lambda fw: fw.refresh())
    assert any(alike(built, tenant="f2"))
