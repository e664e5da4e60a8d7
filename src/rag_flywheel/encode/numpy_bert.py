"""Computes the same kind of model as `bert.py` with numpy, one text at a time, in float32.

For the first queries of a process: importing torch takes longer than hundreds of them. Numbers differ from
those of the library in float32 in the last digit or two.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from rag_flywheel.records import Vectors

Weights: TypeAlias = npt.NDArray[np.float32]
_Pair: TypeAlias = tuple[Weights, Weights]
_ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
_ERF_STEP = 0.3275911


@dataclass(frozen=True)
class Shape:
    """What the weights of a BERT do not say about it. eps: of its layer norms."""

    layers: int
    heads: int
    eps: float


@dataclass(frozen=True)
class _Layer:
    """The weights of one layer: matrices by what they are multiplied with, and layer norms."""

    three: _Pair
    joined: _Pair
    joined_norm: _Pair
    inner: _Pair
    last: _Pair
    last_norm: _Pair

    @classmethod
    def of(cls, weights: Mapping[str, Weights], name: str) -> "_Layer":
        parts = [_linear(weights, f"{name}.attention.self.{p}") for p in ("query", "key", "value")]
        matrices, biases = zip(*parts, strict=True)
        return cls(
            (np.concatenate(matrices, axis=1), np.concatenate(biases)),
            _linear(weights, f"{name}.attention.output.dense"),
            _pair(weights, f"{name}.attention.output.LayerNorm"),
            _linear(weights, f"{name}.intermediate.dense"),
            _linear(weights, f"{name}.output.dense"),
            _pair(weights, f"{name}.output.LayerNorm"),
        )


class NumpyBert:
    """Encodes texts by the weights of a BertModel, by their names in it; thread-safe.

    tokenizer: as JSON; max_tokens: how many it reads of a text.
    """

    def __init__(
        self, shape: Shape, weights: Mapping[str, Weights], tokenizer: str, max_tokens: int
    ) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._heads, self._eps = shape.heads, np.float32(shape.eps)
        self._words = weights["embeddings.word_embeddings.weight"]
        kinds = weights["embeddings.token_type_embeddings.weight"]
        self._places = weights["embeddings.position_embeddings.weight"] + kinds[0]
        self._first = _pair(weights, "embeddings.LayerNorm")
        self._layers = [_Layer.of(weights, f"encoder.layer.{i}") for i in range(shape.layers)]
        self.dim: int = self._words.shape[1]

    def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        found = np.empty((len(texts), self.dim), dtype=np.float32)
        for i, text in enumerate(texts):
            mean = self._tokens(self._tokenizer.encode(text).ids).mean(axis=0)
            found[i] = mean / np.linalg.norm(mean)
        return found

    def _tokens(self, ids: Sequence[int]) -> Weights:
        """The last layer's output for the tokens of a text, (n, dim)."""
        x = self._normed(self._words[ids] + self._places[: len(ids)], self._first)
        for layer in self._layers:
            seen = self._attended(_product(x, layer.three))
            x = self._normed(_product(seen, layer.joined) + x, layer.joined_norm)
            inner = _gelu(_product(x, layer.inner))
            x = self._normed(_product(inner, layer.last) + x, layer.last_norm)
        return x

    def _attended(self, three: Weights) -> Weights:
        """What each token takes from all; three: queries, keys and values, (n, 3 dim)."""
        n = len(three)
        queries, keys, values = three.reshape(n, 3, self._heads, -1).transpose(1, 2, 0, 3)
        logits = queries @ keys.transpose(0, 2, 1) / np.sqrt(np.float32(queries.shape[-1]))
        shares = np.exp(logits - logits.max(axis=2, keepdims=True))
        shares /= shares.sum(axis=2, keepdims=True)
        seen: Weights = (shares @ values).transpose(1, 0, 2).reshape(n, self.dim)
        return seen

    def _normed(self, x: Weights, norm: _Pair) -> Weights:
        centred = x - x.mean(axis=1, keepdims=True)
        variance = np.square(centred).mean(axis=1, keepdims=True)
        normed: Weights = centred / np.sqrt(variance + self._eps) * norm[0] + norm[1]
        return normed


def _pair(weights: Mapping[str, Weights], name: str) -> _Pair:
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def _linear(weights: Mapping[str, Weights], name: str) -> _Pair:
    """Transposed, since products with few rows take a third less time so."""
    weight, bias = _pair(weights, name)
    return np.ascontiguousarray(weight.T), bias


def _product(x: Weights, linear: _Pair) -> Weights:
    found: Weights = x @ linear[0]
    found += linear[1]
    return found


def _gelu(x: Weights) -> Weights:
    """By the error function of Abramowitz and Stegun 7.1.26, whose error is below 1.5e-7."""
    z = np.abs(x) * np.float32(np.sqrt(0.5))
    t = 1.0 / (1.0 + np.float32(_ERF_STEP) * z)
    sum_ = np.zeros_like(x)
    for factor in reversed(_ERF):
        sum_ = (sum_ + np.float32(factor)) * t
    erf = np.copysign(1.0 - sum_ * np.exp(-z * z), x)
    found: Weights = 0.5 * x * (1.0 + erf)
    return found
