"""Writes and reads the manifest of a version, with a limit on every value that is read."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from msgspec import Meta

from rag_flywheel.deploy.files import MOST_FILES
from rag_flywheel.disk import exactly, parsed_json, read_bytes, version_file_errors
from rag_flywheel.errors import NewerFormatError, OlderFormatError
from rag_flywheel.index.tokenizer import VERSION as TOKENIZER
from rag_flywheel.records import AUTO

FORMAT_VERSION = 6
MOST_BYTES = 4_000_000
"""Of a manifest."""
MOST_DIM, MOST_PASSAGES = 2**16, 2**31
"""Of one version."""
_DAMAGE = FileNotFoundError, NotADirectoryError, ValueError  # no other error of the disk
_PART = r"(?!\.)[A-Za-z0-9_.-]{1,100}"
_Name: TypeAlias = Annotated[str, Meta(pattern=rf"\A{_PART}(?:/{_PART}){{0,4}}\Z")]
_Sha256: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Bytes: TypeAlias = Annotated[int, Meta(ge=0, lt=2**50)]
_Files: TypeAlias = Annotated[Mapping[_Name, tuple[_Sha256, _Bytes]], Meta(max_length=MOST_FILES)]
_Token: TypeAlias = Annotated[str, Meta(pattern=r"\A[0-9a-f]{32}\Z")]
_Event: TypeAlias = Annotated[int, Meta(ge=0, le=2**62)]


@dataclass(frozen=True)
class Manifest:
    """The contents of a version.

    watermark: the event number up to which it was built; votes_until: the last event whose vote
    counted (before the watermark when it was built after a rollback); created: seconds since 1970;
    encoder, revision, dim: the encoder's name, the hash of its weights, the width of its vectors;
    token: random, of this build, which the database has too; texts: a digest of (number, text) of the
    passages;
    tuned: the hash of the weights that encode queries, None: the encoder's; files: {name: (sha256,
    bytes)}; tokenizer: the version of the one that its words are from; language: the setting
    that it was built under; learned_until: the last event whose vote its weights were fitted to, 0: its
    weights are shipped, or it is not known; derived: as files, of what is computed from those, and
    deleted once another version is live.
    """

    id: str
    created: Annotated[float, Meta(ge=0, lt=1e11)]
    parent: str | None
    encoder: str
    revision: str
    dim: Annotated[int, Meta(ge=0, le=MOST_DIM)]
    n_passages: Annotated[int, Meta(ge=0, le=MOST_PASSAGES)]
    watermark: _Event
    votes_until: _Event
    token: _Token
    texts: _Token
    files: _Files  # none outside the version's folder
    tuned: str | None = None
    tokenizer: Annotated[int, Meta(ge=0, le=2**16)] = 0
    language: Annotated[str, Meta(max_length=100)] = AUTO
    learned_until: _Event = 0
    derived: _Files = field(default_factory=dict)

    @property
    def every(self) -> Mapping[str, tuple[str, int]]:
        """All files, with those that may be missing."""
        return {**self.files, **self.derived}


_DEFAULTS: Mapping[str, Any] = {
    "tuned": None,
    "tokenizer": 0,
    "language": AUTO,
    "learned_until": 0,
    "derived": {},
}


@dataclass(frozen=True)
class Parent:
    """A sound version that the next one is built from: its folder and its manifest, which the files match."""

    folder: Path
    manifest: Manifest


def manifest_text(manifest: Manifest) -> str:
    """JSON of a manifest; `parse_manifest` of it gives an equal one."""
    values = {"format_version": FORMAT_VERSION, **dataclasses.asdict(manifest)}
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def parse_manifest(path: Path, version: str, *, data: bytes | None = None) -> Manifest:
    """The manifest of a version in a file. Raises CorruptFileError, NewerFormatError.

    data: the bytes of the file, when they were read already.
    """
    with version_file_errors(path, "is no usable manifest", of=_DAMAGE):
        data = read_bytes(path, most=MOST_BYTES) if data is None else data
        values = parsed_json(data, "it", dict[str, Any])
        found = values.pop("format_version", None)
        if type(found) is not int or found < 1:
            raise ValueError(f"its format_version is {found!r}")
        if found > FORMAT_VERSION:
            raise NewerFormatError(
                f"{path} has format {found}; this release reads up to {FORMAT_VERSION}. "
                "Upgrade rag-flywheel to use this version"
            )
        if found < FORMAT_VERSION:
            raise OlderFormatError(
                f"{path} was written by an earlier release (format {found}; this one reads "
                f"{FORMAT_VERSION}). Run `rag-flywheel refresh`, which builds the version anew from "
                "the passages and votes"
            )
        manifest = exactly(Manifest, {**_DEFAULTS, **values})
        if manifest.id != version:
            raise ValueError(f"it describes {manifest.id!r}")
        if manifest.tokenizer > TOKENIZER:
            raise NewerFormatError(
                f"the words of {path.parent} are from tokenizer {manifest.tokenizer}; this release has "
                f"{TOKENIZER}. Upgrade rag-flywheel to use this version"
            )
        if manifest.tokenizer < TOKENIZER:
            raise OlderFormatError(
                f"the words of {path.parent} are from tokenizer {manifest.tokenizer} of an earlier "
                f"release; this one has {TOKENIZER}. Run `rag-flywheel refresh`, which builds the "
                "version anew from the passages and votes"
            )
    return manifest
