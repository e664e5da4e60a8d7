"""Evidence against sums worked in plain Python, and views that never change."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.rank.evidence import Evidence, EvidenceView, PastQueryKey, gather, neighbours
from rag_flywheel.rank.parameters import Kernel
from rag_flywheel.records import Judgment, Vectors

QUERY = np.array([1.0, 0.0, 0.0], dtype=np.float32)


def at_cosine(cosine: float) -> Vectors:
    """A unit vector at this cosine to QUERY."""
    return np.array([cosine, math.sqrt(1.0 - cosine * cosine), 0.0], dtype=np.float32)


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def judged(
    number: int, tenant: str | None = None, *votes: tuple[int, float, float]
) -> tuple[PastQueryKey, tuple[Judgment, ...]]:
    """A past query and its (lineage, helpful, harmful)."""
    found = tuple(
        Judgment(name(number), tenant, p, h, n, (number * 100 + i,))
        for i, (p, h, n) in enumerate(votes)
    )
    return (name(number), tenant), found


def view_of(
    rows: Sequence[tuple[PastQueryKey, tuple[Judgment, ...]]], vectors: Mapping[bytes, Vectors]
) -> EvidenceView:
    return EvidenceView(3).updated(dict(rows), vectors)


def evidence(
    view: EvidenceView, kernel: Kernel, query: Vectors = QUERY, tenant: str | None = None
) -> Evidence:
    return gather(view, neighbours(view, query, tenant, kernel))


def test_hand_worked_sums() -> None:
    rows = [
        judged(1, None, (10, 1.0, 0.0), (11, 0.0, 2.0)),  # cos 1.0 -> K 1
        judged(2, None, (10, 2.0, 1.0)),  # cos 0.75 -> K 0.5
        judged(3, None, (10, 9.0, 9.0), (12, 1.0, 0.0)),  # cos 0.25 -> 0
    ]
    vectors = {name(1): at_cosine(1.0), name(2): at_cosine(0.75), name(3): at_cosine(0.25)}
    found = evidence(view_of(rows, vectors), Kernel(theta=0.5, gamma=1.0))
    assert found.helpful == pytest.approx({10: 1.0 + 0.5 * 2.0, 11: 0.0})
    assert found.harmful == pytest.approx({10: 0.5, 11: 2.0})
    assert found.votes == {10: (100, 200), 11: (101,)}
    helpful, harmful = found.amounts(np.array([12, 11, 10]))
    assert helpful.tolist() == pytest.approx([0.0, 0.0, 2.0])
    assert harmful.tolist() == pytest.approx([0.0, 2.0, 0.5])


def test_no_evidence_is_zero_for_every_passage() -> None:
    helpful, harmful = evidence(EvidenceView(3), Kernel()).amounts(np.array([1, 2]))
    assert (helpful.tolist(), harmful.tolist()) == ([0.0, 0.0], [0.0, 0.0])


permilles = st.lists(st.integers(-999, 1000), min_size=1, max_size=60, unique=True)
kernels = st.builds(
    Kernel,
    theta=st.integers(-900, 990).map(lambda t: (t + 0.5) / 1000),  # never on a cosine
    gamma=st.sampled_from([0.5, 1.0, 2.0, 3.7]),
    neighbours=st.integers(0, 40),
)


@given(permilles, kernels, st.integers(0, 2**32))
def test_sums_equal_plain_python(cosines: list[int], kernel: Kernel, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, vectors = [], {}
    for number, permille in enumerate(cosines):
        votes = {
            int(p): (float(rng.integers(4)), float(rng.integers(4)))
            for p in rng.integers(9, size=3)
        }
        tenant = None if rng.random() < 0.7 else '"b"'
        rows.append(judged(number, tenant, *((p, h, n) for p, (h, n) in votes.items())))
        vectors[name(number)] = at_cosine(permille / 1000)
    found = evidence(view_of(rows, vectors), kernel)

    near = [
        (c / 1000, judgments)
        for c, ((_, tenant), judgments) in zip(cosines, rows, strict=True)
        if tenant is None and c / 1000 > kernel.theta
    ]
    helpful: dict[int, float] = {}
    harmful: dict[int, float] = {}
    votes_of: dict[int, set[int]] = {}
    for cosine, judgments in sorted(near, key=lambda row: -row[0])[: kernel.neighbours]:
        weight = ((cosine - kernel.theta) / (1 - kernel.theta)) ** kernel.gamma
        for j in judgments:
            helpful[j.lineage] = helpful.get(j.lineage, 0.0) + weight * j.helpful
            harmful[j.lineage] = harmful.get(j.lineage, 0.0) + weight * j.harmful
            votes_of.setdefault(j.lineage, set()).update(j.votes)
    assert found.helpful == pytest.approx(helpful, rel=1e-3, abs=1e-4)
    assert found.harmful == pytest.approx(harmful, rel=1e-3, abs=1e-4)
    assert {p: set(v) for p, v in found.votes.items()} == votes_of


def many(n: int) -> EvidenceView:
    """Past query i, at the cosine 0.95 - i / 1000, says that passage i is helpful."""
    rows = [judged(i, None, (i, 1.0, 0.0)) for i in range(n)]
    return view_of(rows, {name(i): at_cosine(0.95 - i / 1000) for i in range(n)})


def test_exactly_the_32_nearest_past_queries_count() -> None:
    found = evidence(many(50), Kernel(theta=0.5))
    assert set(found.helpful) == set(range(32))
    order = [n.row for n in neighbours(many(50), QUERY, None, Kernel(theta=0.5))]
    assert order == list(range(32))


def test_past_queries_of_other_tenants_take_no_place_among_the_32() -> None:
    rows = [judged(i, '"other"', (i, 1.0, 0.0)) for i in range(40)]
    rows += [judged(100, None, (7, 1.0, 0.0))]
    vectors = {name(i): at_cosine(0.99) for i in range(40)} | {name(100): at_cosine(0.6)}
    found = evidence(view_of(rows, vectors), Kernel(theta=0.5))
    assert found.helpful == pytest.approx({7: 0.2}, rel=1e-5)


def test_past_queries_whose_votes_were_retracted_take_no_place_among_the_32() -> None:
    before = many(32)
    near = judged(500, None, (900, 1.0, 0.0))
    voted = before.updated(dict([near]), {name(500): at_cosine(0.99)})
    assert 31 not in evidence(voted, Kernel(theta=0.5)).helpful
    retracted = voted.updated({near[0]: ()}, {})
    kernel = Kernel(theta=0.5)
    assert evidence(retracted, kernel).helpful == evidence(before, kernel).helpful


def test_a_past_query_at_theta_does_not_count_and_one_just_above_does() -> None:
    above = float(np.nextafter(np.float32(0.5), np.float32(1.0)))
    rows = [judged(1, None, (1, 1.0, 0.0)), judged(2, None, (2, 1.0, 0.0))]
    view = view_of(rows, {name(1): at_cosine(0.5), name(2): at_cosine(above)})
    found = evidence(view, Kernel(theta=0.5))
    assert found.helpful == {2: pytest.approx((above - 0.5) / 0.5, rel=1e-6)}


def test_the_same_query_weighs_one_at_most() -> None:
    longer = QUERY * np.float32(1.0000002)  # rounding in an encoder
    rows = [judged(1, None, (1, 1.0, 0.0))]
    view = view_of(rows, {name(1): longer})
    assert evidence(view, Kernel(theta=0.5, gamma=3.0), longer).helpful == {1: 1.0}


keys = st.tuples(st.integers(0, 30), st.sampled_from([None, '"a"', '"b"']))
verdicts = st.lists(
    st.tuples(st.integers(0, 8), st.integers(0, 3).map(float), st.integers(0, 3).map(float)),
    max_size=3,
    unique_by=lambda vote: vote[0],
)
histories = st.lists(st.dictionaries(keys, verdicts, max_size=20), max_size=12)


def random_unit(number: int) -> Vectors:
    row = np.random.default_rng(number).standard_normal(3)
    return (row / np.linalg.norm(row)).astype(np.float32)


VECTORS = {name(number): random_unit(number) for number in range(31)}
Frozen = tuple[tuple[PastQueryKey, ...], tuple[tuple[Judgment, ...], ...], bytes, list[int]]


def contents(view: EvidenceView) -> Frozen:
    return view.keys, view.judgments, view.vectors.tobytes(), view.tenants.tolist()


def asked(view: EvidenceView) -> list[tuple[Mapping[int, float], Mapping[int, float]]]:
    kernel = Kernel(theta=-0.5)
    found = [
        evidence(view, kernel, random_unit(1000 + q), tenant)
        for q in range(3)
        for tenant in (None, '"a"', '"b"')
    ]
    return [(e.helpful, e.harmful) for e in found]


@given(histories)
def test_views_never_change_and_equal_one_built_at_once(
    history: list[dict[tuple[int, str | None], list[tuple[int, float, float]]]],
) -> None:
    view, final, older = EvidenceView(3), dict[PastQueryKey, tuple[Judgment, ...]](), []
    for step in history:
        changes = dict(judged(number, tenant, *votes) for (number, tenant), votes in step.items())
        older.append((view, contents(view), asked(view)))
        view = view.updated(changes, VECTORS)
        final |= changes
    for old, was, answered in older:
        assert contents(old) == was
        assert asked(old) == answered
    at_once = EvidenceView(3).updated(final, VECTORS)
    assert dict(zip(view.keys, view.judgments, strict=True)) == final
    assert asked(view) == asked(at_once)
    for row, (key, _) in enumerate(zip(view.keys, view.judgments, strict=True)):
        assert view.vectors[row].tobytes() == VECTORS[key[0]].tobytes()


@pytest.mark.parametrize("at_once", [1, 7, 64, 65, 200])
def test_views_keep_their_vectors_while_the_shared_room_grows(at_once: int) -> None:
    vectors = {name(i): random_unit(i) for i in range(400)}
    view, older = EvidenceView(3), []
    for start in range(0, 400, at_once):
        part = range(start, min(start + at_once, 400))
        view = view.updated(dict(judged(i, None, (i, 1.0, 0.0)) for i in part), vectors)
        older.append(view)
    for old in older:
        expected = np.stack([vectors[name(i)] for i in range(len(old.keys))])
        assert old.vectors.tobytes() == expected.tobytes()
        assert [j.lineage for found in old.judgments for j in found] == list(range(len(old.keys)))


def test_a_view_does_not_change_when_two_views_are_made_from_an_older_one() -> None:
    base = view_of([judged(1, None, (1, 1.0, 0.0))], VECTORS)
    first = base.updated(dict([judged(2, None, (2, 1.0, 0.0))]), VECTORS)
    was, answered = contents(first), asked(first)
    base.updated(dict([judged(3, None, (3, 1.0, 0.0))]), VECTORS)
    assert contents(first) == was
    assert asked(first) == answered


@given(histories)
def test_tenants_never_see_each_others_votes(
    history: list[dict[tuple[int, str | None], list[tuple[int, float, float]]]],
) -> None:
    view = EvidenceView(3)
    votes_of: dict[str | None, set[int]] = {None: set(), '"a"': set(), '"b"': set(), '"c"': set()}
    serial = 0
    for step in history:
        changes = {}
        for (number, tenant), votes in step.items():
            made = []
            for lineage, helpful, harmful in votes:
                serial += 1
                votes_of[tenant].add(serial)
                made.append(Judgment(name(number), tenant, lineage, helpful, harmful, (serial,)))
            changes[(name(number), tenant)] = tuple(made)
        view = view.updated(changes, VECTORS)
    for tenant, own in votes_of.items():
        found = evidence(view, Kernel(theta=-0.99), random_unit(77), tenant)
        assert {vote for votes in found.votes.values() for vote in votes} <= own
