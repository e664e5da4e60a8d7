"""Whose the credit for an answer is: a table made by hand, and what holds of any answer."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes import Vectors, WordEncoder
from rag_flywheel.capture.answer_credit import MOST_SENTENCES, credits_by_support, sentences
from rag_flywheel.records import EmbeddedText
from thorough import thorough

CASES = [
    json.loads(line)
    for line in (Path(__file__).parent / "credit_cases.jsonl").read_text("utf-8").splitlines()
]
Encode = Callable[[Sequence[str]], Vectors]


def credits(answer: str, passages: Sequence[str], encode: Encode) -> list[float]:
    texts = [
        EmbeddedText(words, vector)
        for words, vector in zip(passages, encode(passages), strict=True)
    ]
    return [float(c) for c in credits_by_support(sentences(answer), texts, encode)]


def test_the_table_is_not_small() -> None:
    assert len(CASES) >= 20
    assert len({case["answer"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["answer"][:40])
def test_the_passage_that_supports_an_answer_most_gets_the_largest_credit(
    case: dict[str, Any],
) -> None:
    assert_largest(case, WordEncoder().encode_passages)


def assert_largest(case: dict[str, Any], encode: Encode) -> None:
    found = dict(
        zip(
            case["passages"],
            credits(case["answer"], list(case["passages"].values()), encode),
            strict=True,
        )
    )
    assert max(found, key=lambda id_: found[id_]) == case["most"]
    assert found[case["most"]] > 0.5 * sum(found.values())


@pytest.mark.model
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["answer"][:40])
def test_so_it_is_with_a_real_model(case: dict[str, Any], real_encoder: Any) -> None:
    assert_largest(case, real_encoder.encode_passages)


@pytest.fixture(scope="module")
def real_encoder() -> Any:
    from rag_flywheel.config import DEFAULT_ENCODER
    from rag_flywheel.encode.make import make_encoder

    return make_encoder(DEFAULT_ENCODER)


WORDS = ["reset", "login", "refund", "secret", "page", "month", "the", "of", "!"]
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)
answers = st.lists(texts, max_size=5).map(". ".join)


@thorough(100, few=25)
@given(answers, st.lists(texts, min_size=1, max_size=8))
def test_credits_are_shares_of_at_most_one_and_do_not_hang_on_the_order(
    answer: str, passages: list[str]
) -> None:
    encode = WordEncoder(dim=16).encode_passages
    found = credits(answer, passages, encode)
    assert all(0.0 <= c <= 1.0 + 1e-9 for c in found)
    assert sum(found) <= 1.0 + 1e-9
    assert credits(answer, passages, encode) == found
    turned = credits(answer, passages[::-1], encode)[::-1]
    assert turned == pytest.approx(found, abs=1e-4)  # cosines are float32


def test_an_answer_that_no_passage_supports_is_nobodys() -> None:
    passages = list(CASES[0]["passages"].values())
    found = credits("Bananas ripen quicker beside apples.", passages, WordEncoder().encode_passages)
    assert sum(found) < 0.25


def test_a_text_that_says_the_answer_alone_gets_nearly_all() -> None:
    found = credits("reset secret page", ["reset secret page"], WordEncoder().encode_passages)
    assert found == pytest.approx([1.0], abs=1e-3)


def test_an_answer_of_two_passages_is_shared_by_its_words() -> None:
    passages = ["kittens sleep most of day", "refunds paid within thirty days"]
    answer = "Kittens sleep most of day. Refunds paid."
    first, second = credits(answer, passages, WordEncoder().encode_passages)
    assert first > second > 0.1


def test_a_sentence_taken_out_of_a_long_passage_is_all_its_own() -> None:
    """It got four fifths: its vector is that of a sentence, not of a passage."""
    page = ["kittens sleep most of day", "puppies bark at night", "parrots talk of weather"]
    passages = [". ".join(page), "refunds paid within thirty days. shipping takes one week"]
    own, other = credits(page[0], passages, WordEncoder().encode_passages)
    assert own > 0.97
    assert other < 0.01


def test_what_no_passage_says_leaves_its_part_to_nobody() -> None:
    passages = ["kittens sleep most of day", "refunds paid within thirty days"]
    answer = "Kittens sleep most of day. Bananas ripen beside apples indoors."
    found = credits(answer, passages, WordEncoder().encode_passages)
    assert found == pytest.approx([4 / 9, 0.0], abs=0.1)


def test_twins_share_alike() -> None:
    twins = ["reset the secret page", "reset the secret page", "refund every month"]
    found = credits("Reset the secret page.", twins, WordEncoder().encode_passages)
    assert found == pytest.approx([0.5, 0.5, 0.0], abs=1e-3)


@pytest.mark.parametrize(
    ("answer", "n"),
    [("", 0), ("the of!", 0), ("One. Two!\nThree", 3), ("word. " * 200, MOST_SENTENCES)],
)
def test_sentences(answer: str, n: int) -> None:
    assert len(sentences(answer)) == n


def test_no_sentence_or_no_text_no_credit() -> None:
    encode = WordEncoder().encode_passages
    assert credits("", ["reset"], encode) == [0.0]
    assert credits_by_support(["reset"], [], encode).tolist() == []
    assert np.isfinite(credits("the of", ["the of"], encode)).all()
