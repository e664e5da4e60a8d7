"""Passages found in a database are those found in memory, with the same scores, whatever happened."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lite import Both
from rag_flywheel import Passage
from rag_flywheel.index.engine import Question
from rag_flywheel.index.remote import InDatabase

RNG = np.random.default_rng(5)
WORDS = [f"{a}{b}" for a in ("plum", "fig", "oak", "elm", "ash") for b in range(30)]
Open = Callable[..., Both]


def made(n: int, **metadata: Any) -> list[Passage]:
    """Passages of random words, some of them equal, some with a title."""
    found = []
    for i in range(n):
        words = RNG.choice(WORDS, size=int(RNG.integers(3, 25))).tolist()
        title = " ".join(words[:2]) if i % 3 == 0 else ""
        own = {"shelf": i % 7, "kind": "odd" if i % 2 else "even", **metadata}
        found.append(Passage(f"p{i:03}", " ".join(words), title, own))
    found.append(Passage("copy", found[1].text, found[1].title, {"shelf": 99}))
    found.append(Passage("dots", "... !!! ---", metadata={"shelf": 99}))
    return found


def queries(n: int = 12) -> list[str]:
    return [" ".join(RNG.choice(WORDS, size=int(RNG.integers(1, 6)))) for _ in range(n)]


def index_of(both: Both) -> InDatabase:
    """What the index in a database answers from."""
    engine = both.elsewhere._serving()._live.state().version.engine
    assert isinstance(engine, InDatabase)
    return engine


@pytest.fixture
def built(both: Open) -> Both:
    found, passages = both(n_lookups=0), made(150)
    found.do(lambda fw: fw.add(passages))
    found.do(lambda fw: fw.refresh())
    return found


def test_questions_of_any_words_get_the_same_hits(built: Both) -> None:
    spoken = ["", " nobody says this", " plum1 plum1 plum1", " ... ", " fig2?"]
    for query in [*queries(), *(f"plum3{more}" for more in spoken)]:
        assert built.same(query)
    assert index_of(built).pids.tolist() == list(range(1, 153))


def test_bm25_and_cosines_are_those_of_memory(built: Both) -> None:
    found, memory = index_of(built), built.memory._serving()._live.state().version.engine
    for query in queries():
        words = memory.statistics.query_words(query)
        assert found.statistics.query_words(query) == words
        question = Question(memory.vectors(memory.pids[:1])[0], words)
        every = np.arange(len(memory.pids))
        ours, theirs = found.score(question, every), memory.score(question, every)
        assert np.abs(ours.bm25 - theirs.bm25).max() <= 1e-5
        assert np.abs(ours.cosines - theirs.cosines).max() <= 1e-5
        (a,), (b,) = found.find([question], 10, None), memory.find([question], 10, None)
        assert np.abs(np.sort(a.scores.bm25)[-10:] - np.sort(b.scores.bm25)[-10:]).max() <= 1e-5
        near = np.sort(a.scores.cosines)[-10:], np.sort(b.scores.cosines)[-10:]
        assert np.abs(near[0] - near[1]).max() <= 1e-5
        assert np.array_equal(a.scores.bm25, ours.bm25[a.positions])


def test_the_statistics_of_words_are_those_of_memory(built: Both) -> None:
    found = index_of(built).statistics
    expected = built.memory._serving()._live.state().version.engine.statistics
    assert len(found) == len(expected) and found.n_distinct == expected.n_distinct
    for name in ("average_length", "average_title_length", "average_ngrams"):
        assert getattr(found, name) == getattr(expected, name)
    for word in [*WORDS[:40], "nowhere"]:
        assert found.idf(word) == expected.idf(word)
        assert found.distinct_idf(word) == expected.distinct_idf(word)
        assert found.ngram_idf([word]) == expected.ngram_idf([word])
        assert found.knows(word) == expected.knows(word)


@pytest.mark.parametrize(
    "where",
    [
        {"shelf": 3},
        {"kind": "odd"},
        {"shelf": {"gte": 1}},
        {"shelf": 99},
        {"shelf": 1_000},
        {"not": {"shelf": 2}},
    ],
)
def test_under_filters(built: Both, where: dict[str, Any]) -> None:
    for query in queries(6):
        built.same(query, where=where)


def test_each_tenant_gets_what_it_gets_from_memory(both: Open) -> None:
    found = both(n_lookups=0, tenant_key="firm")
    passages = [*made(60, firm="a")]
    passages += [
        Passage(f"b{p.id}", p.text, p.title, {**p.metadata, "firm": "b"}) for p in made(60)
    ]
    found.do(lambda fw: fw.add(passages))
    found.do(lambda fw: fw.refresh())
    for query in queries(5):
        of_a, of_b = found.same(query, tenant="a"), found.same(query, tenant="b")
        assert of_a and of_b and not set(of_a) & set(of_b)
        found.vote(query, of_a[-1], tenant="a")
        found.same(query, tenant="a", where={"kind": "even"})
        found.same(query, all_tenants=True)


def test_after_votes_edits_additions_and_removals(built: Both) -> None:
    asked = queries(6)
    for query in asked:
        built.vote(query, built.same(query)[-1])
        built.same(query)
    edited = [
        Passage("p010", "plum1 plum2 " + " ".join(WORDS[:9]), metadata={"shelf": 3}),
        Passage("p011", made(12)[11].text, metadata={"shelf": 55}),
        *(Passage(f"new{i}", f"fig{i} oak{i} ash{i + 1} plum1", "a title") for i in range(20)),
    ]
    built.do(lambda fw: fw.add(edited, remove=["p000", "p020", "dots"]))
    asked += ["plum1 plum2", "fig3 oak3", "ash2", "p020"]
    for query in asked:
        assert not {"p000", "p020", "dots"} & set(built.same(query))
        built.same(query, where={"shelf": {"in": [3, 55]}})
    built.do(lambda fw: fw.refresh())
    for query in asked:
        built.same(query)
        built.vote(query, built.same(query)[0], "harmful")
        built.same(query)


def test_names_of_things_are_found_by_all_their_parts(both: Open) -> None:
    found = both(n_lookups=0)
    passages = [Passage(f"os{i}", f"the module os has part number {i} path") for i in range(40)]
    passages += [
        Passage("join", "os.path.join puts paths together"),
        Passage("split", "os path split takes os.path apart"),
        Passage("dump", "json dump writes, and json_dump is a name"),
        Passage("load", "json and load are here too"),
    ]
    found.do(lambda fw: fw.add(passages))
    found.do(lambda fw: fw.refresh())
    for query in ("os.path.join", "os.path", "json_dump", "json.load", "number_3", "nothing_here"):
        assert found.same(query)


@pytest.mark.parametrize(
    ("language", "texts", "asked"),
    [
        (
            "german",
            ["Der Wohnungsschlüssel liegt hier", "Ein Schlüssel zur Wohnung", "Das Haus am See"],
            ["Schlüssel", "Wohnung", "Wohnungsschlüssel", "Seehaus"],
        ),
        (
            "none",
            ["東京は日本の首都です", "京都は古い都です", "日本の山と川"],
            ["東京", "京", "日本の都", "山"],
        ),
    ],
)
def test_compounds_and_scripts_without_blanks(
    both: Open, language: str, texts: list[str], asked: list[str]
) -> None:
    found = both(n_lookups=0, language=language)
    passages = [Passage(f"{language}{i}", text) for i, text in enumerate(texts * 2)]
    found.do(lambda fw: fw.add(passages))
    found.do(lambda fw: fw.refresh())
    added = [Passage("fresh", texts[0] + " " + texts[1])]
    for query in asked:
        found.same(query)
    found.do(lambda fw: fw.add(added))
    for query in asked:
        found.same(query)


def test_an_index_without_words_and_one_without_passages(both: Open) -> None:
    found = both(n_lookups=0)
    found.do(lambda fw: fw.add([Passage("a", "... !!!"), Passage("b", "--- ???")]))
    found.do(lambda fw: fw.refresh())
    assert len(found.same("plum1")) == 2
    found.do(lambda fw: fw.remove(["a", "b"]))
    found.do(lambda fw: fw.refresh())
    assert found.same("plum1") == []
    found.do(lambda fw: fw.add([Passage("c", "plum1")]))
    assert found.same("plum1") == ["c"]
    found.do(lambda fw: fw.refresh())
    assert found.same("plum1") == ["c"]


def test_many_questions_at_once(built: Both) -> None:
    asked = queries(300)
    found, expected = (
        fw.retrieve_many(asked, record=False) for fw in (built.elsewhere, built.memory)
    )
    ids = [[[hit.passage_id for hit in a.hits] for a in answers] for answers in (found, expected)]
    assert ids[0] == ids[1]
