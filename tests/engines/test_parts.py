"""Parts of a collection that are too many to be named one by one are found all the same."""

from collections.abc import Sequence

import numpy as np
import pytest

from rag_flywheel.index.dense import DenseIndex
from rag_flywheel.index.engine import Question
from rag_flywheel.index.in_memory import InMemory
from rag_flywheel.index.lexical import LexicalIndex
from rag_flywheel.index.milvus import Milvus
from rag_flywheel.index.part import Part
from rag_flywheel.index.remote import InDatabase, rows_of
from rag_flywheel.index.stored_statistics import StoredStatistics, save_statistics
from rag_flywheel.records import Pids
from rag_flywheel.store.vector_tables import VectorTables
from rag_flywheel.vector_database import VectorDatabase

pytestmark = pytest.mark.slow
N, RNG = 9_000, np.random.default_rng(2)


def no_texts(pids: Pids) -> Sequence[tuple[str, str]]:
    raise AssertionError("nothing is read")


@pytest.fixture(scope="module")
def memory() -> InMemory:
    rows = RNG.normal(size=(N, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    texts = [
        [f"w{i}" for i in RNG.integers(0, 3_000, size=4)] + ["all"] * (i % 3) for i in range(N)
    ]
    return InMemory(DenseIndex.build(np.arange(1, N + 1) * 3, rows), LexicalIndex.build(texts))


@pytest.fixture(scope="module", params=["milvus", "pgvector"])
def there(
    request: pytest.FixtureRequest, memory: InMemory, tmp_path_factory: pytest.TempPathFactory
) -> InDatabase:
    """The same texts in a database."""
    folder = tmp_path_factory.mktemp("version")
    memory.dense.save(folder)
    memory.lexical.save(folder)
    save_statistics(folder, memory)
    if request.param == "milvus":
        database: VectorDatabase = Milvus.at(f"{request.getfixturevalue('server').uri}/parts")
    else:
        database = VectorTables.at(f"{request.getfixturevalue('postgres')}#parts")
    request.addfinalizer(database.close)
    database.write("some", 8, N, rows_of(memory))
    statistics = StoredStatistics.load(folder, n_texts=N)
    return InDatabase(database.open("some", 8, N), statistics, 8, no_texts)


@pytest.mark.parametrize("n", [20, 6_000])
@pytest.mark.parametrize("which", ["half", "far half", "few", "nearly all", "none"])
def test_as_in_memory(memory: InMemory, there: InDatabase, which: str, n: int) -> None:
    question = Question(memory.vectors(memory.pids[5:6])[0], ["all", "w7", "w2999", "nowhere"])
    cosines = memory.dense.at(np.arange(N)) @ question.vector
    part = Part.of(
        {
            "half": RNG.random(N) < 0.5,
            "far half": cosines < np.median(cosines),
            "few": np.arange(N) % 100 == 0,
            "nearly all": np.arange(N) != 5,
            "none": np.zeros(N, dtype=bool),
        }[which]
    )
    (found,), (expected,) = (each.find([question], n, part) for each in (there, memory))
    n_near = min(n, part.n)
    near = [np.sort(each.scores.cosines)[::-1][:n_near] for each in (found, expected)]
    best = [np.sort(each.scores.bm25)[::-1][:n_near] for each in (found, expected)]
    assert near[0] == pytest.approx(near[1], abs=1e-5)
    assert best[0] == pytest.approx(best[1], abs=1e-5)
    assert part.mask[found.positions].all()


def test_words_that_texts_have_together(memory: InMemory, there: InDatabase) -> None:
    for words in (
        ["w7"],
        ["w7", "all"],
        ["all"],
        ["w1", "w2"],
        ["nowhere"],
        ["nowhere", "all"],
        [],
    ):
        found, expected = (each.having_all(words, 32) for each in (there, memory))
        if len(expected) <= 32:
            assert found.tolist() == expected.tolist()
        else:
            assert len(found) > 32


def test_vectors_and_the_nearest(memory: InMemory, there: InDatabase) -> None:
    pids = memory.pids[RNG.permutation(N)[:50]]
    assert np.array_equal(there.vectors(pids), memory.vectors(pids))
    found, expected = (each.nearest(memory.vectors(pids), 5) for each in (there, memory))
    assert [row.tolist() for row in found] == [row.tolist() for row in expected]
    with pytest.raises(LookupError):
        there.vectors(np.array([4]))
