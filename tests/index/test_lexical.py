"""BM25 and the tokeniser against Lucene's formula in plain Python."""

import json
import math
import shutil
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from like_bm25s import assert_like_bm25s
from rag_flywheel.errors import CorruptFileError
from rag_flywheel.index.lexical import LexicalIndex, tokenize
from rag_flywheel.index.tokenizer import stems_in, tokenizer_of
from thorough import thorough


def bm25(documents: Sequence[Sequence[str]], query: Sequence[str]) -> list[float]:
    """Lucene's BM25 (Kamphuis et al. 2020, table 1) with k1 = 1.2 and b = 0.75."""
    n = len(documents)
    average = sum(map(len, documents)) / n if n else 0.0
    scores = []
    for document in documents:
        total = 0.0
        for word in query:
            df = sum(word in other for other in documents)
            tf = document.count(word)
            if tf:
                idf = math.log(1 + (n - df + 0.5) / (df + 0.5))
                total += idf * tf / (tf + 1.2 * (1 - 0.75 + 0.75 * len(document) / average))
        scores.append(total)
    return scores


def test_hand_worked_example() -> None:
    index = LexicalIndex.build([["cat", "cat"], ["dog", "cat", "owl", "owl"]])
    # average length 3; idf(owl) = ln(1 + 1.5 / 1.5) = ln 2; tf 2, length 4
    expected = math.log(2) * 2 / (2 + 1.2 * (0.25 + 0.75 * 4 / 3))
    assert index.scores(["owl"]).tolist() == pytest.approx([0.0, expected])
    assert index.idf("owl") == pytest.approx(math.log(2))
    assert index.idf("cat") == pytest.approx(math.log(1 + 0.5 / 2.5))
    assert index.idf("unseen") == pytest.approx(math.log(1 + 2.5 / 0.5))
    assert index.average_length == 3.0


words = st.sampled_from(list("abcdefg"))
documents = st.lists(st.lists(words, max_size=12), max_size=15)
queries = st.lists(st.sampled_from(list("abcdefgxyz")), max_size=6)


@thorough(40, few=10)
@given(documents, queries)
def test_scores_equal_the_formula(texts: list[list[str]], query: list[str]) -> None:
    index = LexicalIndex.build(texts)
    assert len(index) == len(texts)
    assert index.scores(query).tolist() == pytest.approx(bm25(texts, query), rel=1e-5, abs=1e-6)


def assert_same(found: LexicalIndex, wanted: LexicalIndex) -> None:
    """Every array and name of the two, to the bit."""
    assert list(found.vocabulary.items()) == list(wanted.vocabulary.items())
    assert list(found.ngrams.number.items()) == list(wanted.ngrams.number.items())
    names = ("tokens", "offsets", "titles")
    pairs = [(getattr(found, name), getattr(wanted, name)) for name in names]
    names = ("offsets", "ids", "idf")
    pairs += [(getattr(found.ngrams, name), getattr(wanted.ngrams, name)) for name in names]
    names = ("data", "texts", "starts")
    pairs += [(getattr(found.bm25, name), getattr(wanted.bm25, name)) for name in names]
    for a, b in pairs:
        assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())


@thorough(40, few=10)
@given(documents)
def test_scores_are_those_of_bm25s_to_the_bit(texts: list[list[str]]) -> None:
    index = LexicalIndex.build(texts)
    if not index.vocabulary:
        return
    ids = [[index.vocabulary[word] for word in text] for text in texts]
    theirs = bm25s.BM25(k1=1.2, b=0.75, method="lucene", csc_backend="scipy")
    theirs.index((ids, dict(index.vocabulary)), create_empty_token=False, show_progress=False)
    for ours, name in (("data", "data"), ("texts", "indices"), ("starts", "indptr")):
        assert_like_bm25s(getattr(index.bm25, ours), theirs.scores[name])


