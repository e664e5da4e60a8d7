"""Writes and reads gate.json, the record of the gate's decisions on a version."""

import json
from pathlib import Path
from typing import Any

from rag_flywheel.disk import read_json
from rag_flywheel.evaluate.trial import Gate

FILE_NAME = "gate.json"
MOST_BYTES = 64 * 2**20
FORMAT_VERSION = 1


def tried_to_tune(version: Path) -> bool:
    """Whether tuning the encoder was tried for the version in this folder."""
    try:
        return "encoder" in read_json(version / FILE_NAME, most=MOST_BYTES)
    except (OSError, ValueError, TypeError):
        return False


def gate_text(
    *arms: tuple[str, Gate | None],
    again: tuple[str, Gate | None] | None = None,
    changed: tuple[str, Gate | None] | None = None,
) -> str:
    """The record of the gate in a version, as JSON.

    arms: (why, gate) of the weights and, where tuning was tried, of the encoder of queries; gate
    None: nothing was compared, and why stands in its place. again: the same of weights that were learned
    again before, since votes behind the live ones do not count any more; None: they were not. changed: the
    same of another encoder, None: it is the one of the version before.
    """
    weights, *encoder = (_record(*arm) for arm in arms)
    found: dict[str, Any] = {"format_version": FORMAT_VERSION, **weights}
    if encoder:
        found["encoder"] = encoder[0]
    if again is not None:
        found["again"] = _record(*again)
    if changed is not None:
        found["changed"] = {**_record(*changed), "why": changed[0]}
    return json.dumps(found, indent=1) + "\n"


def _record(why: str, gate: Gate | None) -> dict[str, Any]:
    return {"why": why} if gate is None else gate.record
