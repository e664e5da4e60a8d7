"""Lists the result files of the benchmarks with their commits and their age.

    python benchmarks/results_age.py

The age of a commit is the number of later commits that changed src/rag_flywheel, the package that
was measured. The oldest come first: those to measure again.
"""

import json
import subprocess
from pathlib import Path

from rag_flywheel.bench.machine import commits_in

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def age(commit: str) -> int:
    """How many commits since have changed the package."""
    command = ["git", "rev-list", "--count", f"{commit}..HEAD", "--", "src/rag_flywheel"]
    return int(subprocess.run(command, capture_output=True, check=True, cwd=ROOT).stdout)


def main() -> None:
    """Print a line for each file and commit."""
    found = {
        (path.stem, commit[:7])
        for path in RESULTS.glob("*.json")
        for commit in commits_in(json.loads(path.read_text(encoding="utf-8")))
    }
    ages = {commit: age(commit) for commit in {commit for _, commit in found}}
    print("changes since  commit   result file")
    for name, commit in sorted(found, key=lambda row: (-ages[row[1]], row)):
        print(f"{ages[commit]:13}  {commit}  {name}")


if __name__ == "__main__":
    main()