plain = st.text("aAbB eéß\u0301ﬁ不 the.s,ing'", max_size=30)
titled = st.lists(st.tuples(plain, plain), max_size=10)


@thorough(100, few=25)
@given(titled, titled, st.data())
def test_a_changed_index_is_what_building_it_anew_makes(
    before: list[tuple[str, str]], after: list[tuple[str, str]], data: st.DataObject
) -> None:
    def of(pairs: list[tuple[str, str]]) -> LexicalIndex:
        words = [tokenize(f"{title} {text}") for title, text in pairs]
        return LexicalIndex.build(words, [len(tokenize(title)) for title, _ in pairs])

    stays = [data.draw(st.booleans()) for _ in before]
    present = [pair for pair, stay in zip(before, stays, strict=True) if stay] + after
    new = [(title, f"{title} {text}") for title, text in after]
    assert_same(of(before).changed(np.array(stays, dtype=bool), new), of(present))


@thorough(40, few=10)
@given(documents)
def test_token_ids_give_the_texts_back_in_order(texts: list[list[str]]) -> None:
    index = LexicalIndex.build(texts)
    word_of = {number: word for word, number in index.vocabulary.items()}
    found = [
        [word_of[t] for t in index.tokens[index.offsets[i] : index.offsets[i + 1]].tolist()]
        for i in range(len(index))
    ]
    assert found == texts


@thorough(40, few=10)
@given(documents, st.lists(st.sampled_from(list("abcdefgxyz")), unique=True), st.data())
def test_words_are_found_where_they_stand(
    texts: list[list[str]], query: list[str], data: st.DataObject
) -> None:
    index = LexicalIndex.build(texts)
    at = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=8)) if texts else []
    read = index.texts_at(np.array(at, dtype=np.int64))
    places, lengths = index.words_at(query, read), read.lengths
    expected = [query.index(w) if w in query else -1 for i in at for w in texts[i]]
    assert (places.tolist(), lengths.tolist()) == (expected, [len(texts[i]) for i in at])
    assert (places.dtype, lengths.dtype) == (np.dtype(np.int16), np.dtype(np.int64))


@thorough(40, few=10)
@given(documents, st.data())
def test_titles_are_the_first_words_of_texts(texts: list[list[str]], data: st.DataObject) -> None:
    titles = [data.draw(st.integers(0, len(text))) for text in texts]
    index = LexicalIndex.build(texts, titles)
    assert index.titles.tolist() == titles
    assert index.average_title_length == pytest.approx(sum(titles) / len(titles) if titles else 0)
    untitled = LexicalIndex.build(texts)
    assert untitled.titles.tolist() == [0] * len(texts)
    assert untitled.average_title_length == 0.0
    assert untitled.scores(["a", "b"]).tobytes() == index.scores(["a", "b"]).tobytes()


@pytest.mark.parametrize(
    "texts",
    [[], [[]], [["a"]], [["ключ", "鍵", "مفتاح"], [], ["鍵", "a"]]],
    ids=["no text", "no word", "one", "several"],
)
def test_a_saved_index_answers_the_same(tmp_path: Path, texts: list[list[str]]) -> None:
    built = LexicalIndex.build(texts, [min(len(text), 1) for text in texts])
    built.save(tmp_path)
    loaded = LexicalIndex.load(tmp_path, n_texts=len(texts))
    for query in (["鍵"], ["a", "ключ"], ["nowhere"], []):
        assert loaded.scores(query).tobytes() == built.scores(query).tobytes()
        assert loaded.scores(query).tolist() == pytest.approx(bm25(texts, query), rel=1e-5)
    assert loaded.vocabulary == built.vocabulary
    assert loaded.tokens.tolist() == built.tokens.tolist()
    assert loaded.offsets.tolist() == built.offsets.tolist()
    assert loaded.titles.tolist() == built.titles.tolist() == [min(len(t), 1) for t in texts]
    everywhere = np.arange(len(texts))
    was, now = (
        index.words_at(["鍵", "a"], index.texts_at(everywhere)) for index in (built, loaded)
    )
    assert now.tolist() == was.tolist()


