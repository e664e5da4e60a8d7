"""What the results of `full.py` say together: medians over seeds, by kind of user.

    python benchmarks/learning/full_summary.py

It reads benchmarks/results/full-KIND-SEED.json and prints tables in Markdown.
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from full import KINDS
from rag_flywheel.bench.terminal import MEASURE, named

Json = dict[str, Any]
SIGNIFICANT = 0.01
OURS = "flywheel"


def read(folder: Path) -> dict[tuple[str, str], list[Json]]:
    """The collections of all results, one for each seed, by (kind, collection)."""
    found: dict[tuple[str, str], list[Json]] = defaultdict(list)
    for kind in KINDS:
        for path in sorted(folder.glob(f"full-{kind}-*.json")):
            for collection in json.loads(path.read_text(encoding="utf-8"))["collections"]:
                found[kind, collection["name"]].append(collection)
    return found


def _ndcg(collection: Json, name: str) -> float:
    return float(named(collection["rankings"], name)["values"][MEASURE])


def _run(collection: Json, name: str, cycle: int) -> float:
    return float(named(collection["runs"], name)["cycles"][cycle]["values"][MEASURE])


def lines(found: dict[tuple[str, str], list[Json]]) -> Iterator[str]:
    """The table of medians: the flywheel before and after, the best rule, and the controls."""
    columns = "users|collection|seeds|hybrid|no vote|after|same votes|best rule|random votes moved"
    yield "| " + " | ".join(columns.split("|")) + " |"
    yield "|---" * len(columns.split("|")) + "|"
    for (kind, name), seeds in found.items():
        medians = [
            statistics.median(values)
            for values in (
                [_ndcg(c, "hybrid") for c in seeds],
                [_run(c, "votes", 0) for c in seeds],
                [_ndcg(c, OURS) for c in seeds],
                [_ndcg(c, f"{OURS}, fixed exposure") for c in seeds],
            )
        ]
        rule, best = best_rule(seeds)
        moved = max(
            (_run(c, "random votes", -1) - _run(c, "random votes", 0) for c in seeds), key=abs
        )
        cells = [kind, name, str(len(seeds)), *(f"{m:.4f}" for m in medians)]
        yield "| " + " | ".join([*cells, f"{best:.4f} ({rule})", f"{moved:+.4f}"]) + " |"


def best_rule(seeds: list[Json]) -> tuple[str, float]:
    """The rule beside us with the highest median, the oracle aside."""
    names = [r["name"] for r in seeds[0]["rankings"]]
    rules = [n for n in names if not n.startswith(OURS) and n != "oracle"]
    medians = {rule: statistics.median(_ndcg(c, rule) for c in seeds) for rule in rules}
    best = max(medians, key=lambda rule: medians[rule])
    return best, medians[best]


def tests(found: dict[tuple[str, str], list[Json]]) -> Iterator[str]:
    """Where the flywheel is significantly below or not significantly above a rule."""
    for (kind, name), seeds in found.items():
        for ours in (OURS, f"{OURS}, fixed exposure"):
            below, level = [], []
            for i, collection in enumerate(seeds):
                for ranking in collection["rankings"]:
                    ahead = ranking["ahead"].get(ours)
                    if ahead is None or ranking["name"].startswith((OURS, "oracle")):
                        continue
                    if ahead["p"] < SIGNIFICANT and ahead["mean"] < 0:
                        below.append(f"{ranking['name']} (seed {i}, {ahead['mean']:+.4f})")
                    elif ahead["p"] >= SIGNIFICANT or ahead["mean"] <= 0:
                        level.append(f"{ranking['name']} (seed {i}, {ahead['mean']:+.4f})")
            yield f"- {kind}, {name}, {ours}: below: {'; '.join(below) or 'none'}"
            yield f"  not above: {'; '.join(level) or 'none'}"


def slices(found: dict[tuple[str, str], list[Json]]) -> Iterator[str]:
    """The slices of the test queries: the flywheel's difference to the static hybrid, by seed."""
    for (kind, name), seeds in found.items():
        for i, part in enumerate(seeds[0]["slices"]):
            shown = []
            for collection in seeds:
                d = collection["slices"][i]["difference"]
                shown.append(
                    f"{d['mean']:+.4f} ({d['low']:+.4f} to {d['high']:+.4f})" if d else "–"
                )
            yield f"- {kind}, {name}, {part['name']}: {'; '.join(shown)}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--tests", action="store_true", help="Where a rule is not beaten.")
    parser.add_argument("--slices", action="store_true", help="By slice of the test queries.")
    asked = parser.parse_args()
    found = read(asked.folder)
    print("\n".join(lines(found)))
    if asked.tests:
        print("\n".join(tests(found)))
    if asked.slices:
        print("\n".join(slices(found)))


if __name__ == "__main__":
    main()
