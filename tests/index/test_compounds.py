"""Compounds are found by their parts, and their parts find them."""

import numpy as np
import pytest

from rag_flywheel.index.compounds import parts_of
from rag_flywheel.index.fresh import FreshSegment
from rag_flywheel.index.lexical import LexicalIndex
from rag_flywheel.index.tokenizer import tokenizer_of

GERMAN = tokenizer_of("german")
TEXTS = [
    "Der Garagenschlüssel liegt beim Hausmeister.",
    "Die Garage ist nachts zu.",
    "Ein Schlüssel kostet vierzig Euro.",
    "Das Schwimmbad öffnet um acht.",
]


def index(texts: list[str]) -> LexicalIndex:
    return LexicalIndex.build(map(GERMAN.tokenize, texts), tokenizer=GERMAN)


def found(of: LexicalIndex, query: str) -> list[int]:
    return np.flatnonzero(of.scores(of.query_words(query)) > 0).tolist()


def test_a_part_finds_the_compound_and_a_compound_its_parts() -> None:
    german = index(TEXTS)
    assert found(german, "Schlüssel") == [0, 2]
    assert found(german, "Garagen") == [0, 1]
    assert found(german, "Schlüsselgarage") == [0, 1, 2]  # in no text
    assert found(german, "Bad") == []  # too short to be told from other endings
    words = german.query_words("Schlüssel")
    places = german.words_at(words, german.texts_at(np.arange(3)))
    assert places.tolist().count(0) == 2


@pytest.mark.parametrize(
    ("language", "compound", "parts"),
    [
        ("german", "Wohnungsschlüssel", ["Wohnung", "Schlüssel"]),
        ("german", "Krankenversicherungsbeitrag", ["Kranke", "Versicherung", "Beitrag"]),
        ("german", "Urlaubsantragsformular", ["Urlaub", "Antrag", "Formular"]),
        ("dutch", "fietsvergunning", ["fiets", "vergunning"]),
        ("dutch", "ziekteverzuim", ["ziekte", "verzuim"]),
        ("swedish", "semesteransökan", ["semester", "ansökan"]),
    ],
)
def test_compounds_of_several_languages(language: str, compound: str, parts: list[str]) -> None:
    stem = tokenizer_of(language).stem
    stems = [stem(part.lower()) for part in parts]
    known = {word: i for i, word in enumerate([*stems, "etwas"])}
    assert parts_of(stem(compound.lower()), known, stem) == stems


def test_no_compound_is_split_into_words_that_are_not_there() -> None:
    known = {"garag": 0, "meist": 1}
    assert parts_of("garagenschlussel", known, GERMAN.stem) == []
    assert parts_of("meist", known, GERMAN.stem) == []


def test_fresh_texts_are_found_by_parts_as_indexed_ones_are() -> None:
    german = index(TEXTS)
    pids, rows = np.arange(len(TEXTS)), np.eye(len(TEXTS), dtype=np.float32)
    fresh = FreshSegment.empty(len(TEXTS), GERMAN).with_texts(pids, TEXTS, [""] * len(TEXTS), rows)
    for query in ("Schlüssel", "Garage", "Schlüsselgarage"):
        words = german.query_words(query)
        expected = german.scores(words)
        assert fresh.lexical_scores(words, german).tolist() == pytest.approx(
            expected.tolist(), abs=1e-5
        )
        distinct = list(dict.fromkeys(words))
        there, here = (
            fresh.words_at(distinct, fresh.texts_at(pids), german),
            german.words_at(distinct, german.texts_at(pids)),
        )
        assert there.tolist() == here.tolist()


def test_english_words_have_no_parts() -> None:
    texts = ["the footpath is closed", "a foot and a path"]
    english = LexicalIndex.build(map(tokenizer_of("english").tokenize, texts))
    assert not len(english.compounds.ids)
    assert found(english, "path") == [1]


def test_a_single_character_finds_its_pairs() -> None:
    chinese = LexicalIndex.build(map(tokenizer_of("none").tokenize, ["缴税须知", "停车须知"]))
    assert found(chinese, "税") == [0]
    assert found(chinese, "鱼") == []
