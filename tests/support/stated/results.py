"""The result files of the benchmarks, and the commits that they were measured at."""

import functools
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rag_flywheel.bench.machine import commits_in

Json = Any

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "benchmarks" / "results"
SEED = re.compile(r"(.+-)(\d)")
SHOWN = 7  # letters of a commit in a footer


@functools.cache
def result(name: str) -> Json:
    """What is in benchmarks/results/NAME.json; nobody may change it."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def names() -> set[str]:
    """All result files, without their ending."""
    return {path.stem for path in FOLDER.glob("*.json")}


def commits(name: str) -> set[str]:
    """The commits that a result file was measured at, as they are shown."""
    return {commit[:SHOWN] for commit in commits_in(result(name))}


def footer(used: Iterable[str]) -> str:
    """The line in which a page says at which commits its result files were measured.

    A few programs did not write their commit yet; that of their files is the one before the commit that
    brought the file.
    """
    recorded = [name for name in used if "commit_from" not in result(name)]
    guessed = [name for name in used if "commit_from" in result(name)]
    parts = _by_commit(recorded, "") + _by_commit(guessed, ": commit by the history")
    return f"*Result files were measured at commit {'; '.join(parts)}.*"


def _by_commit(used: list[str], how: str) -> list[str]:
    held: dict[str, list[str]] = defaultdict(list)
    for name in sorted(used):
        for commit in commits(name):
            held[commit].append(name)
    return [f"{commit} ({_short(names)}{how})" for commit, names in sorted(held.items())]


def _short(used: list[str]) -> str:
    """Names of files; those that differ by the seed at their end are one name with all seeds."""
    seeds: dict[str, list[str]] = defaultdict(list)
    for name in used:
        of_seed = SEED.fullmatch(name)
        stem, seed = of_seed.groups() if of_seed else (name, "")
        seeds[stem].append(seed)
    return ", ".join(stem + "/".join(held) for stem, held in seeds.items())


def named(rows: list[Json], **wanted: object) -> Json:
    """The one row that has these values.

    Raises:
        LookupError: If none or several have them.
    """
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    if len(found) != 1:
        raise LookupError(f"{len(found)} rows have {wanted}, and one should")
    return found[0]
