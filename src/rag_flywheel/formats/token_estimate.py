"""Estimates how many tokens an encoder makes of a text, for encoders that do not say.

Made to be rarely too low for WordPiece with an English vocabulary (all-MiniLM-L6-v2), which makes
more tokens of other languages than multilingual vocabularies do.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

_SPECIAL = 2.0  # that an encoder adds to each text
_LATIN, _DIGIT, _OTHER = 1, 2, 0
_WORD, _LETTER, _NUMBER, _FIGURE, _SYLLABLE = 0.3, 0.4, 0.5, 0.6, 2.6


def estimate_tokens(texts: Sequence[str]) -> list[int]:
    """Tokens of each text: 0.3 a word and 0.4 a letter in Latin script, 0.5 a number and 0.6 a digit,
    2.6 a syllable of Hangul, 1 for any other character but blanks, and 2 for the text."""
    if not texts:
        return []
    joined = "\n".join(texts) + "\n"
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    weights, kinds = _table()
    rows = np.minimum(codes, len(kinds) - 1)
    kind = kinds[rows]
    starts = np.ones(len(kind), dtype=bool)
    starts[1:] = kind[1:] != kind[:-1]
    tokens = weights[rows] + starts * np.array([0, _WORD, _NUMBER], np.float32)[kind]
    lengths = np.array([len(text) + 1 for text in texts])
    sums = np.add.reduceat(tokens.astype(np.float64), np.cumsum(lengths) - lengths)
    return [int(n) for n in np.ceil(sums + _SPECIAL - 1e-6)]


@cache
def _table() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Weight and kind of each character below U+10000; the last row stands for those above."""
    weights = np.ones(0x10000, dtype=np.float32)
    kinds = np.full(0x10000, _OTHER, dtype=np.uint8)
    for first, last in ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF)):
        kinds[first : last + 1], weights[first : last + 1] = _LATIN, _LETTER
    kinds[0x30:0x3A], weights[0x30:0x3A] = _DIGIT, _FIGURE
    weights[0xAC00:0xD7A4] = _SYLLABLE
    weights[0x300:0x370] = 0
    weights[[code for code in range(0x3001) if chr(code).isspace()]] = 0
    return weights, kinds
