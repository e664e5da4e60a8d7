"""Every answer of an encoder is checked before it is used; a spec string names how to make one."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fakes import WordEncoder
from rag_flywheel.encode.make import make_encoder
from rag_flywheel.encoder import TextEncoder, check_encoder
from rag_flywheel.errors import EncoderError, EncoderNotFoundError, FlywheelError

Method = Callable[[Sequence[str]], npt.ArrayLike]
UNIT = np.array([[0.6, 0.8, 0.0], [0.0, 0.0, -1.0]])
TEXTS = ["one", "two"]


def answering(rows: npt.ArrayLike) -> Method:
    return lambda texts: rows


def encode(method: Method, texts: Sequence[str], dim: int) -> npt.NDArray[np.float32]:
    return TextEncoder("any", dim, method).encode(texts)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_unit_rows_pass_as_float32(dtype: type) -> None:
    found = encode(answering(UNIT.astype(dtype)), TEXTS, 3)
    assert found.dtype == np.float32
    assert found == pytest.approx(UNIT, abs=1e-3)
    assert np.linalg.norm(found, axis=1) == pytest.approx([1.0, 1.0], abs=1e-6)


def test_a_list_of_lists_passes() -> None:
    assert encode(answering(UNIT.tolist()), TEXTS, 3) == pytest.approx(UNIT)


def test_rounding_is_taken_out_of_the_length_but_not_out_of_the_direction() -> None:
    found = encode(answering(UNIT * 1.004), TEXTS, 3)
    assert found == pytest.approx(UNIT, abs=1e-6)


def test_no_texts_give_no_rows() -> None:
    assert encode(WordEncoder(7).encode_queries, [], 7).shape == (0, 7)


def test_texts_reach_the_encoder_in_order() -> None:
    encoder = WordEncoder(16)
    found = encode(encoder.encode_passages, ["red", "blue", "red"], 16)
    assert found[0].tolist() == found[2].tolist()
    assert found[1] == pytest.approx(encoder.encode_passages(["blue"])[0])


def changed(row: int, column: int, value: float) -> npt.NDArray[np.float64]:
    rows = UNIT.copy()
    rows[row, column] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (changed(1, 2, np.nan), "NaN"),
        (changed(0, 0, np.inf), "infinity"),
        (UNIT[:1], r"shape \(1, 3\) for 2 texts; expected \(2, 3\)"),
        (UNIT[:, :2], r"shape \(2, 2\) for 2 texts; expected \(2, 3\)"),
        (UNIT.T, r"shape \(3, 2\)"),
        (UNIT[None], r"shape \(1, 2, 3\)"),
        (UNIT[0], r"shape \(3,\)"),
        (None, r"shape \(\)"),
        ([], r"shape \(0,\)"),
        (np.array([[1, 0, 0], [0, 1, 0]]), "int64 values"),
        (np.array([[True, False, False], [False, True, False]]), "bool values"),
        (UNIT.astype(complex), "complex128 values"),
        (UNIT.astype(str), "expected finite float32"),
        (UNIT.astype(object), "object values"),
        (UNIT * 1.02, "length 1.020; expected unit length"),
        (UNIT * 0.5, "length 0.500; expected unit length"),
        (changed(1, 2, 0.0), "length 0.000; expected unit length"),
        (changed(1, 2, 3.0), "length 3.000; expected unit length"),
    ],
)
def test_unusable_answers_are_refused(rows: npt.ArrayLike, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        encode(answering(rows), TEXTS, 3)


def test_rows_of_different_widths_are_refused() -> None:
    ragged: Any = [[0.6, 0.8, 0.0], [1.0]]
    with pytest.raises(EncoderError, match="shape"):
        encode(answering(ragged), TEXTS, 3)


def test_an_encoder_passes_as_it_is() -> None:
    encoder = WordEncoder()
    assert check_encoder(encoder) is encoder


class NoQueries:
    name, revision, dim = "half", "1", 3

    def encode_passages(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.zeros((len(texts), 3), dtype=np.float32)


@pytest.mark.parametrize("thing", [None, 3, WordEncoder, NoQueries(), object(), {"name": "x"}])
def test_what_is_no_encoder_is_refused(thing: object) -> None:
    with pytest.raises(EncoderError, match=r"is no encoder; expected name, revision, dim"):
        check_encoder(thing)


@pytest.mark.parametrize("dim", [0, -1, 2.0, "3", None, True])
def test_a_width_that_is_no_positive_whole_number_is_refused(dim: Any) -> None:
    encoder = WordEncoder()
    encoder.dim = dim
    with pytest.raises(EncoderError, match=r"'words' has dim .*expected a whole number > 0"):
        check_encoder(encoder)


@pytest.mark.parametrize(
    ("name", "revision"), [("", "1"), (None, "1"), ("words", 1), ("words", "")]
)
def test_name_and_revision_must_be_strings_that_say_something(name: Any, revision: Any) -> None:
    with pytest.raises(EncoderError, match=r"name|revision"):
        check_encoder(WordEncoder(name=name, revision=revision))


def test_a_spec_makes_the_encoder_that_its_factory_makes() -> None:
    made = make_encoder("fakes:word_encoder")
    assert (made.name, made.revision, made.dim) == ("words", "1", 64)
    assert made.encode_queries(["a b"]) == pytest.approx(WordEncoder().encode_queries(["a b"]))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "expected 'sentence-transformers:NAME' or 'module:factory'"),
        ("fakes", "expected 'sentence-transformers:NAME' or 'module:factory'"),
        ("fakes:", "expected 'sentence-transformers:NAME' or 'module:factory'"),
        (":word_encoder", "expected 'sentence-transformers:NAME' or 'module:factory'"),
        ("no_such_module_here:make", "no_such_module_here"),
        ("fakes:no_such_factory", "no_such_factory"),
        (".fakes:word_encoder", "cannot be made"),
        ("operator:add", "called without arguments"),
        ("sentence-transformers:/no/such/folder", "no folder /no/such/folder"),
    ],
)
def test_specs_that_name_no_encoder(spec: str, message: str) -> None:
    with pytest.raises(EncoderNotFoundError, match=message):
        make_encoder(spec)


def test_a_factory_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_a_key() -> WordEncoder:
        raise KeyError("API_KEY")

    monkeypatch.setattr("fakes.word_encoder", without_a_key)
    with pytest.raises(EncoderNotFoundError, match=r"cannot be made \(KeyError: 'API_KEY'\)"):
        make_encoder("fakes:word_encoder")


@pytest.mark.parametrize("error", [ConnectionError("refused"), KeyError("data"), ValueError("x")])
def test_an_encoder_that_fails_says_so(error: Exception) -> None:
    """Not as an error of the disk, which a lost connection is to Python too."""

    def fails(texts: Sequence[str]) -> npt.ArrayLike:
        raise error

    with pytest.raises(EncoderError, match=r"failed on 2 texts \(\w+Error\)") as caught:
        TextEncoder("1", 4, fails).encode(["a", "b"])
    assert caught.value.__cause__ is error


def test_a_factory_of_something_else_is_refused() -> None:
    with pytest.raises(EncoderError, match="dict is no encoder"):
        make_encoder("builtins:dict")


def test_every_refusal_can_be_caught_as_one() -> None:
    with pytest.raises(FlywheelError):
        make_encoder("nowhere")


class InParts:
    """Encodes parts from the last to the first, or as `yields` says."""

    name, revision, dim = "in parts", "1", 2

    def __init__(self, yields: Callable[[Sequence[Sequence[str]]], Iterable[Any]]) -> None:
        self.yields = yields

    def encode_queries(self, texts: Sequence[str]) -> Any:
        return np.array([[1.0, 0.0]] * len(texts), dtype=np.float32)

    encode_passages = encode_queries

    def encode_passages_in_parts(self, parts: Sequence[Sequence[str]]) -> Iterable[Any]:
        return self.yields(parts)


def unit(n: int) -> Any:
    return np.array([[0.0, 1.0]] * n, dtype=np.float32)


def test_parts_come_in_any_order_and_one_alone_is_encoded_here() -> None:
    encoder = InParts(lambda parts: [(i, unit(len(parts[i]))) for i in (2, 0, 1)])
    passages = TextEncoder.of_passages(encoder)
    found = list(passages.encode_parts([["a"], ["b", "c"], ["d"]]))
    assert [number for number, _ in found] == [2, 0, 1]
    assert [vectors.tolist() for _, vectors in found] == [[[0, 1]], [[0, 1]], [[0, 1]] * 2]
    assert [(n, v.tolist()) for n, v in passages.encode_parts([["a"]])] == [(0, [[1, 0]])]
    queries = TextEncoder.of_queries(encoder, 2)  # which it does not encode in parts
    assert [v.tolist() for _, v in queries.encode_parts([["a"], ["b"]])] == [[[1, 0]]] * 2


@pytest.mark.parametrize(
    ("yields", "says"),
    [
        (lambda parts: [(0, unit(1))], "returned no more parts of 2"),
        (lambda parts: [(0, unit(1)), (0, unit(1))], "returned part 0 of 2"),
        (lambda parts: [(0, unit(1)), (7, unit(1))], "returned part 7 of 2"),
        (lambda parts: [(1, unit(2))], r"shape \(2, 2\) for 1 text"),
        (lambda parts: [(1, 3 * unit(1))], "length 3.000"),
        (lambda parts: 1 / 0, r"failed on 2 texts \(ZeroDivisionError\)"),
        (lambda parts: (1 / 0 for _ in parts), r"failed on 2 texts \(ZeroDivisionError\)"),
    ],
)
def test_parts_that_cannot_be_used(yields: Any, says: str) -> None:
    passages = TextEncoder.of_passages(InParts(yields))
    with pytest.raises(EncoderError, match=says):
        list(passages.encode_parts([["a"], ["b"]]))
