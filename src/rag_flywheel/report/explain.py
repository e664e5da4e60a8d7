"""Explains how a version got its parameters: the gate's measurements and its decision.

It reads the file that a refresh wrote beside the parameters; it must not know how its numbers are computed.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel.deploy.current import read_current
from rag_flywheel.deploy.loaded import load_parameters
from rag_flywheel.deploy.versions import read_manifest, sound_file, version_folder
from rag_flywheel.disk import read_json, version_file_errors
from rag_flywheel.errors import CorruptFileError, counted
from rag_flywheel.evaluate.gate_file import FILE_NAME, FORMAT_VERSION, MOST_BYTES
from rag_flywheel.rank.parameters import Parameters
from rag_flywheel.records import VersionStory
from rag_flywheel.report.status import utc

_TINY = 1e-9
_SLICES = {"near": "near to", "related": "related to", "far": "far from"}


def story(root: Path, version: str) -> VersionStory:
    """How a version got its parameters and its encoder of queries, in sentences and numbers.

    Raises UnknownIdError, CorruptFileError.
    """
    manifest = read_manifest(root, version)
    folder = version_folder(root, version)
    current = read_current(root)
    live = load_parameters(folder)
    words = [
        f"{counted(manifest.n_passages, 'passage')}, votes up to event {manifest.votes_until}, made "
        f"{utc(manifest.created)}"
        + (f" after {manifest.parent}" if manifest.parent else ", the first version")
    ]
    if not sound_file(root, version, FILE_NAME):
        raise CorruptFileError(f"{folder / FILE_NAME} is not what the manifest says; see `verify`")
    with version_file_errors(folder / FILE_NAME, "cannot be told"):
        found = read_json(folder / FILE_NAME, dict[str, Any], most=MOST_BYTES)
        if found.get("format_version") != FORMAT_VERSION:
            raise ValueError(f"format_version is not {FORMAT_VERSION}")
        scores = dict(found["scores"]) if "decision" in found else {}
        if "again" in found:
            words += _sentences(found["again"], live, "weights learned again", "weights withdrawn")
        if "changed" in found:
            changed = found["changed"]
            words += [changed["why"]]
            if "decision" in changed:
                words += _measures(changed)
                scores |= {f"change_{k}": v for k, v in changed["scores"].items()}
        words += _sentences(found, live, "weights new", f"weights kept ({live.source})")
        if "encoder" in found:
            tuned = found["encoder"]
            words += _sentences(tuned, live, "encoder of queries tuned", "encoder of queries kept")
            scores |= {f"tuned_{k}": v for k, v in tuned.get("scores", {}).items()}
        if manifest.tuned is not None:
            words.append(f"queries are encoded by weights {manifest.tuned}, which votes taught")
        is_live = current is not None and current.version == version
        return VersionStory(version, is_live, tuple(words), scores)


def _sentences(
    trial: Mapping[str, Any], live: Parameters, if_better: str, otherwise: str
) -> list[str]:
    """The gate's decision on a candidate, what it measured, and the candidate's parameters."""
    if "decision" not in trial:
        return [f"{otherwise}: {trial['why']}"]
    decision = trial["decision"]
    start = if_better if decision["outcome"] in ("better", "again") else otherwise
    words = [f"{start}: {decision['outcome']}: {decision['why']}"]
    return [*words, *_measures(trial), *_changes(trial["candidate"], live)]


def _measures(trial: Mapping[str, Any]) -> list[str]:
    """The gate's measurements, one measure a line."""
    words, scores = [], trial["scores"]
    gains = _differences(trial["log_likelihood"])
    if len(gains):
        words.append(_part("log-likelihood of held-out votes", gains))
        for name, rows in trial["slices"].items():
            if rows:
                words.append(
                    _part(f"  queries {_SLICES.get(name, name)} past ones", gains[np.array(rows)])
                )
    for name, key in (
        ("order of judged hits (nDCG)", "condensed_ndcg"),
        ("golden queries (nDCG@10)", "golden_ndcg@10"),
    ):
        part = _differences(trial[key])
        if len(part):
            words.append(_part(name, part))
    words.append(
        f"{scores['kept_hits']:.1%} of the best 8 hits are the same; {scores['judged@8']:.1%} of "
        f"the candidate's have votes, {scores['judged@8_before']:.1%} of the live ones'"
    )
    return words


def _differences(sides: Mapping[str, Sequence[float | None]]) -> np.ndarray[Any, Any]:
    """The candidate's values minus the incumbent's, over the queries that have both."""
    both = zip(sides["candidate"], sides["incumbent"], strict=True)
    return np.array([new - old for new, old in both if new is not None and old is not None])


def _part(name: str, gains: np.ndarray[Any, Any]) -> str:
    error = f" ± {gains.std(ddof=1) / len(gains) ** 0.5:.4f}" if len(gains) > 1 else ""
    better, worse = int((gains > _TINY).sum()), int((gains < -_TINY).sum())
    return (
        f"{name}: {gains.mean():+.4f}{error} a query, {better} better, {worse} worse, "
        f"{len(gains) - better - worse} as before"
    )


def _changes(candidate: Mapping[str, Any], live: Parameters) -> list[str]:
    """The candidate's parameters, with those of the version where they differ."""
    weights = candidate["weights"]
    parts = [
        f"{name} {float(w):.3f}"
        + ("" if abs(w - live.weights.get(name, 0.0)) < _TINY else f" ({live.weights[name]:.3f})")
        for name, w in weights.items()
    ]
    kernel = candidate["kernel"]
    shape = ", ".join(f"{name} {kernel[name]}" for name in ("theta", "gamma", "n0", "neighbours"))
    rates, answers = candidate["rates"], candidate["answers"]
    return [
        "candidate's weights (those of this version in brackets): " + ", ".join(parts),
        *_of_given(candidate),
        f"candidate's kernel: {shape}; sharpness {candidate['sharpness']}",
        f"votes that say helpful of a wrong passage: {rates['false_helpful']:.1%}; harmful of a right "
        f"one: {rates['false_harmful']:.1%}; "
        + (
            "one right passage a query"
            if answers is None
            else "any number of right passages a query"
        ),
    ]


def _of_given(candidate: Mapping[str, Any]) -> list[str]:
    """The candidate's weights of an application's own candidates, where they were fitted."""
    given = candidate.get("given", {})  # an older gate did not weigh them
    if not any(given.values()):
        return []
    weights = {"candidate": candidate["candidate_spread"], **given}
    named = ", ".join(f"{name} {float(w):.4g}" for name, w in weights.items())
    return [f"candidate's weights of an application's own candidates: {named}"]
