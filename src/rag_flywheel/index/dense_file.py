"""Checks the bytes of a dense index file before faiss reads them, for faiss trusts every count."""

import struct
from pathlib import Path

from rag_flywheel.disk import regular_file

_HEADER = struct.Struct("<4siqqqBi")  # kind, width, rows, twice 2**20, trained, metric
_COUNT = struct.Struct("<q")
_KINDS = {b"IxM2": "IndexIDMap2", b"IxFI": "IndexFlatIP"}
_INNER_PRODUCT = 0
_LARGEST_DIM, _LARGEST_ROWS = 2**16, 2**31


def require_flat(path: Path, *, dim: int, n: int | None = None) -> None:
    """Raise ValueError unless the file is a flat inner-product index of this width under numbers.

    n: how many vectors it must hold. Every count in the file agrees with every other and with the
    file's size, so that reading it takes no more memory than the file is long. Raises OSError.
    """
    with regular_file(path) as (file, size):
        outer, inner = file.read(_HEADER.size), file.read(_HEADER.size)
        _require_header(outer, b"IxM2", dim)
        _require_header(inner, b"IxFI", dim)
        rows = _HEADER.unpack(outer)[2]
        if _HEADER.unpack(inner)[2] != rows or (n is not None and rows != n):
            raise ValueError(f"{path.name} holds {rows} vectors, which is not what it must")
        expected = 2 * (_HEADER.size + _COUNT.size) + rows * (4 * dim + 8)
        if size != expected:
            raise ValueError(f"{path.name} has {size} bytes; {rows} vectors take {expected}")
        counts = [file.read(_COUNT.size)]
        file.seek(4 * dim * rows, 1)
        counts.append(file.read(_COUNT.size))
        if counts != [_COUNT.pack(dim * rows), _COUNT.pack(rows)]:
            raise ValueError(f"{path.name} has counts that do not agree")


def _require_header(data: bytes, kind: bytes, dim: int) -> None:
    if len(data) != _HEADER.size:
        raise ValueError("it is cut short")
    found, width, rows, _, _, trained, metric = _HEADER.unpack(data)
    if found != kind or width != dim:
        what = _KINDS.get(found, "something else")
        raise ValueError(
            f"it holds {what} of width {width}; expected {_KINDS[kind]} of width {dim}"
        )
    if (trained, metric) != (1, _INNER_PRODUCT):
        raise ValueError("it is not searched by inner product")
    if not (0 < dim <= _LARGEST_DIM and 0 <= rows <= _LARGEST_ROWS):
        raise ValueError(f"it says that it has {rows} rows of {width}")
