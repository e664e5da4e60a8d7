"""Rows of numbers that are added all the time: what has a number is what counting one by one finds."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_flywheel.index.growing import GrowingArray, GrowingRows
from rag_flywheel.index.postings import Postings, n_rows_with
from thorough import thorough

N = 12  # numbers
rows = st.lists(st.lists(st.integers(0, N - 1), max_size=9), max_size=12)


def with_rows(postings: Postings, new: Sequence[Sequence[int]]) -> Postings:
    ids = np.array([number for row in new for number in row], dtype=np.int32)
    return postings.with_rows(ids, np.array([len(row) for row in new], dtype=np.int64))


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag_flywheel.index.postings._UNSORTED", 6)
    monkeypatch.setattr("rag_flywheel.index.postings._LARGEST_PART", 60)


def check(postings: Postings, every: Sequence[Sequence[int]], asked: Sequence[int]) -> None:
    """Whether the postings have just these rows."""
    found = postings.having(asked)
    pairs = zip(found.which.tolist(), found.row.tolist(), found.count.tolist(), strict=True)
    expected = {
        (place, i, Counter(row)[number])
        for place, number in enumerate(asked)
        for i, row in enumerate(every)
        if number in row
    }
    listed = list(pairs)
    assert len(listed) == len(set(listed))
    assert set(listed) == expected
    last: dict[int, int] = {}
    for place, row, _ in listed:
        assert last.get(row, -1) < place  # so that the scores of a row add up in their order
        last[row] = place
    assert postings.n_rows_with(N).tolist() == [sum(i in row for row in every) for i in range(N)]
    assert postings.lengths().tolist() == [len(row) for row in every]
    assert postings.ids.tolist() == [number for row in every for number in row]


@thorough(80, few=25)
@given(st.lists(rows, max_size=8), st.lists(st.integers(0, N + 3), unique=True, max_size=6))
def test_rows_are_found_whatever_parts_they_are_in(
    steps: list[list[list[int]]], asked: list[int]
) -> None:
    postings, every = Postings.empty(), list[list[int]]()
    earlier = [(postings, 0)]
    for new in steps:
        postings = with_rows(postings, new)
        every += new
        earlier.append((postings, len(every)))
    for before, n in earlier:  # what was made first is as it was
        assert before.n == n
        check(before, every[:n], asked)
    at = np.arange(len(every))[::-1]
    ids, lengths = postings.at(at)
    assert ids.tolist() == [number for row in every[::-1] for number in row]
    assert n_rows_with(ids, lengths, N).tolist() == postings.n_rows_with(N).tolist()


def test_parts_stay_few() -> None:
    postings = Postings.empty()
    for i in range(300):
        postings = with_rows(postings, [[i % N, (i * 7) % N]])
    assert len(postings._parts) < 20  # of 60 entries at most, for 600
    sizes = [part.n_entries for part in postings._parts]
    assert max(sizes) <= 60 and sum(sizes) >= 590


def test_rows_are_added_to_the_newest_alone() -> None:
    first = with_rows(Postings.empty(), [[1], [2]])
    with_rows(first, [[3]])
    with pytest.raises(ValueError, match="other rows"):
        with_rows(first, [[4]])


@thorough(40, few=15)
@given(st.lists(st.lists(st.integers(-9, 9), max_size=200), max_size=6))
def test_an_array_grows_and_what_was_read_stays(steps: list[list[int]]) -> None:
    grown, every = GrowingArray(np.int32), list[int]()
    seen = []
    for new in steps:
        grown.append(new)
        every += new
        seen.append((grown.first(grown.n), len(every)))
    for entries, n in seen:
        assert entries.tolist() == every[:n]


@thorough(40, few=15)
@given(st.lists(st.integers(0, 150), max_size=6), st.integers(0, 2**32 - 1))
def test_vectors_are_kept_in_blocks(sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rag_flywheel.index.growing._BLOCK", 100)
        kept = GrowingRows(3)
        every = np.empty((0, 3), np.float32)
        for size in sizes:
            new = rng.standard_normal((size, 3), np.float32)
            kept.append(new)
            every = np.concatenate([every, new])
        query = rng.standard_normal(3, np.float32)
        for n in {0, len(every) // 2, len(every)}:
            expected = every[:n] @ query
            assert kept.products(query, n).tolist() == pytest.approx(expected.tolist(), abs=1e-5)
        at = rng.integers(max(len(every), 1), size=20 if len(every) else 0)
        assert kept.at(at).tolist() == every[at].tolist()
