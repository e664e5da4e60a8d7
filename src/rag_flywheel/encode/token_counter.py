"""Counts tokens as a sentence-transformers model does, by its tokenizer alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PASSAGE_PROMPTS = ("document", "passage", "corpus")  # in the library's order
_MOST = 1_000_000  # a tokenizer without a limit says 10^30


class TokenCounter:
    """The tokens of passages, with those that the model adds and with its prompt; thread-safe.

    max_tokens: how many of them the model reads.
    """

    def __init__(self, tokenizer: Any, max_tokens: int, prompt: str = "") -> None:
        self._tokenizer = tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._prompt = prompt
        self.max_tokens = max_tokens

    @classmethod
    def of_tokenizer(cls, tokenizer: str, max_tokens: int) -> "TokenCounter":
        """The counter by a tokenizer as JSON, without a prompt."""
        from tokenizers import Tokenizer

        return cls(Tokenizer.from_str(tokenizer), max_tokens)

    @classmethod
    def of_model(cls, model: Any) -> "TokenCounter | None":
        """The counter of a loaded SentenceTransformer; None if its tokenizer is not a fast one."""
        from tokenizers import Tokenizer

        backend = getattr(getattr(model, "tokenizer", None), "backend_tokenizer", None)
        most = getattr(model, "max_seq_length", None)
        if backend is None or not isinstance(most, int) or not 0 < most < _MOST:
            return None
        prompts = getattr(model, "prompts", None) or {}
        prompt = _prompt(prompts, getattr(model, "default_prompt_name", None))
        return cls(Tokenizer.from_str(backend.to_str()), most, prompt)

    @classmethod
    def of_folder(cls, folder: Path) -> "TokenCounter | None":
        """The counter of a saved model, which is not loaded; None if its files do not say enough."""
        from tokenizers import Tokenizer

        modules = _json(folder / "modules.json")
        first = modules[0] if isinstance(modules, list) and modules else None
        if not isinstance(first, dict) or not str(first.get("type")).endswith("Transformer"):
            return None
        part = folder / str(first.get("path") or "")
        most = token_limit(part)
        if most is None or not (part / "tokenizer.json").is_file():
            return None
        settings = _json(folder / "config_sentence_transformers.json")
        settings = settings if isinstance(settings, dict) else {}
        prompt = _prompt(settings.get("prompts") or {}, settings.get("default_prompt_name"))
        return cls(Tokenizer.from_file(str(part / "tokenizer.json")), most, prompt)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        encode = (
            self._tokenizer.encode
        )  # one by one: a batch starts threads, which a fork would lose
        return [len(encode(self._prompt + text).ids) for text in texts]


def token_limit(part: Path) -> int | None:
    """How many tokens a transformer reads, by the files in its folder; None when they do not say it."""
    said = (
        _json(part / "sentence_bert_config.json").get("max_seq_length"),
        _json(part / "tokenizer_config.json").get("model_max_length"),
        _json(part / "config.json").get("max_position_embeddings"),
    )
    if isinstance(said[0], int):
        return said[0]
    found = [n for n in said if isinstance(n, int) and 0 < n < _MOST]
    return min(found, default=None)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _prompt(prompts: Mapping[str, str], default: str | None) -> str:
    names = [name for name in _PASSAGE_PROMPTS if name in prompts]
    return str(prompts.get(names[0] if names else default or "", "") or "")
