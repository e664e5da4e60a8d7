"""Static features of candidates for a query: what is known without any vote.

It must not know how they are weighted.
"""

import numpy as np
import numpy.typing as npt


def static_features(
    cosines: npt.NDArray[np.float32], bm25: npt.NDArray[np.float32], best_bm25: float
) -> dict[str, npt.NDArray[np.floating]]:
    """By name of `parameters.FEATURES`, each (n,): cosine, and BM25 over the query's best BM25.

    The share is 0 for every candidate when no text has a word of the query.
    """
    share = bm25 / best_bm25 if best_bm25 > 0 else np.zeros_like(bm25)
    return {"dense": cosines, "bm25": share}
