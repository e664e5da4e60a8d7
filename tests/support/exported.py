"""What tests of exports share: every kind of export, and what is in the files that one wrote."""

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rag_flywheel import Flywheel
from rag_flywheel.formats.printable import cell_as_written
from rag_flywheel.records import ExportReport

SETS = ("pairs", "triplets", "labeled-pairs", "preferences", "kto", "dpo", "evaluation")
Write = Callable[[Flywheel, Path], ExportReport]


def _log(what: str, ending: str) -> Write:
    return lambda fw, folder: getattr(fw.export, what)(folder / f"{what}{ending}", all_tenants=True)


def _folder(what: str) -> Write:
    return lambda fw, folder: getattr(fw.export, what)(folder / what, all_tenants=True)


def _set(kind: Any, file_format: Any) -> Write:
    return lambda fw, folder: fw.export.training_set(
        kind,
        folder / f"{kind}-{file_format}",
        file_format=file_format,
        unreviewed=True,
        all_tenants=True,
    )


EXPORTS: dict[str, Write] = {
    **{
        f"{w}{e}": _log(w, e)
        for w in ("votes", "judgments", "retrievals")
        for e in (".jsonl", ".csv")
    },
    **{what: _folder(what) for what in ("beir", "trec", "ubi")},
    **{kind: _set(kind, "jsonl") for kind in SETS},
}
"""One of each kind and format that needs no further package."""
IN_PARQUET: dict[str, Write] = {
    **{f"{w}.parquet": _log(w, ".parquet") for w in ("votes", "judgments", "retrievals")},
    **{f"{kind} in parquet": _set(kind, "parquet") for kind in SETS},
}


def jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of all splits of a training set."""
    return [row for path in _split_files(folder) for row in jsonl(path)]


def provenance(folder: Path) -> list[dict[str, Any]]:
    """Where these rows come from, in the same order."""
    return [
        row for path in _split_files(folder) for row in jsonl(folder / "provenance" / path.name)
    ]


def _split_files(folder: Path) -> Iterator[Path]:
    return (p for n in ("train", "dev", "test") if (p := folder / f"{n}.jsonl").exists())


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a .csv, with its cells as they were before they were made harmless."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: cell_as_written(cell) for name, cell in row.items()}
            for row in csv.DictReader(file, strict=True)
        ]
