"""The result files of the benchmarks, and the commits that they were measured at."""

import functools
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

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


def commits(found: Json) -> Iterator[str]:
    """Every commit that a result names, at whatever depth."""
    if isinstance(found, dict):
        for key, value in found.items():
            if key == "commit" and isinstance(value, str):
                yield value
            elif key == "commits":
                yield from value.values()
            else:
                yield from commits(value)
    elif isinstance(found, list):
        for value in found:
            yield from commits(value)


def footer(used: Iterable[str]) -> str:
    """The line in which a page says at which commits its result files were measured."""
    by_commit: dict[str, list[str]] = defaultdict(list)
    for name in sorted(used):
        for commit in sorted({c[:SHOWN] for c in commits(result(name))}):
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
