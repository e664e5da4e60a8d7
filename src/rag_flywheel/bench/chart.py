"""Draws the demo's curves with matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rag_flywheel.bench.cycles import Curve


def draw_curves(
    curves: Sequence[Curve], path: Path, *, title: str, measure: str = "nDCG@10"
) -> None:
    """One panel a group of questions: the flywheel after each cycle, the static index (cycle 0)
    beside it, and the bound where there is one. All panels have the same scale.

    The format follows the ending of `path`: .png or .svg.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(curves), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for axes, curve in zip(figure.subplots(1, len(curves), sharey=True), curves, strict=True):
        _panel(axes, curve, measure)
    figure.savefig(path, dpi=120)


def _panel(axes: Any, curve: Curve, measure: str) -> None:
    numbers = [c.number for c in curve.cycles]
    values = [c.values[measure] for c in curve.cycles]
    if curve.bound is not None:
        axes.axhline(curve.bound, linestyle=":", color="#888888", label="best of what was shown")
    axes.plot(numbers, [values[0]] * len(values), "--", color="#888888", label="static index")
    axes.plot(numbers, values, "o-", color="#1f6fb2", label="with votes")
    axes.annotate(f"{values[0]:.3f}", (0, values[0]), (4, -12), textcoords="offset points")
    end = numbers[-1], values[-1]
    axes.annotate(f"{values[-1]:.3f}", end, (-4, 6), textcoords="offset points", ha="right")
    axes.set_title(f"{curve.name}: {curve.n_queries} questions", fontsize=10)
    axes.set_xlabel("cycle of votes and refresh")
    axes.set_ylabel(f"mean {measure}")
    axes.set_xticks(numbers)
    axes.margins(y=0.25)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
