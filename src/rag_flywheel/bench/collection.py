"""Finds the folder of a collection."""

import os
from pathlib import Path

from rag_flywheel.errors import InputError


def find_collection(name: str) -> Path:
    """The folder `name`, or the one of that name under RAG_FLYWHEEL_DATA. Raises InputError."""
    data = os.environ.get("RAG_FLYWHEEL_DATA")
    places = [Path(name), *([Path(data) / name] if data else [])]
    for place in places:
        if place.is_dir():
            return place
    raise InputError(
        f"no collection {name!r}: looked for {' and '.join(map(str, places))}; expected a BEIR "
        "folder, or its name with RAG_FLYWHEEL_DATA naming the folder above it"
    )
