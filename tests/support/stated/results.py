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
    """The line in which a page says at which commits its result files were measured."""
    by_commit: dict[str, list[str]] = defaultdict(list)
    for name in sorted(used):
        for commit in commits(name):
            by_commit[commit].append(name)
    parts = [f"{commit} ({_short(held)})" for commit, held in sorted(by_commit.items())]
    return f"*Result files were measured at commit {'; '.join(parts)}.*"


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
