"""Computes the commonest kind of sentence-transformers model without the library: BERT, the mean over
its tokens, unit length.

Its weights come from the library's model, or from files that hold nothing else (`plain_model.py`). The
numbers are the library's to the last digit or two, in less time: there is little between the products of
matrices, and a batch has texts of similar length.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from rag_flywheel.encode.numpy_bert import Shape
from rag_flywheel.records import Vectors

_AT_ONCE = 2_048  # tokens, padding included: intermediate results stay in the processor's cache
_CLOSE = 1e-5


class Bert:
    """Encodes texts by a model's weights as they were when this was created; thread-safe.

    weights: torch tensors float32, by their names in a BertModel. tokenizer: as JSON; max_tokens: how
    many it reads of a text.
    """

    def __init__(
        self,
        shape: Shape,
        weights: Mapping[str, Any],
        tokenizer: str,
        max_tokens: int,
        *,
        half: bool = False,
    ) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._layers = _Layers(shape, weights, half=half)
        self.dim = self._layers.dim

    @classmethod
    def of(cls, model: Any, *, half: bool = False) -> "Bert | None":
        """The model, if it is of this kind and gives the same vectors on texts of every sort; else
        None, and the library has to encode. half: use bfloat16, after a comparison in float32."""
        if not _is_plain(model):
            return None
        bert, tokenizer = model[0].auto_model, model[0].tokenizer.backend_tokenizer.to_str()
        config, weights = bert.config, bert.state_dict()
        shape = Shape(config.num_hidden_layers, config.num_attention_heads, config.layer_norm_eps)
        whole = cls(shape, weights, tokenizer, model.max_seq_length)
        if not whole.agrees_with(model):
            return None
        return cls(shape, weights, tokenizer, model.max_seq_length, half=True) if half else whole

    def agrees_with(self, model: Any) -> bool:
        """Whether a SentenceTransformer gives the same vectors, on texts of every sort; for float32."""
        long = "a longer text, " * model.max_seq_length
        for texts in (["one"], ["", "Ünïcode  字\u200d\n[SEP] <b> 🙂", long], ["two words"]):
            wanted = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
            if not np.abs(self.encode(texts) - wanted).max() <= _CLOSE:
                return False
        return True

    def encode(self, texts: Sequence[str], *, alone: bool = False) -> Vectors:
        """float32 (n, dim), unit rows; alone: each text by itself, so that its vector is the same to
        the bit whatever it comes with."""
        import torch

        found = np.empty((len(texts), self._layers.dim), dtype=np.float32)
        ids = [self._tokenizer.encode(text).ids for text in texts]
        parts = np.arange(len(ids))[:, None] if alone else _batches([len(row) for row in ids])
        with torch.inference_mode():
            for rows in parts:
                found[rows] = self._layers.vectors([ids[i] for i in rows]).numpy()
        return found


class _Layers:
    """The weights of a BertModel, and the vectors that they give for tokens.

    Products with the few tokens of a query take their time to read weights: in float32 a sixth less
    where matrices lie transposed, in bfloat16 a third less where they lie as they come.
    """

    def __init__(self, shape: Shape, weights: Mapping[str, Any], *, half: bool) -> None:
        import torch

        self._kind = torch.bfloat16 if half else torch.float32
        self._heads, self._eps = shape.heads, shape.eps
        self._words = weights["embeddings.word_embeddings.weight"]
        self.dim: int = self._words.shape[1]
        kinds = weights["embeddings.token_type_embeddings.weight"]
        self._places = weights["embeddings.position_embeddings.weight"] + kinds[0]
        self._first = _pair(weights, "embeddings.LayerNorm")
        self._layers = [self._layer(weights, f"encoder.layer.{i}") for i in range(shape.layers)]

    def _layer(self, weights: Mapping[str, Any], name: str) -> tuple[Any, ...]:
        import torch

        three = [_pair(weights, f"{name}.attention.self.{p}") for p in ("query", "key", "value")]
        parts, biases = zip(*three, strict=True)
        return (
            self._linear(torch.cat(parts), torch.cat(biases)),
            self._linear(*_pair(weights, f"{name}.attention.output.dense")),
            self._norm(*_pair(weights, f"{name}.attention.output.LayerNorm")),
            self._linear(*_pair(weights, f"{name}.intermediate.dense")),
            self._linear(*_pair(weights, f"{name}.output.dense")),
            self._norm(*_pair(weights, f"{name}.output.LayerNorm")),
        )

    def _linear(self, weight: Any, bias: Any) -> tuple[Any, Any]:
        held = weight.to(self._kind)
        turned = held.t() if self._kind.itemsize == 2 else held.t().contiguous()
        return turned, bias.to(self._kind)

    def _norm(self, weight: Any, bias: Any) -> tuple[Any, Any]:
        return weight.to(self._kind), bias.to(self._kind)

    def vectors(self, ids: Sequence[Sequence[int]]) -> Any:
        """A torch tensor float32 (n, dim) of unit rows."""
        import torch
        from torch.nn.functional import normalize

        lengths = [len(row) for row in ids]
        most = max(lengths)
        if min(lengths) == most:
            found = self._tokens(torch.tensor(ids), None).float().mean(dim=1)
        else:
            padded = torch.tensor([[*row, *[0] * (most - len(row))] for row in ids])
            n = torch.tensor(lengths)[:, None]
            there = torch.arange(most) < n
            mask = torch.zeros(there.shape, dtype=self._kind).masked_fill(~there, -torch.inf)
            hidden = self._tokens(padded, mask[:, None, None, :]).float()
            found = (hidden * there[:, :, None]).sum(dim=1) / n
        return normalize(found, dim=1)

    def _tokens(self, ids: Any, mask: Any) -> Any:
        """The last layer's output for tokens, (n, length, dim); mask: added to the attention logits,
        None: without one."""
        import torch

        addmm, functional = torch.addmm, cast(Any, torch.nn.functional)
        norm, attended = functional.layer_norm, functional.scaled_dot_product_attention
        n, length = ids.shape
        size = (self.dim,)
        x = (functional.embedding(ids, self._words) + self._places[:length]).view(-1, self.dim)
        x = norm(x, size, *self._first, self._eps).to(self._kind)
        for (three, three_b), (join, join_b), seen_n, (wide, wide_b), (
            last,
            last_b,
        ), last_n in self._layers:
            heads = addmm(three_b, x, three).view(n, length, 3, self._heads, -1)
            seen = attended(*heads.permute(2, 0, 3, 1, 4).unbind(0), attn_mask=mask)
            seen = seen.transpose(1, 2).reshape(-1, self.dim)
            x = norm(addmm(join_b, seen, join) + x, size, *seen_n, self._eps)
            inner = functional.gelu(addmm(wide_b, x, wide))
            x = norm(addmm(last_b, inner, last) + x, size, *last_n, self._eps)
        return x.view(n, length, self.dim)


def _pair(weights: Mapping[str, Any], name: str) -> tuple[Any, Any]:
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def prepare_torch() -> bool:
    """Have forked children use one thread, since they have none of the others; whether the processor
    has bfloat16 arithmetic."""
    import torch

    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))  # as in dense.py
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def _batches(lengths: Sequence[int]) -> Iterator[npt.NDArray[np.int64]]:
    """Positions of texts for each batch: of similar length, and not too many tokens."""
    order = np.argsort(-np.array(lengths), kind="stable")
    start = 0
    while start < len(order):
        stop = start + max(1, _AT_ONCE // lengths[order[start]])
        yield order[start:stop]
        start = stop


_OF_TASKS = (
    "query_length",
    "document_length",
    "query_expansion",
)  # from release 6.0 of the library


def _is_plain(model: Any) -> bool:
    """BERT, mean and unit length; nothing put before texts, nothing cut off vectors."""
    parts = list(model)
    if [type(part).__name__ for part in parts[:2]] != ["Transformer", "Pooling"]:
        return False
    if len(parts) > 3 or (len(parts) == 3 and type(parts[2]).__name__ != "Normalize"):
        return False
    transformer, pooling = parts[:2]
    bert = transformer.auto_model
    return (
        type(bert).__name__ == "BertModel"
        and type(bert).__module__.startswith("transformers.")
        and bert.config.hidden_act == "gelu"
        and not bert.config.is_decoder
        and bert.dtype.itemsize == 4
        and pooling.pooling_mode == "mean"
        and getattr(transformer.tokenizer, "is_fast", False)
        and isinstance(model.max_seq_length, int)
        and not any(model.prompts.values())
        and model.default_prompt_name is None
        and model.truncate_dim is None
        and not transformer.processing_kwargs
        and all(getattr(transformer, name, None) is None for name in _OF_TASKS)
    )
