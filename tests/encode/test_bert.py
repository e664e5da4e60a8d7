"""A small BERT made here: computed by us it answers as the library does, whatever the text; any
model that is of another kind is left to the library."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag_flywheel.encode.bert import Bert
from rag_flywheel.encode.sentence_encoder import SentenceEncoder
from small_bert import made

TEXTS = [
    "a query",
    "",
    " \t\n ",
    "UPPER lower ÜNÏCÖDÉ",
    "\u200d字\u0301🙂",
    "[CLS] [SEP] [MASK] [PAD]",
    "word " * 100,
    "x" * 300,
    *(f"text number {i} " + "of many words " * (i % 7) for i in range(40)),
]
pytestmark = pytest.mark.slow  # the library alone takes seconds to load


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return made(tmp_path_factory.mktemp("bert") / "model")


def test_every_text_becomes_what_the_library_makes_of_it(model: Any) -> None:
    bert = Bert.of(model)
    assert bert is not None
    wanted = model.encode(TEXTS, normalize_embeddings=True)
    assert np.abs(bert.encode(TEXTS) - wanted).max() <= 1e-6
    alone = np.concatenate([bert.encode([text]) for text in TEXTS])
    assert np.abs(alone - wanted).max() <= 1e-6
    assert bert.encode(TEXTS).dtype == np.float32
    assert len(np.unique(wanted.round(4), axis=0)) > 40  # they are not all the same


def test_in_bfloat16_it_stays_close(model: Any) -> None:
    exact, half = Bert.of(model), Bert.of(model, half=True)
    assert exact is not None and half is not None
    wanted = model.encode(TEXTS, normalize_embeddings=True)
    found = half.encode(TEXTS)
    assert (found * wanted).sum(axis=1).min() >= 0.998
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(len(TEXTS)), abs=1e-6)
    assert not np.array_equal(found, exact.encode(TEXTS))


def test_queries_in_bfloat16_are_the_same_to_the_bit_whatever_they_come_with(model: Any) -> None:
    encoder = SentenceEncoder(model, name="made", revision="1", bf16=True)
    together = encoder.encode_queries(TEXTS)
    alone = np.concatenate([encoder.encode_queries([text]) for text in TEXTS])
    np.testing.assert_array_equal(together, alone)
    wanted = model.encode(TEXTS, normalize_embeddings=True)
    assert (together * wanted).sum(axis=1).min() >= 0.998
    assert np.abs(together - wanted).max() > 1e-5  # it is bfloat16


@pytest.mark.parametrize(
    "changed",
    [
        {"pooling": "cls"},
        {"hidden_act": "relu"},
        {"prompts": {"query": "query: ", "document": ""}},
        {"truncate_dim": 16},
    ],
)
def test_another_kind_of_model_is_asked_itself(tmp_path: Path, changed: dict[str, Any]) -> None:
    other = made(tmp_path / "model", **changed)
    assert Bert.of(other) is None
    encoder = SentenceEncoder(other, name="other", revision="1", bf16=False)
    wanted = other.encode_query(TEXTS, normalize_embeddings=True)
    assert np.abs(encoder.encode_queries(TEXTS) - wanted).max() <= 1e-6
    wanted = other.encode_document(TEXTS, normalize_embeddings=True)
    assert np.abs(encoder.encode_passages(TEXTS) - wanted).max() <= 1e-6


def test_a_model_that_answers_otherwise_than_its_parts_say_is_asked_itself(tmp_path: Path) -> None:
    other = made(tmp_path / "model")
    layer = other[0].auto_model.encoder.layer[1]
    layer.register_forward_hook(lambda module, given, found: found * 1.5 + 0.1)
    assert Bert.of(other) is None


def test_queries_and_passages_without_half_precision_are_those_of_the_library(model: Any) -> None:
    encoder = SentenceEncoder(model, name="made", revision="1", bf16=False)
    wanted = model.encode(TEXTS, normalize_embeddings=True)
    assert np.abs(encoder.encode_queries(TEXTS) - wanted).max() <= 1e-6
    assert np.abs(encoder.encode_passages(TEXTS) - wanted).max() <= 1e-6
    assert encoder.encode_queries([]).shape == encoder.encode_passages([]).shape == (0, 32)


def test_what_is_taught_is_seen_and_the_rest_is_not_touched(model: Any) -> None:
    encoder = SentenceEncoder(model, name="made", revision="1", bf16=False)
    before = encoder.encode_queries(TEXTS)
    tower = encoder.tower()
    rng = np.random.default_rng(0)
    tower.take(
        {n: (w + rng.normal(0, 0.3, w.shape)).astype(np.float32) for n, w in tower.weights.items()}
    )
    taught = encoder.with_tower(tower).encode_queries(TEXTS)
    wanted = tower.model.encode(TEXTS, normalize_embeddings=True)
    assert np.abs(taught - wanted).max() <= 1e-6
    assert (taught * before).sum(axis=1).max() < 0.99
    np.testing.assert_array_equal(encoder.encode_queries(TEXTS), before)


@pytest.mark.parametrize("bf16", [True, False])
def test_taught_queries_are_encoded_in_the_same_arithmetic(model: Any, bf16: bool) -> None:
    encoder = SentenceEncoder(model, name="made", revision="1", bf16=bf16)
    untaught = encoder.with_tower(encoder.tower())
    np.testing.assert_array_equal(untaught.encode_queries(TEXTS), encoder.encode_queries(TEXTS))


def test_many_threads_get_what_one_gets(model: Any) -> None:
    encoder = SentenceEncoder(model, name="made", revision="1", bf16=True)
    wanted = (encoder.encode_queries(TEXTS), encoder.encode_passages(TEXTS))
    apart: list[float] = []

    def ask(method: Callable[[list[str]], Any], expected: Any) -> None:
        apart.extend(float(np.abs(method(TEXTS) - expected).max()) for _ in range(10))

    methods = (encoder.encode_queries, encoder.encode_passages)
    threads = [
        threading.Thread(target=ask, args=pair)
        for pair in zip(methods * 3, wanted * 3, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(apart) == 60
    assert max(apart) <= 1e-5
