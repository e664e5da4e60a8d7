"""Draws the demo's measures by cycle with matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rag_flywheel.bench.cycles import Cycle


def draw_cycles(
    cycles: Sequence[Cycle], measures: Sequence[str], path: Path, *, title: str
) -> None:
    """One panel a measure: the flywheel after each cycle, and the static index (cycle 0) beside it.

    The format follows the ending of `path`: .png or .svg.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(measures), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for axes, measure in zip(figure.subplots(1, len(measures)), measures, strict=True):
        _panel(axes, cycles, measure)
    figure.savefig(path, dpi=120)


def _panel(axes: Any, cycles: Sequence[Cycle], measure: str) -> None:
    numbers = [c.number for c in cycles]
    values = [c.values[measure] for c in cycles]
    axes.plot(numbers, [values[0]] * len(values), "--", color="#888888", label="static index")
    axes.plot(numbers, values, "o-", color="#1f6fb2", label="with votes")
    axes.annotate(f"{values[0]:.3f}", (0, values[0]), (4, -12), textcoords="offset points")
    end = numbers[-1], values[-1]
    axes.annotate(f"{values[-1]:.3f}", end, (-4, 6), textcoords="offset points", ha="right")
    better = "lower is better" if measure.startswith("harmful") else "higher is better"
    axes.set_title(f"{measure} ({better})", fontsize=10)
    axes.set_xlabel("cycle of votes and refresh")
    axes.set_ylabel(f"mean {measure} of held-out queries")
    axes.set_xticks(numbers)
    axes.margins(y=0.25)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
