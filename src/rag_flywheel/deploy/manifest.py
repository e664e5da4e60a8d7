"""The manifest of a version: what it holds, written last; read with a limit on everything in it.

It must not know where versions are, nor what their files mean.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rag_flywheel.deploy.files import MOST_FILES
from rag_flywheel.disk import parsed_json, read_bytes
from rag_flywheel.errors import CorruptFileError, NewerFormatError

FORMAT_VERSION = 1
REMEDY = (
    "run `rag-flywheel repair`, or `rollback` to a sound version, or `refresh` to build a new one"
)
_NAME = re.compile(r"(?!\.)[\w.-]{1,100}(?:/(?!\.)[\w.-]{1,100}){0,4}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_BYTES = 4_000_000
_LARGEST = {"dim": 2**16, "n_passages": 2**31, "watermark": 2**62, "votes_until": 2**62}


@dataclass(frozen=True)
class Manifest:
    """What a version holds. `watermark`: the event number up to which it was built; votes after
    `votes_until` (less than the watermark when it was built after a rollback) did not count for it.

    created: seconds since 1970; encoder, revision: its name, and which weights; dim: width of its
    vectors; tuned: which weights its queries are encoded by, None: those of the encoder;
    files: {name: (sha256, bytes)}.
    """

    id: str
    created: float
    parent: str | None
    encoder: str
    revision: str
    dim: int
    n_passages: int
    watermark: int
    votes_until: int
    files: Mapping[str, tuple[str, int]]
    tuned: str | None = None


def manifest_text(manifest: Manifest) -> str:
    """JSON of a manifest; `parse_manifest` of it gives an equal one."""
    values = {"format_version": FORMAT_VERSION, **dataclasses.asdict(manifest)}
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def parse_manifest(path: Path, version: str) -> Manifest:
    """The manifest of a version in a file. Raises CorruptFileError, NewerFormatError."""
    try:
        values: dict[str, Any] = parsed_json(read_bytes(path, most=_MOST_BYTES), "it")
        found = values.pop("format_version")
        if type(found) is int and found > FORMAT_VERSION:
            raise NewerFormatError(
                f"{path} has format {found}; this release reads up to {FORMAT_VERSION}. "
                "Upgrade rag-flywheel to use this version"
            )
        files = _files(values.pop("files"))
        manifest = Manifest(files=files, **values)
        _require_sense(manifest, found, version)
    except (
        FileNotFoundError,
        NotADirectoryError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
    ) as error:
        raise CorruptFileError(f"{path} is no usable manifest ({error}); {REMEDY}") from error
    return manifest


def _files(found: object) -> dict[str, tuple[str, int]]:
    """{name: (sha256, bytes)}. Raises ValueError; no name leaves the version's folder."""
    if not isinstance(found, dict) or len(found) > MOST_FILES:
        raise ValueError(f"its files are not at most {MOST_FILES} by name")
    files = {}
    for name, said in found.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"it names the file {name[:80]!r}")
        if not isinstance(said, list) or [type(value) for value in said] != [str, int]:
            raise ValueError(f"it has no hash and size of {name}")
        if not _SHA256.fullmatch(said[0]) or not 0 <= said[1] < 2**50:
            raise ValueError(f"it has no usable hash and size of {name}")
        files[name] = (said[0], said[1])
    return files


def _require_sense(manifest: Manifest, format_version: object, version: str) -> None:
    counts = (manifest.dim, manifest.n_passages, manifest.watermark, manifest.votes_until)
    if type(format_version) is not int or format_version < 1:
        raise ValueError(f"its format_version is {format_version!r}")
    if manifest.id != version:
        raise ValueError(f"it describes {manifest.id!r}")
    for name, largest in _LARGEST.items():
        if type(getattr(manifest, name)) is not int or not 0 <= getattr(manifest, name) <= largest:
            raise ValueError(f"its counts are {counts}; {name} is impossible")
    if type(manifest.created) not in {int, float} or not 0 <= manifest.created < 1e11:
        raise ValueError(f"created is {manifest.created!r}; expected seconds since 1970")
    if not (isinstance(manifest.encoder, str) and isinstance(manifest.revision, str)):
        raise ValueError("encoder and revision are not both text")
    if manifest.tuned is not None and not isinstance(manifest.tuned, str):
        raise ValueError(f"tuned is {manifest.tuned!r}; expected the name of weights, or null")
    if manifest.parent is not None and not isinstance(manifest.parent, str):
        raise ValueError(f"parent is {manifest.parent!r}")