def test_no_file_of_an_index_is_a_pickle(tmp_path: Path) -> None:
    LexicalIndex.build([["a", "b"]]).save(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".npy", ".json"}
    for path in files:
        if path.suffix == ".npy":
            np.load(path, allow_pickle=False)  # raises on an array of objects


def test_an_index_of_another_number_of_texts_is_refused(tmp_path: Path) -> None:
    LexicalIndex.build([["a"], ["b"]]).save(tmp_path)
    with pytest.raises(CorruptFileError, match="holds 2 texts; expected 3"):
        LexicalIndex.load(tmp_path, n_texts=3)


def test_an_index_with_titles_of_another_number_of_texts_is_refused(tmp_path: Path) -> None:
    LexicalIndex.build([["a"], ["b"]], [1, 0]).save(tmp_path)
    np.save(tmp_path / "tokens" / "titles.npy", np.array([1], dtype=np.int32))
    with pytest.raises(CorruptFileError, match="rag-flywheel refresh"):
        LexicalIndex.load(tmp_path, n_texts=2)


@pytest.mark.parametrize(
    "name",
    [
        "lexical/words.json",
        "tokens/ids-1.npy",
        "tokens/lengths-1.npy",
        "tokens/more-1.npy",
        "tokens/order.npy",
        "tokens/rows.npy",
        "tokens/parts.json",
        "tokens/titles.npy",
        "derived/data.csc.index.npy",
        "derived/piece-idf.npy",
        "derived/pieces.json",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut short"])
def test_damaged_files_are_refused(tmp_path: Path, name: str, damage: str) -> None:
    LexicalIndex.build([["alpha", "beta"], ["gamma"]]).save(tmp_path)
    path = tmp_path / name
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(b"" if damage == "empty" else data[: len(data) // 2])
    elif name.startswith("derived/"):  # it is computed again
        assert len(LexicalIndex.load(tmp_path, n_texts=2)) == 2
        return
    with pytest.raises(CorruptFileError, match=r"cannot be read.*rag-flywheel refresh"):
        LexicalIndex.load(tmp_path, n_texts=2)


@pytest.mark.parametrize("name", ["ids-1.npy", "lengths-1.npy", "order.npy", "titles.npy"])
def test_an_array_with_a_damaged_header_is_refused(tmp_path: Path, name: str) -> None:
    LexicalIndex.build([["alpha", "beta"], ["gamma"]]).save(tmp_path)
    path = tmp_path / "tokens" / name
    data = bytearray(path.read_bytes())
    data[8] = 39  # the header's length: it is cut in the middle of a string
    path.write_bytes(data)
    with pytest.raises(CorruptFileError, match=r"damaged header.*rag-flywheel refresh"):
        LexicalIndex.load(tmp_path, n_texts=2)


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("ids-1.npy", np.array([0, 1], np.uint16)),
        ("ids-1.npy", np.array([0.0, 1.0, 2.0])),
        ("ids-1.npy", np.array([[0, 1, 2]], np.uint16)),
        ("ids-1.npy", np.array([0, 1, 3], np.uint16)),
        ("lengths-1.npy", np.array([2], np.int32)),
        ("lengths-1.npy", np.array([2, 2], np.int32)),
        ("lengths-1.npy", np.array([2, 1])),
        ("lengths-1.npy", np.array([5, -2], np.int32)),
        ("titles.npy", np.array([0], np.int32)),
        ("titles.npy", np.array([3, 0], np.int32)),
        ("titles.npy", np.array([-1, 0], np.int32)),
    ],
    ids=str,
)
def test_token_arrays_that_do_not_fit_together_are_refused(
    tmp_path: Path, name: str, tokens: np.ndarray[Any, Any]
) -> None:
    LexicalIndex.build([["alpha", "beta"], ["gamma"]]).save(tmp_path)
    np.save(tmp_path / "tokens" / name, tokens)
    with pytest.raises(CorruptFileError, match="rag-flywheel refresh"):
        LexicalIndex.load(tmp_path, n_texts=2)


def test_words_json_that_is_no_list_is_refused(tmp_path: Path) -> None:
    LexicalIndex.build([["alpha"]]).save(tmp_path)
    (tmp_path / "lexical" / "words.json").write_text(json.dumps({"alpha": 0}))
    with pytest.raises(CorruptFileError, match="cannot be read"):
        LexicalIndex.load(tmp_path, n_texts=1)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    LexicalIndex.build([["alpha"]]).save(tmp_path)
    shutil.rmtree(tmp_path / "tokens")
    with pytest.raises(CorruptFileError, match="cannot be read"):
        LexicalIndex.load(tmp_path, n_texts=1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The cats ARE running, quickly!", ["cat", "run", "quick"]),
        ("cat-dog_owl  x2 3.14", ["catdogowl", "cat", "dog", "owl", "x2", "3.14", "3", "14"]),
        ("it is the and of", []),
        ("", []),
        ("   \n\t", []),
        ("!?… ¿— 👍🏽🎉", []),
        ("done 👍 ok", ["done", "ok"]),
        ("Ключ от ДОМА", ["ключ", "от", "дома"]),
        ("مفتاح البيت", ["مفتاح", "البيت"]),
        ("מפתח הבית", ["מפתח", "הבית"]),
        ("你好，世界", ["你好", "世界"]),
        ("ΟΔΟΣ Ärger ŁÓDŹ", ["οδος", "arger", "lodz"]),
        ("repeat repeats repeated", ["repeat", "repeat", "repeat"]),
    ],
)
def test_words_of_a_text(text: str, expected: list[str]) -> None:
    assert tokenize(text) == expected


@pytest.mark.parametrize(
    "word",
    ["हिन्दी", "مَرْحَبًا", "שָׁלוֹם", unicodedata.normalize("NFD", "résumé")],
    ids=["Hindi", "vocalised Arabic", "pointed Hebrew", "decomposed Latin"],
)
def test_combining_marks_do_not_split_a_word(word: str) -> None:
    assert len(tokenize(f"before {word} after")) == 3


def test_composed_and_decomposed_letters_are_the_same_word() -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert tokenize(composed) == tokenize(decomposed)


def test_a_query_of_only_stop_words_scores_nothing() -> None:
    index = LexicalIndex.build([tokenize("what is it that the cats are")])
    assert tokenize("is it the") == []
    assert index.scores(tokenize("is it the")).tolist() == [0.0]


def test_a_megabyte_of_text_takes_at_most_seconds() -> None:
    text = "Zebra fish swim. " * 60_000
    began = time.perf_counter()
    found = tokenize(text)
    assert time.perf_counter() - began < 5.0
    assert found == ["zebra", "fish", "swim"] * 60_000


@thorough(40, few=10)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_text_can_be_tokenised_indexed_and_found_again(text: str) -> None:
    found = tokenize(text)
    assert tokenize(text) == found
    index = LexicalIndex.build([found, ["something", "else"]])
    expected = bm25([found, ["something", "else"]], found[:5])
    assert index.scores(found[:5]).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@given(st.text(st.characters(max_codepoint=127)))
def test_a_text_of_ascii_is_split_as_other_texts_are(text: str) -> None:
    other = "é " + text  # not ASCII
    assert tokenize(other)[1:] == tokenize(text)
    stems = sorted(set(tokenize(text)))
    assert list(stems_in([text, other], stems, tokenizer_of("english"))) == [
        (len(stems), len(tokenize(text))),
        (len(stems), len(tokenize(other))),
    ]
