"""Describes the machine that a benchmark ran on, the commit, and the versions of its packages."""

import os
import platform
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("faiss-cpu", "ir-measures", "numpy", "rag-flywheel", "scipy")


def environment(started: str, seconds: float) -> dict[str, Any]:
    """The machine, commit and versions of a result of `rag-flywheel bench`."""
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "versions": versions(*_PACKAGES),
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "n_cores": os.cpu_count(),
        "n_threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
        "started": started,
        "seconds": round(seconds, 1),
    }


def machine(*packages: str) -> dict[str, Any]:
    """The machine and versions of a result of a program in benchmarks/."""
    return {
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "omp_threads": os.environ.get("OMP_NUM_THREADS"),
        "libraries": versions(*packages),
    }


def versions(*packages: str) -> dict[str, str]:
    """The installed version of each package."""
    return {name: metadata.version(name) for name in packages}


def commit() -> str | None:
    """The commit of the source this runs from, "+" when files differ from it; None outside git."""
    status = ("status", "--porcelain", "--untracked-files=no", "--", "../..")
    try:
        head, changes = (_git(*words) for words in (("rev-parse", "--short=12", "HEAD"), status))
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}+" if changes else head


def commits_in(result: Any) -> Iterator[str]:
    """Every commit that a result file names, at whatever depth: under "commit", or in "commits"."""
    if isinstance(result, dict):
        for key, value in result.items():
            if key == "commit" and isinstance(value, str):
                yield value
            elif key == "commits":
                yield from value.values()
            else:
                yield from commits_in(value)
    elif isinstance(result, list):
        for value in result:
            yield from commits_in(value)


def _git(*words: str) -> str:
    git = ["git", "-C", str(Path(__file__).parent), *words]
    return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
