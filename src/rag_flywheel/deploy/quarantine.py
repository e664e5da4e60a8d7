"""Moves what cannot be used to quarantine/, where nothing reads it and nothing is lost."""

import itertools
import time
from pathlib import Path

from rag_flywheel import disk
from rag_flywheel.deploy.versions import QUARANTINE
from rag_flywheel.store import wall_clock


def quarantine(root: Path, entry: str, why: str) -> str:
    """Move a file or folder of the index to quarantine/ by a rename; returns a sentence that says so."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall_clock.now()))
    for number in itertools.count(1):
        again = "" if number == 1 else f"{number}-"
        new = f"{QUARANTINE}/{stamp}-{again}{entry.rpartition('/')[2]}"
        try:
            disk.move(root, entry, new)
            break
        except FileExistsError:
            pass
    return f"moved {entry} to {new}: {why}"
