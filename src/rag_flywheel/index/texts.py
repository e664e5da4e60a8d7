"""Some texts of an index as the numbers of their words."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.tokenizer import TokenIds


@dataclass(frozen=True)
class Texts:
    """Texts at positions, int64 (n,), of an index.

    tokens int32: their words, one text after the other; lengths int64 (n,): how many words each has.
    """

    positions: npt.NDArray[np.int64]
    tokens: TokenIds
    lengths: npt.NDArray[np.int64]
