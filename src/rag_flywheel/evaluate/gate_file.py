"""gate.json: what the gate decided of a version, as it is kept beside it."""

import json
from pathlib import Path
from typing import Any

from rag_flywheel.disk import read_json
from rag_flywheel.evaluate.trial import Gate

FILE_NAME = "gate.json"
MOST_BYTES = 64 * 2**20
FORMAT_VERSION = 1


def tried_to_tune(version: Path) -> bool:
    """Whether the encoder of queries was to be tuned for the version in this folder."""
    try:
        return "encoder" in read_json(version / FILE_NAME, most=MOST_BYTES)
    except (OSError, ValueError, TypeError):
        return False


def gate_text(why: str, weights: Gate | None, tuning: tuple[str, Gate | None] | None) -> str:
    """What is kept in a version of both arms of the gate: JSON. why: in place of what did not come
    before it; tuning: (why, gate) of the encoder of queries, None when it was not to be tuned."""
    found: dict[str, Any] = {"format_version": FORMAT_VERSION}
    found |= weights.record if weights is not None else {"why": why}
    if tuning is not None:
        found["encoder"] = tuning[1].record if tuning[1] is not None else {"why": tuning[0]}
    return json.dumps(found, indent=1) + "\n"
