"""Stores which encoder new texts are embedded with, which others an index has vectors of, and a change to
another one that is under way.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from rag_flywheel.errors import CorruptFileError
from rag_flywheel.store import column_checks, journal
from rag_flywheel.store.connection import Connection

_LIVE = ("encoder", "revision", "dim")
_KNOWN, _CHANGE = "encoders", "encoder_change"
_T = TypeVar("_T")


class Identity(NamedTuple):
    """What tells encoders apart: the model's name, the hash of its weights, and the width of its vectors."""

    name: str
    revision: str
    dim: int


@dataclass(frozen=True)
class KnownEncoder:
    """An encoder of an index, and the spec that makes it; "": it was given as an object."""

    name: Annotated[str, Meta(min_length=1)]
    revision: Annotated[str, Meta(min_length=1)]
    dim: Annotated[int, Meta(ge=1, le=99_999)]
    spec: str

    @property
    def identity(self) -> Identity:
        """What tells it from others."""
        return Identity(self.name, self.revision, self.dim)


@dataclass(frozen=True)
class EncoderChange:
    """A change to another encoder that is under way.

    to: the encoder; began: in seconds since 1970; refused: why the gate did not let it in, "": it was not
    asked yet.
    """

    to: KnownEncoder
    began: Annotated[float, Meta(ge=0, lt=1e11)]
    refused: str = ""


def identity(conn: Connection) -> Identity | None:
    """The encoder that new texts are embedded with, which is that of the live version; None: no text was
    embedded yet. Raises CorruptFileError."""
    name, revision, dim = (journal.read_meta(conn, key) for key in _LIVE)
    if name is None or revision is None or dim is None:
        return None
    if not re.fullmatch(r"[1-9]\d{0,4}", dim, re.ASCII):
        raise CorruptFileError(
            f"flywheel.db: meta 'dim' is {dim[:40]!r}; expected the width of a vector. Run "
            "`rag-flywheel verify`, and restore the database from a backup"
        )
    return Identity(name, revision, int(dim))


def write_identity(conn: Connection, found: Identity) -> None:
    """Store which encoder new texts are embedded with."""
    for key, value in zip(_LIVE, found, strict=True):
        journal.write_meta(conn, key, str(value))


def known(conn: Connection) -> dict[str, KnownEncoder]:
    """The encoders that are noted, by revision; none while an index never had but one."""
    values = _parsed(conn, _KNOWN, list[KnownEncoder]) or []
    return {each.revision: each for each in values}


def note(conn: Connection, *encoders: KnownEncoder) -> None:
    """Note encoders, in place of those of the same revisions."""
    _write(conn, {**known(conn), **{each.revision: each for each in encoders}})


def forget(conn: Connection, revision: str) -> None:
    """Note an encoder no more."""
    _write(conn, {k: each for k, each in known(conn).items() if k != revision})


def change(conn: Connection) -> EncoderChange | None:
    """The change that is under way, None: there is none."""
    return _parsed(conn, _CHANGE, EncoderChange)


def write_change(conn: Connection, found: EncoderChange) -> None:
    """Store that a change is under way."""
    journal.write_meta(conn, _CHANGE, json.dumps(asdict(found)))


def end_change(conn: Connection) -> None:
    """Store that no change is under way."""
    conn.execute("DELETE FROM meta WHERE key = ?", (_CHANGE,))


def _write(conn: Connection, found: Mapping[str, KnownEncoder]) -> None:
    journal.write_meta(conn, _KNOWN, json.dumps([asdict(each) for each in found.values()]))


def _parsed(conn: Connection, key: str, kind: type[_T]) -> _T | None:
    text = journal.read_meta(conn, key)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError):
        column_checks.refuse(f"meta {key!r}", text, "encoders as this release writes them")
