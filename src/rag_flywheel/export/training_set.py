"""Writes a training set as a folder: a file for each split, where each row comes from, and a manifest."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

from rag_flywheel.export.allowed import Asked
from rag_flywheel.export.graded import SPLITS
from rag_flywheel.export.training_rows import (
    COLUMNS,
    PROVENANCE,
    Made,
    Recipe,
    rows_of,
)
from rag_flywheel.formats.row_files import Column, Row, write_rows
from rag_flywheel.records import FileFormat, Progress, TrainingSet
from rag_flywheel.store.connection import Connection

FORMAT_VERSION = 1
MANIFEST, CARD = "manifest.json", "README.md"
PROVENANCE_FOLDER = "provenance"
FILE_FORMATS: tuple[str, ...] = get_args(FileFormat)
_VERSION_CHARS = 16


@dataclass(frozen=True)
class Written:
    """What was written: rows by split, what was left out by why, and the name of the content."""

    rows: Mapping[str, int]
    left_out: Mapping[str, int]
    version: str


def write_training_set(
    conn: Connection,
    kind: TrainingSet,
    asked: Asked,
    recipe: Recipe,
    folder: Path,
    file_format: FileFormat,
    progress: Progress | None,
) -> Written:
    """Write the splits that have rows, provenance/ with as many rows for each, manifest.json and README.md.

    The version is a hash of the rows alone, so that the same rows have the same version, in whatever format.
    """
    (folder / PROVENANCE_FOLDER).mkdir()
    left_out: Counter[str] = Counter()
    by_split: dict[str, list[Made]] = {split: [] for split in SPLITS}
    if progress is not None:
        progress("making rows", 0, 1)
    for made in rows_of(conn, kind, asked, recipe, left_out):
        by_split[made.split].append(made)
    content = hashlib.sha256(f"{FORMAT_VERSION} {kind}\n".encode())
    splits: dict[str, dict[str, Any]] = {}
    for n, (split, rows) in enumerate(by_split.items()):
        if progress is not None:
            progress("writing rows", n, len(by_split))
        if not rows and (split != "train" or any(by_split.values())):
            continue  # readers take absence for none, and an empty file for a broken one
        for each in rows:
            content.update(_line(split, each.values))
        splits[split] = _write_split(folder, kind, split, rows, file_format)
    version = content.hexdigest()[:_VERSION_CHARS]
    some = {what: n for what, n in left_out.items() if n}
    manifest = {
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "version": version,
        "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "code_version": metadata.version("rag-flywheel"),
        "index": asked.root.name,
        "last_event": asked.until(conn),
        "columns": [column.name for column in COLUMNS[kind]],
        "splits": splits,
        "left_out": some,
        "config": _config(asked, recipe),
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    (folder / CARD).write_text(_card(kind, version, splits), encoding="utf-8")
    return Written({split: found["rows"] for split, found in splits.items()}, some, version)


def _line(split: str, values: Row) -> bytes:
    return (json.dumps([split, values], ensure_ascii=False) + "\n").encode()


def _write_split(
    folder: Path, kind: TrainingSet, split: str, rows: list[Made], file_format: FileFormat
) -> dict[str, Any]:
    """Write the file of a split and that of its provenance; returns what the manifest says of them."""
    files = {}
    provenance = ({"row": n, **each.provenance} for n, each in enumerate(rows))
    parts: tuple[tuple[str, tuple[Column, ...], Iterable[Row]], ...] = (
        (f"{split}.{file_format}", COLUMNS[kind], (each.values for each in rows)),
        (f"{PROVENANCE_FOLDER}/{split}.{file_format}", PROVENANCE, provenance),
    )
    for name, columns, some in parts:
        path = folder / name
        write_rows(path, columns, some)
        files[name] = {"sha256": _sha256(path), "bytes": path.stat().st_size}
    questions = {each.provenance["question_id"] for each in rows}
    return {"rows": len(rows), "questions": len(questions), "files": files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _config(asked: Asked, recipe: Recipe) -> dict[str, Any]:
    """What the rows depend on besides the events."""
    period = asked.period
    return {
        "tenant": None if asked.scope.tenant is None else json.loads(asked.scope.tenant),
        "since": period.since if period.since > float("-inf") else None,
        "until": period.until if period.until < float("inf") else None,
        "memory_min_users": recipe.counting.least,
        "min_people": recipe.counting.min_people,
        "most_negatives": recipe.most_negatives,
        "unreviewed": recipe.unreviewed,
        "n_weighed_users": len(recipe.counting.weights),
        "splits": dict(SPLITS),
    }


def _card(kind: TrainingSet, version: str, splits: Mapping[str, Mapping[str, Any]]) -> str:
    """A card by which `datasets.load_dataset` finds the splits, and people what they are."""
    files = {name: next(iter(found["files"])) for name, found in splits.items()}
    data = "\n".join(f"  - split: {split}\n    path: {name}" for split, name in files.items())
    rows = "\n".join(
        f"| `{files[s]}` | {f['rows']} | {f['questions']} |" for s, f in splits.items()
    )
    return _CARD.format(kind=kind, version=version, data=data, rows=rows)


_CARD = """\
---
configs:
- config_name: default
  data_files:
{data}
---
# {kind}, version {version}

| file | rows | questions |
|---|---|---|
{rows}

`provenance/` has a row for each of these, in the same order: the question, the retrievals that were
voted on, when, by how many people at least, and from which index versions. `manifest.json` has the
counts, hashes and settings. The version is a hash of the rows alone.

The texts of questions are in it as people typed them, and so are passages: look before you pass this
folder on. Ids of users are not, nor anything of people who opted out or were forgotten.
"""
