"""Counts the passages of which an encoder does not read the end."""

from collections.abc import Iterable

from rag_flywheel.encoder import Encoder

_SPECIAL = 32  # tokens that a model adds, its prompt included
_AT_ONCE = 256


def count_too_long(encoder: Encoder, texts: Iterable[str]) -> int:
    """How many of the texts have more tokens than the encoder reads; 0 when it does not say.

    An encoder says so by `max_tokens`, a number, and `count_tokens(texts)`, the tokens of each text.
    """
    most = getattr(encoder, "max_tokens", None)
    count = getattr(encoder, "count_tokens", None)
    if not isinstance(most, int) or count is None:
        return 0
    # a token has a byte at least, so most short texts need no counting
    unsure = [text for text in texts if len(text.encode()) > most - _SPECIAL]
    parts = (unsure[start : start + _AT_ONCE] for start in range(0, len(unsure), _AT_ONCE))
    return sum(n > most for part in parts for n in count(part))
