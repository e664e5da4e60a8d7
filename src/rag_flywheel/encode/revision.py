"""Names weights by a hash over them, so that a path and a hub name of the same model agree."""

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt


def revision_of(weights: Mapping[str, npt.NDArray[np.float32]], *, base: str = "") -> str:
    """A hash over the names and the values of all weights; base: the revision that they change."""
    digest = hashlib.blake2b(base.encode(), digest_size=8)
    for name, values in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
