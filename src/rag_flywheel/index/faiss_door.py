"""The only door to faiss. It must not know what is searched."""

import os
from functools import cache
from typing import Any


@cache
def faiss_library() -> Any:
    """The library, loaded when first needed; untyped, since its stubs lack what Python adds."""
    import faiss

    # the threads of OpenMP do not survive a fork: a child that waits for them waits for ever
    os.register_at_fork(after_in_child=lambda: faiss.omp_set_num_threads(1))
    return faiss
