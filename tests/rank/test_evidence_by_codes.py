"""Evidence from very many past queries, found by codes, against looking at all of them."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from rag_flywheel.rank import evidence
from rag_flywheel.rank.evidence import NO_VOTES, EvidenceView, evidence_for
from rag_flywheel.rank.parameters import Kernel
from rag_flywheel.rank.stored_evidence import PastQuery
from rag_flywheel.records import QueryKey, Support, Vectors
from voted import asked

DIM, N = 32, 2_000
KERNEL = Kernel(theta=0.3, neighbours=8)
TENANTS = ("much", "some", "little")


def unit_rows(n: int, seed: int) -> Vectors:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(30, DIM))
    rows = centres[rng.integers(30, size=n)] + 0.5 * rng.normal(size=(n, DIM))
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def tenant(i: int) -> str:
    return TENANTS[0 if i % 20 < 14 else 1 if i % 20 < 19 else 2]


def key(i: int) -> QueryKey:
    return QueryKey(i.to_bytes(16, "big"), tenant(i))


@pytest.fixture(scope="module")
def view() -> Iterator[EvidenceView]:
    """Past queries of three tenants, some of whose votes were retracted; most have codes."""
    vectors, made = unit_rows(N, 2), EvidenceView(DIM)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence, "CODES_FROM", 1_000)
        patch.setattr(evidence, "_UNCODED", 300)
        for start in range(0, N, 100):
            part = range(start, start + 100)
            past_query = {
                key(i): PastQuery((Support(i, 0.9), Support(i % 50, 0.1)), (i,)) for i in part
            }
            past_query |= {key(i): NO_VOTES for i in part if i % 9 == 0}
            made = made.updated(past_query, {key(i)[0]: vectors[i] for i in part})
        yield made


def test_most_past_queries_have_codes(view: EvidenceView) -> None:
    assert view.codes is not None
    assert N - 300 < len(view.codes) <= N


@pytest.mark.parametrize("name", TENANTS)
def test_evidence_is_nearly_what_looking_at_all_gives(view: EvidenceView, name: str) -> None:
    queries = unit_rows(100, 3)
    found = evidence_for(view, asked(queries), name, KERNEL)
    wanted = evidence_for(replace(view, codes=None), asked(queries), name, KERNEL)
    same = [list(a.behind) == list(b.behind) for a, b in zip(found, wanted, strict=True)]
    assert float(np.mean(same)) >= 0.97
    for a, b in zip(found, wanted, strict=True):
        if list(a.behind) == list(b.behind):
            assert dict(a.support) == pytest.approx(dict(b.support), abs=1e-6)


def test_one_query_gives_what_it_gives_among_many(view: EvidenceView) -> None:
    queries = unit_rows(20, 4)
    for row, among in zip(queries, evidence_for(view, asked(queries), "much", KERNEL), strict=True):
        (alone,) = evidence_for(view, asked(row[None, :]), "much", KERNEL)
        assert dict(alone.support) == pytest.approx(dict(among.support), abs=1e-6)


def test_what_is_retracted_is_not_heard(view: EvidenceView) -> None:
    found = evidence_for(view, asked(view.vectors[[9, 18, 27]]), "much", KERNEL)
    assert all(past.votes for past_query in found for past in past_query.behind)


def test_a_past_query_without_a_code_is_found(view: EvidenceView) -> None:
    assert view.codes is not None
    new = {QueryKey(b"x" * 16, "much"): PastQuery((Support(7, 1.0),), (N,))}
    vector = unit_rows(1, 99)[0]
    later = view.updated(new, {b"x" * 16: vector})
    assert later.codes is not None
    assert len(later.codes) <= N
    (found,) = evidence_for(later, asked(vector[None, :]), "much", KERNEL)
    assert found.behind[0].votes == (N,)
