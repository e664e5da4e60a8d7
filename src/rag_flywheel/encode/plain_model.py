"""Reads a model that `Bert` computes from its files, without transformers or sentence-transformers.

Files must say nothing but what is listed here, of which it is known what the libraries make of it. A
model with anything else is left to them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel.encode.numpy_bert import Shape, Weights
from rag_flywheel.encode.token_counter import token_limit

PREFIX = "0.model."  # of a weight's name in the library's model

Allowed = Mapping[str, Sequence[object] | None]
"""Keys that a file may have, with the values that they may have; None: any."""

_FILES = {
    "config.json",
    "config_sentence_transformers.json",
    "data_config.json",  # what the model was trained on
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
}
_SIZES = (
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "type_vocab_size",
    "vocab_size",
)
_CONFIG: Allowed = {
    **dict.fromkeys(_SIZES),
    **dict.fromkeys(["_name_or_path", "transformers_version", "use_cache", "layer_norm_eps"]),
    **dict.fromkeys(["attention_probs_dropout_prob", "hidden_dropout_prob", "classifier_dropout"]),
    **dict.fromkeys(["initializer_range", "gradient_checkpointing", "tie_word_embeddings"]),
    **dict.fromkeys(["pad_token_id", "bos_token_id", "eos_token_id"]),
    "add_cross_attention": [False],
    "architectures": [["BertModel"]],
    "chunk_size_feed_forward": [0],
    "dtype": ["float32"],
    "hidden_act": ["gelu"],
    "is_decoder": [False],
    "model_type": ["bert"],
    "position_embedding_type": ["absolute"],
    "torch_dtype": ["float32"],
}
_MODULES = (
    {
        "sentence_transformers.models.Transformer",
        "sentence_transformers.base.modules.transformer.Transformer",
    },
    {
        "sentence_transformers.models.Pooling",
        "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    },
    {
        "sentence_transformers.models.Normalize",
        "sentence_transformers.base.modules.normalize.Normalize",
    },
)
_SENTENCE_BERT: Allowed = {
    "do_lower_case": [False],
    "max_seq_length": None,
    "modality_config": [{"text": {"method": "forward", "method_output_name": "last_hidden_state"}}],
    "module_output_name": ["token_embeddings"],
    "transformer_task": ["feature-extraction"],
}
_SENTENCE_TRANSFORMERS: Allowed = {
    "__version__": None,
    "default_prompt_name": [None],
    "model_type": ["SentenceTransformer"],
    "prompts": [{}, {"query": "", "document": ""}],
    "similarity_fn_name": None,
    "truncate_dim": [None],
}
_OTHER_POOLINGS = ("cls_token", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens")
_POOLING: Allowed = {
    "embedding_dimension": None,
    "word_embedding_dimension": None,
    "pooling_mode": ["mean"],
    "pooling_mode_mean_tokens": [True],
    "include_prompt": [True],
    **{f"pooling_mode_{mode}": [False] for mode in (*_OTHER_POOLINGS, "lasttoken")},
}
_NORMALIZE: Allowed = {
    "module_input_name": ["sentence_embedding"],
    "module_output_name": ["sentence_embedding", None],
}
_TOKENS = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
_AS_THEY_ARE = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized"], False)
_TOKENIZER: Allowed = {
    **dict.fromkeys(["name_or_path", "backend", "is_local", "local_files_only"]),
    **dict.fromkeys(["do_lower_case", "strip_accents", "tokenize_chinese_chars"]),
    **dict.fromkeys(["model_max_length", "do_basic_tokenize", "special_tokens_map_file"]),
    **dict.fromkeys(["clean_up_tokenization_spaces", "max_length", "pad_token_type_id"]),
    **{name: [token] for name, token in _TOKENS.items()},
    "added_tokens_decoder": None,  # compared with tokenizer.json
    "extra_special_tokens": [{}, []],
    "never_split": [None, []],
    "pad_to_multiple_of": [None],
    "padding_side": ["right"],
    "stride": [0],
    "tokenizer_class": ["BertTokenizer", "BertTokenizerFast"],
    "truncation_side": ["right"],
    "truncation_strategy": ["longest_first"],
}


@dataclass(frozen=True)
class PlainModel:
    """A BERT whose tokens' mean, at unit length, is a text's vector.

    weights: float32, by their names in a BertModel; tokenizer: as JSON; max_tokens: how many it reads of
    a text.
    """

    shape: Shape
    weights: Mapping[str, Weights]
    tokenizer: str
    max_tokens: int


def read_plain_model(folder: Path) -> PlainModel | None:
    """The model in a folder; None when it is, or may be, of another kind."""
    try:
        return _read(folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None  # files of another form; the library says what is wrong with them


def _read(folder: Path) -> PlainModel | None:
    config = _json(folder / "config.json")
    tokenizer = _json(folder / "tokenizer.json")
    limit = token_limit(folder)
    if (
        {path.name for path in folder.glob("*.json")} - _FILES
        or any(folder.glob("*.jinja"))
        or not _keeps_to(config, _CONFIG)
        or any(type(config[name]) is not int or config[name] < 1 for name in _SIZES)
        or not 0 < config["layer_norm_eps"] < 1
        or config["hidden_size"] % config["num_attention_heads"]
        or not _parts_are_plain(folder, config["hidden_size"])
        or not _tokenizer_is_plain(folder, tokenizer, config["vocab_size"])
        or limit is None
        or not 2 < limit <= config["max_position_embeddings"]
    ):
        return None
    weights = _weights(folder / "model.safetensors", config)
    if weights is None:
        return None
    shape = Shape(
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        eps=config["layer_norm_eps"],
    )
    return PlainModel(shape, weights, json.dumps(tokenizer), limit)


def _json(path: Path, default: object = None) -> Any:
    """What a file holds; a file that is not there raises, unless there is a default."""
    if default is not None and not path.exists():
        return default
    return json.loads(path.read_text(encoding="utf-8"))


def _keeps_to(found: Mapping[str, Any], allowed: Allowed) -> bool:
    return all(
        key in allowed and ((values := allowed[key]) is None or value in values)
        for key, value in found.items()
    )


def _parts_are_plain(folder: Path, dim: int) -> bool:
    """Whether the library puts nothing before the transformer and after it the mean, at unit length."""
    modules = _json(folder / "modules.json")
    if not 2 <= len(modules) <= 3:
        return False
    for i, (module, kinds) in enumerate(zip(modules, _MODULES, strict=False)):
        if module["type"] not in kinds or module["name"] != str(i):
            return False
        if module.keys() - {"idx", "name", "path", "type"}:
            return False
    pooling = _json(folder / modules[1]["path"] / "config.json")
    width = pooling.get("embedding_dimension", pooling.get("word_embedding_dimension"))
    return (
        modules[0]["path"] == ""
        and width == dim
        and ("pooling_mode" in pooling or pooling["pooling_mode_mean_tokens"])
        and _keeps_to(pooling, _POOLING)
        and all(
            _keeps_to(_json(folder / module["path"] / "config.json", {}), _NORMALIZE)
            for module in modules[2:]
        )
        and _keeps_to(_json(folder / "sentence_bert_config.json"), _SENTENCE_BERT)
        and _keeps_to(
            _json(folder / "config_sentence_transformers.json", {}), _SENTENCE_TRANSFORMERS
        )
    )


def _tokenizer_is_plain(folder: Path, tokenizer: Mapping[str, Any], vocab_size: int) -> bool:
    """Whether tokens are the same by tokenizer.json and by the settings beside it, either of which the
    library may go by."""
    settings = _json(folder / "tokenizer_config.json")
    model = tokenizer["model"]
    vocab = model["vocab"]
    words = sorted(vocab, key=vocab.__getitem__)
    ids = {token: vocab[token] for token in _TOKENS.values()}
    added = tokenizer["added_tokens"]
    listed = folder / "vocab.txt"
    return (
        _keeps_to(settings, _TOKENIZER)
        and "tokenizer_class" in settings
        and tokenizer.keys()
        <= {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer"}
        | {"post_processor", "decoder", "model"}
        and tokenizer["normalizer"]
        == {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": settings.get("tokenize_chinese_chars", True),
            "strip_accents": settings.get("strip_accents"),
            "lowercase": settings.get("do_lower_case", True),
        }
        and tokenizer["pre_tokenizer"] == {"type": "BertPreTokenizer"}
        and _frames(tokenizer["post_processor"], ids)
        and {**model, "vocab": None}
        == {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": None,
        }
        and [vocab[word] for word in words] == list(range(len(words)))
        and len(words) <= vocab_size
        and (not listed.exists() or _lines(listed) == words)
        and sorted(added, key=lambda token: str(token["content"]))
        == [
            {"id": ids[token], "content": token, "special": True, **_AS_THEY_ARE}
            for token in sorted(ids)
        ]
        and _specials_are_plain(folder, settings, ids)
    )


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def _frames(processor: Mapping[str, Any], ids: Mapping[str, int]) -> bool:
    """Whether a text stands between [CLS] and [SEP]."""
    first, text, last = processor["single"]
    tokens = processor["special_tokens"]
    return (
        processor["type"] == "TemplateProcessing"
        and first == {"SpecialToken": {"id": "[CLS]", "type_id": 0}}
        and text == {"Sequence": {"id": "A", "type_id": 0}}
        and last == {"SpecialToken": {"id": "[SEP]", "type_id": 0}}
        and all(tokens[token]["ids"] == [ids[token]] for token in ("[CLS]", "[SEP]"))
    )


def _specials_are_plain(folder: Path, settings: Mapping[str, Any], ids: Mapping[str, int]) -> bool:
    """Whether special tokens are everywhere those of tokenizer.json."""
    by_id = {str(ids[token]): {"content": token, "special": True, **_AS_THEY_ARE} for token in ids}
    named = _json(folder / "special_tokens_map.json", {})
    return settings.get("added_tokens_decoder", by_id) == by_id and all(
        value in (_TOKENS[name], {"content": _TOKENS[name], **_AS_THEY_ARE})
        for name, value in named.items()
    )


def _weights(path: Path, config: Mapping[str, Any]) -> Mapping[str, Weights] | None:
    """The tensors of a BertModel; None when others are there, or one has another shape or kind."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        found = load(path.read_bytes())  # not mapped, so that nobody changes what was checked
    except SafetensorError:
        return None
    found.pop("embeddings.position_ids", None)  # by earlier releases of transformers
    if len(found) != 7 + 16 * config["num_hidden_layers"]:
        return None
    expected = _shapes(config)
    fit = {name: value.shape for name, value in found.items()} == expected
    return found if fit and all(value.dtype == np.float32 for value in found.values()) else None


def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    dim, inner = config["hidden_size"], config["intermediate_size"]
    found: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], dim),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], dim),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], dim),
    }
    linear = {"pooler.dense": (dim, dim)}
    norms = ["embeddings.LayerNorm"]
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        own = ("self.query", "self.key", "self.value", "output.dense")
        linear |= {f"{layer}.attention.{name}": (dim, dim) for name in own}
        linear |= {
            f"{layer}.intermediate.dense": (inner, dim),
            f"{layer}.output.dense": (dim, inner),
        }
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    for name, shape in linear.items():
        found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in norms:
        found |= {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}
    return found
