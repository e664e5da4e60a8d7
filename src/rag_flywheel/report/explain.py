"""Tells how a version came to its parameters: what the gate weighed and what it decided.

It reads what a refresh wrote beside the parameters; it must not know how any of it is computed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel.deploy.current import read_current
from rag_flywheel.deploy.loaded import load_parameters
from rag_flywheel.deploy.versions import read_manifest, sound_file, version_folder
from rag_flywheel.disk import read_json, version_file_errors
from rag_flywheel.errors import CorruptFileError
from rag_flywheel.evaluate.gate_file import FILE_NAME, FORMAT_VERSION, MOST_BYTES
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.records import VersionStory
from rag_flywheel.report.status import utc

_TINY = 1e-9
_SLICES = {"near": "near to", "related": "related to", "far": "far from"}


def story(root: Path, version: str) -> VersionStory:
    """What became of the parameters in a version, in words and numbers.

    Raises UnknownIdError, CorruptFileError.
    """
    manifest = read_manifest(root, version)
    folder = version_folder(root, version)
    current = read_current(root)
    live = load_parameters(folder)
    words = [
        f"{manifest.n_passages} passages, votes up to event {manifest.votes_until}, made "
        f"{utc(manifest.created)}"
        + (f" after {manifest.parent}" if manifest.parent else ", the first version")
    ]
    if not sound_file(root, version, FILE_NAME):
        raise CorruptFileError(f"{folder / FILE_NAME} is not what the manifest says; see `verify`")
    with version_file_errors(folder / FILE_NAME, "cannot be told"):
        found = _read(folder / FILE_NAME)
        scores: dict[str, float] = {}
        if "decision" in found:
            words += _sentences(found, live)
            scores |= found["scores"]
        else:
            words.append(f"weights kept ({live.source}): {found['why']}")
        if "encoder" in found:
            words += _of_encoder(found["encoder"], live)
            scores |= {f"tuned_{k}": v for k, v in found["encoder"].get("scores", {}).items()}
        if manifest.tuned is not None:
            words.append(f"queries are encoded by weights {manifest.tuned}, which votes taught")
        return VersionStory(version, _live(current, version), tuple(words), scores)


def _live(current: Any, version: str) -> bool:
    return current is not None and current.version == version


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(path, dict[str, Any], most=MOST_BYTES)
    if found.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"format_version is not {FORMAT_VERSION}")
    return found


def _sentences(found: Mapping[str, Any], live: Parameters) -> list[str]:
    decision = found["decision"]
    new = "new" if decision["outcome"] == "better" else f"kept ({live.source})"
    words = [f"weights {new}: {decision['outcome']}: {decision['why']}"]
    return [*words, *_weighed(found), *_changes(found["candidate"], live)]


def _of_encoder(found: Mapping[str, Any], live: Parameters) -> list[str]:
    """What became of tuning the encoder of queries."""
    if "decision" not in found:
        return [f"encoder of queries kept: {found['why']}"]
    decision = found["decision"]
    new = "tuned" if decision["outcome"] == "better" else "kept"
    words = [f"encoder of queries {new}: {decision['outcome']}: {decision['why']}"]
    return [*words, *_weighed(found), *_changes(found["candidate"], live)]


def _weighed(found: Mapping[str, Any]) -> list[str]:
    """What the gate weighed, one measure a line."""
    words, scores = [], found["scores"]
    gains = _differences(found["log_likelihood"])
    if len(gains):
        words.append(_part("log-likelihood of held-out votes", gains))
        for name, rows in found["slices"].items():
            if rows:
                words.append(
                    _part(f"  queries {_SLICES.get(name, name)} past ones", gains[np.array(rows)])
                )
    for name, key in (
        ("order of judged hits (nDCG)", "condensed_ndcg"),
        ("golden queries (nDCG@10)", "golden_ndcg@10"),
    ):
        part = _differences(found[key])
        if len(part):
            words.append(_part(name, part))
    words.append(
        f"{scores['kept_hits']:.1%} of the best 8 hits are the same; {scores['judged@8']:.1%} of "
        f"the candidate's have votes, {scores['judged@8_before']:.1%} of the live ones'"
    )
    return words


def _differences(sides: Mapping[str, Sequence[float | None]]) -> np.ndarray[Any, Any]:
    """Candidate less incumbent, of the queries that have both."""
    both = zip(sides["candidate"], sides["incumbent"], strict=True)
    return np.array([new - old for new, old in both if new is not None and old is not None])


def _part(name: str, gains: np.ndarray[Any, Any]) -> str:
    error = gains.std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
    better, worse = int((gains > _TINY).sum()), int((gains < -_TINY).sum())
    return (
        f"{name}: {gains.mean():+.4f} ± {error:.4f} a query, {better} better, {worse} worse, "
        f"{len(gains) - better - worse} as before"
    )


def _changes(candidate: Mapping[str, Any], live: Parameters) -> list[str]:
    """The candidate's parameters, beside those of the version where they differ."""
    weights = candidate["weights"]
    parts = [
        f"{name} {float(w):.3f}"
        + ("" if abs(w - live.weights.get(name, 0.0)) < _TINY else f" ({live.weights[name]:.3f})")
        for name, w in weights.items()
    ]
    kernel = candidate["kernel"]
    shape = ", ".join(f"{name} {kernel[name]}" for name in ("theta", "gamma", "n0", "neighbours"))
    return [
        "candidate's weights (those of this version in brackets): " + ", ".join(parts),
        f"candidate's kernel: {shape}; sharpness {candidate['sharpness']}, noise of votes "
        f"{candidate['noise']}",
    ]
