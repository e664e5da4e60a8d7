"""Reads the rows of Parquet files, where pyarrow is installed."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from rag_flywheel.errors import ConfigError, InputError
from rag_flywheel.formats.json_values import ReadBytes

_AT_ONCE = 1_000  # rows


def parquet_rows(path: Path, read: ReadBytes | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (file and row for messages, values by column) of each row, a few in memory at a time.

    Raises ConfigError when pyarrow is not installed, and InputError for what is no Parquet.
    """
    try:
        parquet = import_module("pyarrow.parquet")
        errors = import_module("pyarrow").ArrowException
    except ImportError as error:
        raise ConfigError(
            f"reading {path} takes pyarrow, which is not installed; install the extra `parquet`, or export "
            "as JSONL or CSV"
        ) from error
    number, size = 0, path.stat().st_size
    try:
        with parquet.ParquetFile(path) as file:
            n_rows = max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(batch_size=_AT_ONCE):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
                if read is not None:
                    read(path, size * min(number, n_rows) // n_rows, size)
    except (errors, ValueError, OverflowError, OSError) as error:
        if isinstance(error, InputError) or getattr(error, "errno", None) is not None:
            raise  # the disk's own errors have a number, pyarrow's of a bad footer have none
        raise InputError(f"{path} cannot be read as Parquet ({error}); export it anew") from error
