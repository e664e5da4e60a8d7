"""What is remembered of queries never changes an answer: an index that remembers, and one that
does not, go through the same changes and are asked the same."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fakes import WordEncoder
from rag_flywheel import Config, Flywheel, Passage, Retrieval, Vote
from rag_flywheel.rank.features import Best
from rag_flywheel.records import EmbeddedText, Vectors
from rag_flywheel.serve.lookups import Lookup, Lookups, QueryVectors

WORDS = [f"word{i}" for i in range(25)]
QUERIES = [f"{a} {b} common" for a, b in zip(WORDS, WORDS[7:] + WORDS[:7], strict=True)]
Hits = list[list[tuple[str, float, float]]]


def passage(name: int, rng: np.random.Generator) -> Passage:
    words = " ".join(rng.choice(WORDS, 6))
    return Passage(f"p{name}", f"common {words}", metadata={"even": name % 2 == 0})


def opened(root: Path, n_lookups: int) -> Flywheel:
    return Flywheel.open(
        root, encoder=WordEncoder(), config=Config(encoder="", n_lookups=n_lookups)
    )


def answers(fw: Flywheel) -> Hits:
    found = [fw.retrieve(q, record=False) for q in QUERIES]
    found += fw.retrieve_many(QUERIES, 30, where={"even": True}, record=False)
    return [[(h.passage_id, h.score, h.explanation.evidence) for h in one.hits] for one in found]


def vote(fw: Flywheel, shown: Retrieval, rng: np.random.Generator) -> None:
    votes = [
        Vote(shown.id, h.passage_id, "helpful" if rng.random() < 0.6 else "harmful", "ann")
        for h in shown.hits[:4]
    ]
    fw.feedback_many(votes)


def live(root: Path, n_lookups: int, steps: list[int]) -> list[Hits]:
    """What queries get after each of these changes."""
    rng, found = np.random.default_rng(0), []
    with opened(root, n_lookups) as fw:
        fw.add([passage(i, rng) for i in range(140)])  # more than the words are looked at of
        for number, step in enumerate(steps):
            if step == 0:
                fw.refresh()
            elif step == 1:
                fw.add([passage(200 + number, rng), passage(number, rng)])  # a new one, an edit
            elif step == 2:
                fw.remove([f"p{100 + number}"])
            else:
                for query in rng.permutation(QUERIES)[:10]:
                    vote(fw, fw.retrieve(str(query)), rng)
            found.append(answers(fw))
    return found


def alike(some: list[Hits], others: list[Hits]) -> bool:
    """Whether they are the same, but for what products of batches of other sizes are rounded to."""

    def flat(found: list[Hits]) -> tuple[list[str], list[float]]:
        hits = [hit for answers in found for hits in answers for hit in hits]
        return [hit[0] for hit in hits], [value for hit in hits for value in hit[1:]]

    (names, values), (other_names, other_values) = flat(some), flat(others)
    return names == other_names and values == pytest.approx(other_values, abs=1e-8)


@pytest.mark.slow
def test_answers_do_not_hang_on_what_is_remembered(tmp_path: Path) -> None:
    steps = [0, 3, 0, 3, 1, 3, 0, 2, 3, 0]
    forgetful = live(tmp_path / "forgetful", 0, steps)
    assert alike(live(tmp_path / "remembers", 1000, steps), forgetful)
    assert alike(live(tmp_path / "remembers few", 7, steps), forgetful)
    moved = [a != b for a, b in zip(forgetful[1:], forgetful, strict=False)]
    assert sum(moved) > len(steps) // 2  # the changes do change answers


def blank(n: int) -> Lookup:
    """A lookup of n candidates that says nothing of them."""
    features = np.zeros((n, 9), np.float32)
    return Lookup(np.arange(n), features, np.ones(n, bool), Best(0.0, 0.0, 0.0, 0.0), 0.0)


def test_a_lookup_is_found_for_the_same_query_corpus_and_number_alone() -> None:
    query, other = (
        EmbeddedText(text, np.ones(3, dtype=np.float32) / np.float32(3**0.5)) for text in "ab"
    )
    lookup = blank(2)
    kept = Lookups(2)
    kept.keep("5", query, 100, lookup)
    assert kept.find("5", query, 100) is lookup
    assert kept.find("5", other, 100) is None
    assert kept.find("5", query, 99) is None
    assert kept.find("6", query, 100) is None
    assert kept.find("5", EmbeddedText("a", -query.vector), 100) is None
    kept.keep("6", other, 100, lookup)
    assert kept.find("5", query, 100) is None  # the corpus changed


def test_the_query_asked_longest_ago_is_forgotten_first() -> None:
    vector = np.ones(1, dtype=np.float32)
    a, b, c = (EmbeddedText(text, vector) for text in "abc")
    lookup = blank(1)
    kept = Lookups(2)
    kept.keep("1", a, 10, lookup)
    kept.keep("1", b, 10, lookup)
    kept.find("1", a, 10)
    kept.keep("1", c, 10, lookup)
    assert [kept.find("1", q, 10) is not None for q in (a, b, c)] == [True, False, True]


def test_a_query_is_encoded_once_under_each_revision() -> None:
    kept, asked = QueryVectors(3), list[list[str]]()

    def encode(texts: Sequence[str]) -> Vectors:
        asked.append(list(texts))
        return np.array([[float(len(t)), len(asked)] for t in texts], dtype=np.float32)

    assert kept.of("1", ["a", "bb", "a"], encode).tolist() == [[1, 1], [2, 1], [1, 1]]
    assert kept.of("1", ["bb", "ccc"], encode).tolist() == [[2, 1], [3, 2]]
    assert kept.of("2", ["bb"], encode).tolist() == [[2, 3]]  # "a" is no longer among three
    assert kept.of("1", ["ccc", "bb", "a"], encode).tolist() == [[3, 2], [2, 1], [1, 4]]
    assert asked == [["a", "bb"], ["ccc"], ["bb"], ["a"]]
    kept.clear()
    assert kept.of("1", ["a"], encode).tolist() == [[1, 5]]
    none = QueryVectors(0)
    assert [none.of("1", ["a"], encode)[0, 1] for _ in range(2)] == [6, 7]


def test_a_query_asked_again_is_not_encoded_again_until_its_user_is_forgotten(
    tmp_path: Path,
) -> None:
    encoder = WordEncoder()
    rng = np.random.default_rng(2)
    with Flywheel.open(tmp_path / "kb", encoder=encoder) as fw:
        fw.add([passage(i, rng) for i in range(40)])
        fw.refresh()
        n = encoder.n_encoded
        first = fw.retrieve(QUERIES[0], user_id="ann")
        assert encoder.n_encoded == n + 1
        again = fw.retrieve(QUERIES[0], where={"even": True})
        assert [h.score for h in fw.retrieve(QUERIES[0]).hits] == [h.score for h in first.hits]
        fw.add([passage(50, rng)])
        n = encoder.n_encoded
        assert (
            fw.retrieve(QUERIES[0], 40).hits[0].passage_id
        )  # the corpus changed, the query did not
        assert encoder.n_encoded == n
        assert all(int(h.passage_id[1:]) % 2 == 0 for h in again.hits)
        fw.forget("ann")
        n = encoder.n_encoded
        fw.retrieve(QUERIES[0])
        assert encoder.n_encoded == n + 1


def test_what_is_remembered_goes_when_another_process_forgets_a_user(tmp_path: Path) -> None:
    encoder = WordEncoder()
    rng = np.random.default_rng(3)
    with opened(tmp_path / "kb", 100) as other:
        other.add([passage(i, rng) for i in range(40)])
        other.refresh()
        with Flywheel.open(tmp_path / "kb", encoder=encoder) as fw:
            fw.retrieve(QUERIES[0], user_id="ann")
            other.forget("ann")
            fw.retrieve(QUERIES[1])
            n = encoder.n_encoded
            fw.retrieve(QUERIES[0])
            assert encoder.n_encoded == n + 1
            fw.retrieve(QUERIES[0])
            assert encoder.n_encoded == n + 1


@pytest.mark.parametrize(
    "k", [pytest.param(1, marks=pytest.mark.slow), 8, pytest.param(150, marks=pytest.mark.slow)]
)
def test_rank_many_gives_the_order_of_retrieve(tmp_path: Path, k: int) -> None:
    rng = np.random.default_rng(1)
    with opened(tmp_path / "kb", 1000) as fw:
        fw.add([passage(i, rng) for i in range(120)])
        fw.refresh()
        fw.add([passage(i, rng) for i in range(120, 125)])
        for query in QUERIES[::2]:
            vote(fw, fw.retrieve(query), rng)
        n_recorded = fw.status().n_retrievals
        for where in (None, {"even": False}):
            shown = fw.retrieve_many(QUERIES, k, where=where, record=False)
            expected = [[hit.passage_id for hit in one.hits] for one in shown]
            assert fw.rank_many(QUERIES, k, where=where) == expected
        assert fw.rank_many([], k) == []
        assert fw.status().n_retrievals == n_recorded


def test_a_lookup_is_of_one_corpus() -> None:
    """One of another corpus is not found, and is dropped once there is one of the new."""
    cache = Lookups(8)
    query = EmbeddedText("common", np.ones(4, dtype=np.float32))
    none = np.empty(0, dtype=np.int64)
    kept = Lookup(
        none, np.empty((0, 14), np.float32), none.astype(bool), Best(0.0, 0.0, 0.0, 0.0), 0.0
    )
    cache.keep("before", query, 10, kept)
    assert cache.find("before", query, 10) is kept
    assert cache.find("after", query, 10) is None
    assert cache.find(None, query, 10) is None
    assert cache.find("before", query, 11) is None
    cache.keep(None, query, 10, kept)  # of no corpus with a name
    assert cache.find("before", query, 10) is kept
    cache.keep("after", query, 10, kept)
    assert cache.find("after", query, 10) is kept
    assert cache.find("before", query, 10) is None
