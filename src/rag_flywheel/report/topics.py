"""Clusters the vectors of questions into topics; the only module that imports scikit-learn."""

import numpy as np
import numpy.typing as npt

from rag_flywheel.index.exact import typical_cosine
from rag_flywheel.records import Vectors

ALIKE = 0.45  # of the way from the typical cosine of two questions to 1


def clusters(queries: Vectors) -> npt.NDArray[np.int64]:
    """The number of each question's cluster, int64 (n,); queries: float32 (n, dim), unit rows.

    Average linkage on cosines: two clusters are one while their questions are, on average, closer
    than 0.45 of the way from the typical cosine to 1. Takes memory by the square of n.
    """
    if len(queries) < 2:
        return np.zeros(len(queries), dtype=np.int64)
    from sklearn.cluster import AgglomerativeClustering

    typical = min(max(typical_cosine(queries), 0.0), 0.9)
    farthest = (1.0 - ALIKE) * (1.0 - typical)
    model = AgglomerativeClustering(
        n_clusters=None, metric="cosine", linkage="average", distance_threshold=farthest
    )
    found: npt.NDArray[np.int64] = model.fit_predict(queries.astype(np.float64)).astype(np.int64)
    return found
