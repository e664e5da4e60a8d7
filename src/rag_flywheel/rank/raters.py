"""The users whose votes a version weighs otherwise than those of an ordinary voter.

It reads and writes raters.json, and must not know how weights are estimated.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from rag_flywheel.disk import exactly, read_json, version_file_errors

FILE_NAME = "raters.json"


@dataclass(frozen=True)
class RaterWeight:
    """How far a user who votes is trusted.

    weight: a factor for their votes, 1 for an ordinary voter's; accuracy: the mean of how often they call
    right passages helpful and wrong ones harmful, 0.5 for votes that tell nothing; crowd: the number of
    the crowd they look like a part of, None: of none.
    """

    weight: Annotated[float, Meta(ge=0, le=100)]
    accuracy: Annotated[float, Meta(ge=0, le=1)]
    crowd: Annotated[int, Meta(ge=0, le=2**62)] | None = None


def weights_of(raters: Mapping[str, RaterWeight]) -> dict[str, float]:
    """The weights that are not 1, by the hash of the user."""
    return {user: rater.weight for user, rater in raters.items() if rater.weight != 1.0}


def digest_of(weights: Mapping[str, float]) -> str:
    """Stands for these weights."""
    text = json.dumps(sorted(weights.items()))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def save_raters(raters: Mapping[str, RaterWeight], folder: Path) -> None:
    """Write them into a version folder."""
    values = {user: asdict(rater) for user, rater in sorted(raters.items())}
    (folder / FILE_NAME).write_text(json.dumps(values, indent=0) + "\n", encoding="utf-8")


def load_raters(folder: Path) -> dict[str, RaterWeight]:
    """Read them from a version folder; none where it has no such file. Raises CorruptFileError."""
    path = folder / FILE_NAME
    if not path.exists():
        return {}
    with version_file_errors(path, "holds no usable weights of users"):
        values = read_json(path, dict[str, dict[str, Any]])
        return {user: exactly(RaterWeight, value) for user, value in values.items()}
