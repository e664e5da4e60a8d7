"""Evidence against sums worked in plain Python, and views that never change."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.rank.evidence import (
    NO_VOTES,
    Asked,
    Evidence,
    EvidenceView,
    SameNeed,
    Unjudged,
    evidence_for,
    same_chance,
)
from rag_flywheel.rank.parameters import Kernel
from rag_flywheel.rank.posterior import NAMED
from rag_flywheel.rank.stored_evidence import PastQuery
from rag_flywheel.records import QueryKey, Support, Vectors
from thorough import thorough
from voted import asked as queries_of

QUERY = np.array([1.0, 0.0, 0.0], dtype=np.float32)


def at_cosine(cosine: float) -> Vectors:
    """A unit vector at this cosine to QUERY."""
    return np.array([cosine, math.sqrt(1.0 - cosine * cosine), 0.0], dtype=np.float32)


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


Said = tuple[QueryKey, PastQuery]


def past_query(number: int, tenant: str | None = None, *chances: tuple[int, float]) -> Said:
    """A past query, the (lineage, chance) after its votes, and one vote for each, numbered from it."""
    supports = tuple(Support(lineage, chance) for lineage, chance in chances)
    votes = tuple(number * 100 + i for i in range(len(chances)))
    return QueryKey(name(number), tenant), PastQuery(supports, votes)


def view_of(rows: Sequence[Said], vectors: Mapping[bytes, Vectors]) -> EvidenceView:
    return EvidenceView(3).updated(dict(rows), vectors)


def evidence(
    view: EvidenceView, kernel: Kernel, query: Vectors = QUERY, tenant: str | None = None
) -> Evidence:
    (found,) = evidence_for(view, queries_of(query[None, :]), tenant, kernel)
    return found


def test_hand_worked_sums() -> None:
    rows = [
        past_query(1, None, (10, 0.75), (11, 0.25)),  # cos 1.0 -> K 1
        past_query(2, None, (10, 0.5)),  # cos 0.75 -> K 0.5
        past_query(3, None, (10, 0.5), (12, 0.5)),  # cos 0.25 -> 0
    ]
    vectors = {name(1): at_cosine(1.0), name(2): at_cosine(0.75), name(3): at_cosine(0.25)}
    found = evidence(view_of(rows, vectors), Kernel(theta=0.5, gamma=1.0))
    assert found.support == pytest.approx({10: 0.75 + 0.5 * 0.5, 11: 0.25})
    assert found.votes == {10: (100, 101, 200), 11: (100, 101)}  # each vote moves all chances
    assert found.amounts(np.array([12, 11, 10])).tolist() == pytest.approx([0.0, 0.25, 1.0])


def test_gamma_is_the_power_of_the_weight() -> None:
    view = view_of([past_query(1, None, (10, 0.8))], {name(1): at_cosine(0.75)})
    found = evidence(view, Kernel(theta=0.5, gamma=4.0))
    assert found.support == pytest.approx({10: 0.8 / 16}, rel=1e-5)  # K = 0.5 ** 4


def test_no_evidence_is_zero_for_every_passage() -> None:
    found = evidence(EvidenceView(3), Kernel()).amounts(np.array([1, 2]))
    assert found.tolist() == [0.0, 0.0]
    assert found.dtype == np.dtype(np.float64)


def test_without_neighbours_the_memory_is_off() -> None:
    view = view_of([past_query(1, None, (10, 1.0))], {name(1): QUERY})
    assert evidence(view, Kernel(neighbours=0)) == Evidence({})


def test_a_past_query_whose_votes_favour_nothing_takes_a_place_but_adds_nothing() -> None:
    nothing = (QueryKey(name(1), None), PastQuery((), (7, 8)))
    view = view_of([nothing, past_query(2, None, (10, 0.5))], {name(i): QUERY for i in (1, 2)})
    found = evidence(view, Kernel())
    assert (found.support, found.votes) == ({10: 0.5}, {10: (200,)})
    assert evidence(view, Kernel(neighbours=1)).support == {}


permilles = st.lists(st.integers(-999, 1000), min_size=1, max_size=60, unique=True)
kernels = st.builds(
    Kernel,
    theta=st.integers(-900, 990).map(lambda t: (t + 0.5) / 1000),  # never on a cosine
    gamma=st.sampled_from([0.5, 1.0, 2.0, 3.7]),
    neighbours=st.integers(0, 40),
)


@thorough(40, few=10)
@given(permilles, kernels, st.integers(0, 2**32))
def test_sums_equal_plain_python(cosines: list[int], kernel: Kernel, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, vectors = [], {}
    for number, permille in enumerate(cosines):
        chances = {int(p): float(rng.random()) for p in rng.integers(9, size=3)}
        tenant = None if rng.random() < 0.7 else '"b"'
        rows.append(past_query(number, tenant, *chances.items()))
        vectors[name(number)] = at_cosine(permille / 1000)
    found = evidence(view_of(rows, vectors), kernel)

    near = [
        (c / 1000, past)
        for c, ((_, tenant), past) in zip(cosines, rows, strict=True)
        if tenant is None and c / 1000 > kernel.theta
    ]
    support: dict[int, float] = {}
    votes_of: dict[int, set[int]] = {}
    for cosine, past in sorted(near, key=lambda row: -row[0])[: kernel.neighbours]:
        weight = ((cosine - kernel.theta) / (1 - kernel.theta)) ** kernel.gamma
        for s in past.supports:
            support[s.lineage] = support.get(s.lineage, 0.0) + weight * s.chance
            votes_of.setdefault(s.lineage, set()).update(past.votes)
    assert found.support == pytest.approx(support, rel=1e-3, abs=1e-4)
    assert {p: sorted(v) for p, v in found.votes.items()} == {
        p: sorted(v) for p, v in votes_of.items()
    }
    lineages = np.arange(-1, 10)
    expected = [found.support.get(p, 0.0) for p in range(-1, 10)]
    assert found.amounts(lineages).tolist() == expected


def many(n: int) -> EvidenceView:
    """Past query i, at the cosine 0.95 - i / 1000, says that passage i is its answer."""
    rows = [past_query(i, None, (i, 1.0)) for i in range(n)]
    return view_of(rows, {name(i): at_cosine(0.95 - i / 1000) for i in range(n)})


def test_exactly_the_32_nearest_past_queries_count() -> None:
    found = evidence(many(50), Kernel(theta=0.5))
    assert set(found.support) == set(range(32))
    order = [past.supports[0].lineage for past in found.behind]
    assert order == list(range(32))


def test_many_queries_at_once_are_each_on_their_own() -> None:
    queries = np.stack([at_cosine(i / 200) for i in range(200)])  # more than are taken at a time
    together = evidence_for(many(50), queries_of(queries), None, Kernel(theta=0.5))
    for query, found in zip(queries, together, strict=True):
        alone = evidence(many(50), Kernel(theta=0.5), query)
        assert found.support == pytest.approx(alone.support, rel=1e-5, abs=1e-7)


def test_the_strongest_have_the_largest_sums_and_ties_keep_their_numbers() -> None:
    found = Evidence({5: 0.1, 3: 0.9, 8: 0.4, 2: 0.4})
    assert found.strongest(3) == [3, 2, 8]
    assert sorted(found.strongest(9)) == [2, 3, 5, 8]


def test_past_queries_of_other_tenants_take_no_place_among_the_32() -> None:
    rows = [past_query(i, '"other"', (i, 1.0)) for i in range(40)]
    rows += [past_query(100, None, (7, 1.0))]
    vectors = {name(i): at_cosine(0.99) for i in range(40)} | {name(100): at_cosine(0.6)}
    found = evidence(view_of(rows, vectors), Kernel(theta=0.5, gamma=1.0))
    assert found.support == pytest.approx({7: 0.2}, rel=1e-5)


def test_past_queries_whose_votes_were_retracted_take_no_place_among_the_32() -> None:
    before = many(32)
    near = past_query(500, None, (900, 1.0))
    voted = before.updated(dict([near]), {name(500): at_cosine(0.99)})
    assert 31 not in evidence(voted, Kernel(theta=0.5)).support
    retracted = voted.updated({near[0]: NO_VOTES}, {})
    kernel = Kernel(theta=0.5)
    assert evidence(retracted, kernel).support == evidence(before, kernel).support


def test_a_past_query_at_theta_does_not_count_and_one_just_above_does() -> None:
    above = float(np.nextafter(np.float32(0.5), np.float32(1.0)))
    rows = [past_query(1, None, (1, 1.0)), past_query(2, None, (2, 1.0))]
    view = view_of(rows, {name(1): at_cosine(0.5), name(2): at_cosine(above)})
    found = evidence(view, Kernel(theta=0.5, gamma=1.0))
    assert found.support == {2: pytest.approx((above - 0.5) / 0.5, rel=1e-6)}


def test_the_same_query_weighs_one_at_most() -> None:
    longer = QUERY * np.float32(1.0000002)  # rounding in an encoder
    rows = [past_query(1, None, (1, 1.0))]
    view = view_of(rows, {name(1): longer})
    assert evidence(view, Kernel(theta=0.5, gamma=3.0), longer).support == {1: 1.0}


keys = st.tuples(st.integers(0, 30), st.sampled_from([None, '"a"', '"b"']))
chances = st.lists(
    st.tuples(st.integers(0, 8), st.floats(0.01, 1.0)), max_size=3, unique_by=lambda c: c[0]
)
histories = st.lists(st.dictionaries(keys, chances, max_size=20), max_size=12)
History = list[dict[tuple[int, str | None], list[tuple[int, float]]]]


def random_unit(number: int) -> Vectors:
    row = np.random.default_rng(number).standard_normal(3)
    return (row / np.linalg.norm(row)).astype(np.float32)


VECTORS = {name(number): random_unit(number) for number in range(31)}
Frozen = tuple[list[QueryKey], list[PastQuery], bytes, list[list[bool]]]


def contents(view: EvidenceView) -> Frozen:
    tenants = [view.of_tenant(code).tolist() for code in view.tenant_codes.values()]
    return list(view.keys), all_said(view), view.vectors.tobytes(), tenants


def all_said(view: EvidenceView) -> list[PastQuery]:
    return [view.past_query(row) for row in range(view.n)]


def answers(view: EvidenceView) -> list[tuple[Mapping[int, float], Mapping[int, tuple[int, ...]]]]:
    kernel = Kernel(theta=-0.5)
    found = [
        evidence(view, kernel, random_unit(1000 + q), tenant)
        for q in range(3)
        for tenant in (None, '"a"', '"b"')
    ]
    return [(e.support, e.votes) for e in found]


@thorough(40, few=10)
@given(histories)
def test_views_never_change_and_equal_one_built_at_once(history: History) -> None:
    view, final, older = EvidenceView(3), dict[QueryKey, PastQuery](), []
    for step in history:
        changes = dict(
            past_query(number, tenant, *found) for (number, tenant), found in step.items()
        )
        older.append((view, contents(view), answers(view)))
        view = view.updated(changes, VECTORS)
        final |= changes
    for old, was, answered in older:
        assert contents(old) == was
        assert answers(old) == answered
    at_once = EvidenceView(3).updated(final, VECTORS)
    assert dict(zip(view.keys, all_said(view), strict=True)) == final
    assert answers(view) == answers(at_once)
    for row, key in enumerate(view.keys):
        assert view.vectors[row].tobytes() == VECTORS[key[0]].tobytes()


@pytest.mark.parametrize("at_once", [1, 7, 64, 65, 200])
def test_views_keep_their_vectors_while_the_shared_room_grows(at_once: int) -> None:
    vectors = {name(i): random_unit(i) for i in range(400)}
    view, older = EvidenceView(3), []
    for start in range(0, 400, at_once):
        part = range(start, min(start + at_once, 400))
        view = view.updated(dict(past_query(i, None, (i, 1.0)) for i in part), vectors)
        older.append(view)
    for old in older:
        expected = np.stack([vectors[name(i)] for i in range(old.n)])
        assert old.vectors.tobytes() == expected.tobytes()
        assert [s.lineage for past in all_said(old) for s in past.supports] == list(range(old.n))


def test_a_view_does_not_change_when_two_views_are_made_from_an_older_one() -> None:
    base = view_of([past_query(1, None, (1, 1.0))], VECTORS)
    first = base.updated(dict([past_query(2, None, (2, 1.0))]), VECTORS)
    was, answered = contents(first), answers(first)
    base.updated(dict([past_query(3, None, (3, 1.0))]), VECTORS)
    assert contents(first) == was
    assert answers(first) == answered


@thorough(40, few=10)
@given(histories)
def test_tenants_never_see_each_others_votes(history: History) -> None:
    view = EvidenceView(3)
    votes_of: dict[str | None, set[int]] = {None: set(), '"a"': set(), '"b"': set(), '"c"': set()}
    serial = 0
    for step in history:
        changes = {}
        for (number, tenant), found in step.items():
            serial += 1
            votes_of[tenant].add(serial)
            supports = tuple(Support(lineage, chance) for lineage, chance in found)
            changes[QueryKey(name(number), tenant)] = PastQuery(supports, (serial,))
        view = view.updated(changes, VECTORS)
    for tenant, own in votes_of.items():
        seen = evidence(view, Kernel(theta=-0.99), random_unit(77), tenant)
        assert {vote for votes in seen.votes.values() for vote in votes} <= own


NAME = b"n" * 16


def voted(lineage: int, chance: float, log_odds: float, *, named: bool = False) -> Support:
    return Support(lineage, chance, log_odds, named)


def of_same_need(cosine: float, *supports: Support, own: bool = False) -> Evidence:
    """The evidence of one past query at this cosine, for the same words or for others."""
    key = QueryKey(NAME, None)
    row = np.array([cosine, math.sqrt(1.0 - cosine**2), 0.0], dtype=np.float32)
    view = EvidenceView(3).updated({key: PastQuery(supports, (7,))}, {NAME: row})
    query = Asked(QUERY, NAME if own else b"o" * 16, 0.0)
    (found,) = evidence_for(view, [query], None, Kernel(theta=0.5, gamma=1.0))
    return found


def test_votes_on_the_same_words_count_in_full_and_not_as_a_neighbours() -> None:
    found = of_same_need(1.0, voted(5, 0.9, 4.2), voted(6, 0.0, -2.8), own=True)
    assert found.same.log_odds == {5: 4.2, 6: -2.8}
    assert (found.support, found.votes) == ({}, {5: (7,), 6: (7,)})
    off = Kernel(neighbours=0)
    key, past = QueryKey(NAME, None), PastQuery((voted(5, 0.9, 4.2),), (7,))
    view = EvidenceView(3).updated({key: past}, {NAME: QUERY})
    (alone,) = evidence_for(view, [Asked(QUERY, NAME, 0.0)], None, off)
    assert alone.same.log_odds == {5: 4.2}
    assert evidence_for(view, [Asked(QUERY, NAME, 0.0)], "other", off) == [Evidence({})]
    silent = view.updated({key: NO_VOTES}, {})
    (nothing,) = evidence_for(silent, [Asked(QUERY, NAME, 0.0)], None, off)
    assert (nothing.support, nothing.same) == ({}, SameNeed())


def test_votes_on_near_duplicates_count_by_the_chance_that_they_ask_the_same() -> None:
    odds = math.log(64.0)  # three of four votes right
    chance = 16.0 / 17.0  # so it was 0.2 before them
    found = of_same_need(0.95, voted(5, chance, odds), voted(6, 0.3, 0.0))
    mean = 0.2 * 64.0 + 0.8
    expected = math.log((0.97 * 64.0 + 0.03 * mean) / (0.97 + 0.03 * mean))
    assert found.same.log_odds == {5: pytest.approx(expected, rel=1e-5)}
    assert found.support[6] == pytest.approx(0.03 * 0.9 * 0.3, rel=1e-4)
    for cosine, same in ((0.85, 0.0), (0.9, 0.485), (0.95, 0.97), (1.0, 0.97)):
        assert same_chance(np.array([cosine]), 0.97) == pytest.approx([same])
    further = of_same_need(0.9, voted(5, chance, odds)).same.log_odds[5]
    assert 0.0 < further < expected < odds
    assert of_same_need(0.84, voted(5, chance, odds)).same == SameNeed()


@thorough(60, few=15)
@given(st.floats(0.8, 1.0), st.floats(0.001, 0.999), st.floats(-30.0, 30.0))
def test_a_near_duplicate_never_counts_more_than_the_same_words(
    cosine: float, chance: float, log_odds: float
) -> None:
    moved = of_same_need(cosine, voted(5, chance, log_odds)).same.log_odds.get(5, 0.0)
    assert abs(moved) <= abs(log_odds) + 1e-9
    assert moved * log_odds >= 0.0


def test_a_passage_that_users_named_has_a_least_chance() -> None:
    named = voted(5, 0.9, 4.2, named=True)
    assert of_same_need(1.0, named, own=True).same.least == {5: NAMED}
    assert of_same_need(0.9, named).same.least == {5: pytest.approx(0.485 * NAMED, rel=1e-4)}


def test_passages_called_helpful_for_the_same_question_are_the_strongest() -> None:
    same = SameNeed({9: 1.4, 2: -1.4, 7: 1.4})
    found = Evidence({5: 0.1, 3: 0.9, 7: 0.2}, same=same)
    assert found.strongest(3) == [7, 9, 3]
    assert sorted(found.strongest(10)) == [3, 5, 7, 9]


def filler(
    vectors: Mapping[bytes, Vectors],
) -> Callable[[Sequence[bytes], Vectors], None]:
    """What puts these vectors of hashes into the rows of an array."""

    def fill(hashes: Sequence[bytes], rows: Vectors) -> None:
        for i, each in enumerate(hashes):
            rows[i] = vectors[each]

    return fill


@thorough(40, few=10)
@given(histories)
def test_unjudged_queries_of_any_tenants_say_what_judged_ones_say(history: History) -> None:
    """Also where tenants ask the same, and where a query was judged before."""
    waiting, prompt = EvidenceView(3), EvidenceView(3)
    said = dict[QueryKey, PastQuery]()
    for i, step in enumerate(history):
        changes = dict(
            past_query(number, tenant, *found) for (number, tenant), found in step.items()
        )
        said |= changes
        prompt = prompt.updated(changes, VECTORS)
        if i % 3 == 2:
            waiting = waiting.updated(changes, VECTORS)
            continue
        questions: dict[str | None, list[bytes]] = {}
        for name_of, tenant in changes:
            questions.setdefault(tenant, []).append(name_of)
        now = dict(said)
        unjudged = Unjudged(lambda keys, now=now: {key: now[key] for key in keys}, {})
        older, before = waiting, contents(waiting)
        waiting = waiting.with_unjudged(questions, unjudged, filler(VECTORS))
        assert contents(older) == before
    assert sorted(waiting.keys, key=repr) == sorted(prompt.keys, key=repr) == sorted(said, key=repr)
    assert waiting.of_queries(list(said)) == said
    for row, key in enumerate(waiting.keys):
        assert waiting.vectors[row].tobytes() == VECTORS[key[0]].tobytes()
    for found, expected in zip(answers(waiting), answers(prompt), strict=True):
        assert found[0] == pytest.approx(expected[0], abs=1e-6)  # cosines are float32


def test_unjudged_queries_are_judged_together_when_they_count_and_silent_ones_give_way() -> None:
    cosines = {1: 0.99, 2: 0.97, 3: 0.95, 4: 0.93, 5: 0.2}
    said = dict(past_query(i, None, (10 + i, 0.5)) for i in cosines)
    silent = QueryKey(name(2), None)
    vectors = {name(i): at_cosine(cosine) for i, cosine in cosines.items()}
    asked: list[list[int]] = []

    def judge(keys: Sequence[QueryKey]) -> Mapping[QueryKey, PastQuery]:
        asked.append(sorted(int.from_bytes(key.query_hash) for key in keys))
        return {key: said[key] for key in keys if key != silent}

    questions = {None: [key.query_hash for key in said]}
    view = EvidenceView(3).with_unjudged(questions, Unjudged(judge, {}), filler(vectors))
    kernel = Kernel(theta=0.5, gamma=1.0, neighbours=3)
    found = evidence(view, kernel)
    heard = {key: past for key, past in said.items() if key != silent}
    assert found == evidence(view_of(list(heard.items()), vectors), kernel)
    assert asked == [[1, 2, 3], [4]]
    assert evidence(view, kernel) == found
    assert len(asked) == 2
    assert view.row_of(*silent) is None
    assert view.row_of(name(5), None) == 4
    assert asked[2:] == [[5]]
    again = view.updated({silent: said[silent]}, {})
    assert again.row_of(*silent) == 1
