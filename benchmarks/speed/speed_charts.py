"""Charts of the committed results of `speed.py`, `speed_million.py` and `speed_peers.py`.

    python benchmarks/speed/speed_charts.py        writes docs/pictures/speed-growth.png and speed-peers.png

Every number drawn is read from benchmarks/results.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

OURS, FLOOR, DENSE = "#0060a8", "#b34c00", "#9a9a9a"
_TICKS = {10_000: "10k", 50_000: "50k", 159_173: "159k", 1_000_000: "1M"}
Result = dict[str, Any]


def read(folder: Path, name: str) -> Result:
    """A committed result; empty where there is none."""
    path = folder / f"{name}.json"
    found: Result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def points(folder: Path) -> list[Result]:
    """What is known at each size: p50 of floor and ours, seconds of the build, memory of serving."""
    found = []
    for size in read(folder, "speed").get("sizes", []):
        rows, build = size["retrieve"]["threads_1"], size["build"]
        point = {
            "n": size["n_passages"],
            "floor_ms": rows["floor"]["cpu_p50_ms"],
            "ours_ms": rows["ours"]["cpu_p50_ms"],
            "build_s": build["refresh_cpu_s"],
            "peak_mib": size["open"]["peak_mib"],
        }
        found.append(point)
    if million := read(folder, "speed_million"):
        steps = million["steps"]
        rows = steps["ask"]["threads_1"]
        point = {
            "n": million["n_passages"],
            "floor_ms": rows["floor"]["cpu_p50_ms"],
            "ours_ms": rows["ours"]["cpu_p50_ms"],
            "build_s": steps["build_ours"]["refresh"]["cpu_s"],
            "peak_mib": steps["hold_ours"]["peak_mib"],
        }
        found.append(point)
    return found


def growth(found: Sequence[Result], path: Path) -> None:
    """Three panels over the number of passages, all axes logarithmic."""
    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    calls, builds, memory = figure.subplots(1, 3)
    n = [point["n"] for point in found]
    line(calls, n, [p["ours_ms"] for p in found], "rag-flywheel", OURS)
    line(calls, n, [p["floor_ms"] for p in found], "raw faiss and bm25s", FLOOR)
    dress(calls, "one query, p50", "ms of the processor")
    line(builds, n, [p["build_s"] for p in found], "refresh after add", OURS)
    dress(builds, "building the index", "s of the processor")
    line(memory, n, [p["peak_mib"] for p in found], "opened, answering", OURS)
    dress(memory, "memory, peak", "MiB")
    figure.savefig(path, dpi=100)


def line(axes: Any, n: Sequence[int], values: Sequence[float], name: str, colour: str) -> None:
    """A line with its values beside the points."""
    axes.loglog(n, values, "o-", color=colour, label=name)
    for x, y in zip(n, values, strict=True):
        text = f"{y:.1f}" if y < 100 else f"{y:,.0f}"
        below = colour == FLOOR
        axes.annotate(
            text,
            (x, y),
            (0, -14 if below else 7),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=colour,
        )


def dress(axes: Any, title: str, unit: str) -> None:
    """Title, names and ticks of a panel."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("passages")
    axes.set_ylabel(unit)
    axes.set_xticks(list(_TICKS), list(_TICKS.values()))
    axes.minorticks_off()
    axes.margins(0.14, 0.22)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left")


def peers(found: Result, path: Path) -> None:
    """A bar for each store: how many times as long as ours it takes for one query."""
    rows = [row for row in found["peers"] if "failed" not in row]
    rows.sort(key=lambda row: float(row["cpu_times_ours"]))
    figure = Figure(figsize=(8, 0.5 + 0.42 * (len(rows) + 1)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for i, row in enumerate(rows):
        colour = OURS if row["hybrid"] else DENSE
        bar = axes.barh(i, row["cpu_times_ours"], color=colour)
        recall = f"  {row['cpu_times_ours']:.2f} (recall@10 {row['recall@10']:.3f})"
        axes.bar_label(bar, [recall], fontsize=8)
    for name, colour in (("words and vectors", OURS), ("vectors alone", DENSE)):
        axes.barh(0, 0, color=colour, label=name)
    axes.axvline(1.0, color="black", lw=1, label="rag-flywheel, not recorded")
    axes.axvline(2.0, color="black", lw=1, ls=":", label="twice as long")
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_xscale("log")
    axes.set_xlabel(
        f"processor time of one query, {found['n_passages']:,} passages, in times that of rag-flywheel"
    )
    longest = max(float(row["cpu_times_ours"]) for row in rows)
    axes.set_xlim(0.05, 50.0 * longest)  # with room for what stands behind the longest bar
    axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=100)


def main() -> None:
    """Draw what there are results for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    asked = parser.parse_args()
    found = points(asked.results)
    if len(found) > 1:  # else there is no growth to draw
        growth(found, asked.out / "speed-growth.png")
    if others := read(asked.results, "speed_peers"):
        peers(others, asked.out / "speed-peers.png")


if __name__ == "__main__":
    main()
