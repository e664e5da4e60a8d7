"""Groups of near-duplicate queries against a walk through all pairs, and who is held out."""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rag_flywheel.curate.groups import held_out, query_groups
from rag_flywheel.records import Vectors
from thorough import thorough


def at_degrees(degrees: Sequence[float]) -> Vectors:
    """Unit vectors in the plane at these angles; the cosine of 25 degrees is 0.906, of 26 0.899.

    With the opposite of each among them, the typical cosine is 0 and 0.9 is the least of a link.
    """
    angles = np.radians(np.array(degrees, dtype=np.float64))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def reached(linked: Sequence[Sequence[bool]], start: int) -> frozenset[int]:
    """Everything that one comes to from `start` by links."""
    found, waiting = {start}, [start]
    while waiting:
        here = waiting.pop()
        new = [i for i, link in enumerate(linked[here]) if link and i not in found]
        found.update(new)
        waiting.extend(new)
    return frozenset(found)


def together(groups: Sequence[int]) -> set[frozenset[int]]:
    members: dict[int, set[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, set()).add(i)
    return {frozenset(found) for found in members.values()}


def brute_force(linked: Sequence[Sequence[bool]]) -> set[frozenset[int]]:
    return {reached(linked, i) for i in range(len(linked))}


def cosines_of(degrees: Sequence[float]) -> list[list[float]]:
    return [[math.cos(math.radians(a - b)) for b in degrees] for a in degrees]


def typical(cosines: Sequence[Sequence[float]]) -> float:
    """The mean cosine of two different queries, not below 0."""
    pairs = [c for i, row in enumerate(cosines) for j, c in enumerate(row) if i != j]
    return max(math.fsum(pairs) / len(pairs), 0.0) if pairs else 0.0


all_around = st.lists(st.integers(0, 359), max_size=45)
in_a_corner = st.lists(st.integers(0, 90), max_size=45)


@thorough(60, few=15)
@given(all_around | in_a_corner)
def test_groups_equal_a_walk_through_all_pairs(degrees: list[int]) -> None:
    cosines = cosines_of(degrees)
    c = min(typical(cosines), 0.9)
    least = c + 0.9 * (1 - c)
    assume(all(abs(cosine - least) > 1e-5 for row in cosines for cosine in row))
    linked = [[cosine >= least for cosine in row] for row in cosines]
    found = query_groups(at_degrees(degrees))
    assert together(found.tolist()) == brute_force(linked)
    assert found.dtype == np.int64


@thorough(60, few=15)
@given(all_around | in_a_corner, st.floats(0.0, 0.8))
def test_groups_are_the_same_where_all_cosines_are_squeezed_together(
    degrees: list[int], squeeze: float
) -> None:
    cosines = cosines_of(degrees)
    c = typical(cosines)
    assume(c > 0 and squeeze + (1 - squeeze) * c < 0.9)
    least = c + 0.9 * (1 - c)
    assume(all(abs(cosine - least) > 1e-5 for row in cosines for cosine in row))
    plain = at_degrees(degrees)
    same = np.full((len(degrees), 1), np.sqrt(squeeze))  # a part that every query has
    squeezed = np.hstack([np.sqrt(1 - squeeze) * plain, same]).astype(np.float32)
    assert query_groups(squeezed).tolist() == query_groups(plain).tolist()


def test_groups_reach_over_blocks_of_rows() -> None:
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((2100, 32))
    vectors[1500] = vectors[3] + 1e-3
    vectors[2099] = vectors[1500]
    vectors[1024] = vectors[1023]
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    found = query_groups(unit)
    assert {g for g in together(found.tolist()) if len(g) > 1} == {
        frozenset({3, 1500, 2099}),
        frozenset({1023, 1024}),
    }


def test_links_are_followed_and_need_a_cosine_of_nine_tenths() -> None:
    half = [0.0, 50.0, 25.0, 76.0]
    found = query_groups(at_degrees([*half, *(180 + d for d in half)]))
    assert together(found.tolist()) == {
        frozenset({0, 1, 2}),  # 0 - 25 - 50, though 0 and 50 are far apart
        frozenset({3}),
        frozenset({4, 5, 6}),
        frozenset({7}),
    }


def test_in_a_narrow_domain_a_link_takes_more() -> None:
    # the typical cosine is 0.66, so a link takes 0.966: 15 degrees, no longer 25
    assert together(query_groups(at_degrees([0, 20, 62, 75])).tolist()) == {
        frozenset({0}),
        frozenset({1}),
        frozenset({2, 3}),
    }


@pytest.mark.parametrize("n", [0, 1, 20, 21, 50, 64, 65, 300])
def test_copies_are_one_group_however_many(n: int) -> None:
    same = at_degrees([10.0] * n).reshape(n, 2)
    assert len(set(query_groups(same).tolist())) == min(n, 1)


@pytest.mark.parametrize("n", [21, 50, 300])
def test_spellings_that_differ_a_little_are_one_group_beside_others(n: int) -> None:
    rng = np.random.default_rng(n)
    near = rng.standard_normal(64) + 0.2 * rng.standard_normal((n, 64))
    vectors = np.vstack([near, rng.standard_normal((4 * n, 64))])
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    found = query_groups(unit).tolist()
    assert len(set(found[:n])) == 1
    assert len(set(found)) == 4 * n + 1


@pytest.mark.parametrize("n", [22, 120])
def test_a_chain_is_one_group_and_leaves_the_others(n: int) -> None:
    chain, pair = [110.0 * i / n for i in range(n)], [200.0, 201.0]
    found = query_groups(at_degrees([pair[0], *chain, pair[1]])).tolist()
    assert found[0] == found[-1]
    assert len(set(found)) == 2
    assert len(set(found[1:-1])) == 1


def test_two_clumps_of_more_copies_than_are_looked_at_are_one_group() -> None:
    half = [0.0] * 70 + [10.0] * 70
    found = query_groups(at_degrees([*half, *(180 + d for d in half)]))
    assert len(set(found.tolist())) == 2


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def chosen(hashes: Sequence[bytes], groups: Sequence[int]) -> dict[bytes, bool]:
    found = held_out(hashes, np.array(groups, dtype=np.int64))
    assert found.dtype == np.bool_
    return dict(zip(hashes, found.tolist(), strict=True))


def test_nobody_is_held_out_of_nothing() -> None:
    assert chosen([], []) == {}


@pytest.mark.parametrize("members", [1, 3])
def test_about_a_third_of_the_groups_is_held_out(members: int) -> None:
    n = 6000
    hashes = [name(i) for i in range(n * members)]
    share = sum(chosen(hashes, [i // members for i in range(n * members)]).values()) / len(hashes)
    # four standard deviations of a count of groups
    assert share == pytest.approx(1 / 3, abs=4 * math.sqrt(1 / 3 * 2 / 3 / n))


def test_who_is_held_out_is_the_hash_of_a_hash_modulo_three() -> None:
    """Written down here, since other judges in a later release would have seen what is fitted."""
    found = chosen([name(i) for i in range(12)], range(12))
    expected = [
        int(hashlib.blake2b(name(i), digest_size=8).hexdigest(), 16) % 3 == 0 for i in range(12)
    ]
    assert list(found.values()) == expected
    assert 0 < sum(expected) < 12


memberships = st.lists(st.integers(0, 12), min_size=1, max_size=40)


@thorough(40, few=10)
@given(memberships, st.randoms(use_true_random=False).map(lambda r: r.randrange(2**100)))
def test_groups_are_held_out_whole_and_their_numbers_do_not_matter(
    groups: list[int], first: int
) -> None:
    hashes = [name(first + 7919 * i) for i in range(len(groups))]
    found = chosen(hashes, groups)
    for members in together(groups):
        assert len({found[hashes[i]] for i in members}) == 1
    assert chosen(hashes, [100 - g for g in groups]) == found
    backwards = chosen(hashes[::-1], groups[::-1])
    assert backwards == found


@thorough(60, few=15)
@given(memberships, memberships, st.data())
def test_a_choice_stands_while_other_queries_come_and_go(
    groups: list[int], others: list[int], data: st.DataObject
) -> None:
    numbers = data.draw(
        st.lists(
            st.integers(0, 2**100),
            min_size=len(groups) + len(others),
            max_size=len(groups) + len(others),
            unique=True,
        )
    )
    hashes = [name(number) for number in numbers]
    own, more = hashes[: len(groups)], hashes[len(groups) :]
    before = chosen(own, groups)
    # others come, in groups of their own; then those of a group go that are not its smallest
    assert before.items() <= chosen(more + own, [1000 + g for g in others] + groups).items()
    smallest = {g: min(h for h, of in zip(own, groups, strict=True) if of == g) for g in groups}
    assert chosen(list(smallest.values()), list(smallest)).items() <= before.items()
    larger = [max(own) + b"+" for _ in groups]
    joined = chosen([*own, *(h + bytes([i]) for i, h in enumerate(larger))], groups + groups)
    assert before.items() <= joined.items()
