"""Queries and the evidence of votes as ranking takes them."""

from collections.abc import Sequence

import numpy as np

from fakes import Vectors
from rag_flywheel.rank.evidence import Asked
from rag_flywheel.rank.score import Votes


def asked(vectors: Vectors) -> list[Asked]:
    """Queries of these vectors, whose words nobody asked before."""
    return [Asked(vector) for vector in vectors]


def supported(support: Sequence[float]) -> Votes:
    """Votes on similar questions alone, which give candidates this S."""
    nothing = np.zeros(len(support))
    return Votes(np.array(support, dtype=np.float64), nothing, nothing)
