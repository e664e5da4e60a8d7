"""Loads faiss; no other module imports it. It must not know what is searched."""

import os
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from rag_flywheel.records import Vectors


@cache
def faiss_library() -> Any:
    """The library, loaded when first needed; untyped, since its stubs lack what Python adds."""
    import faiss

    # the threads of OpenMP do not survive a fork: a child that waits for them waits for ever
    os.register_at_fork(after_in_child=lambda: faiss.omp_set_num_threads(1))
    return faiss


def rows_of(flat: Any) -> Vectors:
    """All vectors of a flat index, float32 (n, dim): its own memory, until more are added."""
    n, dim = int(flat.ntotal), int(flat.d)
    if not n:
        return np.empty((0, dim), dtype=np.float32)
    rows: Vectors = faiss_library().rev_swig_ptr(flat.get_xb(), n * dim)
    return rows.reshape(n, dim)


class _Memory:
    """The numbers of a vector of faiss as numpy reads them; owner: what they belong to, which lives as long
    as an array of them."""

    def __init__(self, owner: Any, vector: Any) -> None:
        self._owner = owner
        self.__array_interface__ = {
            "version": 3,
            "shape": (vector.size(),),
            "typestr": "=i4",
            "data": (int(vector.data()), True),
        }


def numbers_of(owner: Any, vector: Any) -> npt.NDArray[np.int32]:
    """The numbers in a vector of int32 of faiss: its own memory, not to be written."""
    if not vector.size():
        return np.empty(0, dtype=np.int32)
    numbers: npt.NDArray[np.int32] = np.asarray(_Memory(owner, vector))
    return numbers
