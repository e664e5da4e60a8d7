"""Charts of the benchmark report as SVG text: lines by cycle, small multiples, intervals.

The charts take plain numbers and labels; they must not know the format of results, nor the HTML page.
"""

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

CYCLE = "cycle (votes cast, index refreshed)"
_INK, _GRID = "#1a1b1c", "#d0d1d2"
# Okabe and Ito's colours, darkened to 3:1 on white; each line also has its own dashes and marker.
_LINES = ("#0060a8", "#b34c00", "#00785a", "#9b4f82", "#6b6310")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1)))
_MARKERS = ("o", "s", "^", "D", "v")
# A page may set these CSS variables, for a dark background say; alone, the SVG keeps its colours.
_VARIABLES = {
    _INK: "--ink",
    _GRID: "--grid",
    **{c: f"--line-{i}" for i, c in enumerate(_LINES, 1)},
}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _GRID,
    "legend.frameon": False,
}
_LEAST_SPAN = 0.02  # of a vertical axis: less would make noise look like news


@dataclass(frozen=True)
class Line:
    """One line: its name in the legend, and a value at each of the chart's positions or None."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Interval:
    """A mean difference with the ends of its interval; None where there was nothing to measure."""

    label: str
    mean: float | None
    low: float | None
    high: float | None


def lines_by_cycle(
    lines: Sequence[Line],
    *,
    cycles: Sequence[int],
    y_label: str,
    key: str,
    level: tuple[str, float | None] | None = None,
) -> str:
    """An SVG of each line over the cycles.

    A line without values is left out, and the others keep the colours they have beside it.
    key: a prefix of the ids inside the SVG, which makes them unique in a page of several charts.
    level: a name and a value drawn as a horizontal line.
    """
    with _figure(key, 9.0, 3.9) as figure:
        axes = figure.subplots()
        if level is not None and level[1] is not None:
            axes.axhline(level[1], color=_INK, lw=1.1, ls=(0, (2, 2)), label=level[0])
        for i, line in enumerate(lines):
            if line.values:
                _draw_line(axes, cycles, line, i)
        _dress_cycles(axes, cycles, y_label)
        figure.legend(loc="outside upper left", ncols=3)
        return _svg(figure, key)


def small_multiples(
    panels: Mapping[str, Line], *, cycles: Sequence[int], name: str, key: str
) -> str:
    """An SVG of one panel a measure, three a row, with the value at the first cycle as a level line.

    panels: by title, the measure's name and its values.
    name: the line's name in the legend.
    key: as in `lines_by_cycle`.
    """
    n_columns = min(3, max(1, len(panels)))
    n_rows = max(1, math.ceil(len(panels) / n_columns))
    with _figure(key, 9.0, 0.5 + 2.6 * n_rows) as figure:
        figure.get_layout_engine().set(wspace=0.05, hspace=0.06)
        grid = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
        for axes, (title, panel) in zip(grid, panels.items(), strict=False):
            start = next(iter(panel.values), None)
            if start is not None:
                axes.axhline(start, color=_INK, lw=1.1, ls=(0, (2, 2)), label="before any vote")
            _draw_line(axes, cycles, Line(name, panel.values), 0)
            _dress_cycles(axes, cycles, f"mean {panel.name} (0 to 1)")
            axes.set_title(title, fontsize=9.5)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        found = {
            label: handle
            for axes in grid
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(list(found.values()), list(found), loc="outside upper left", ncols=2)
        return _svg(figure, key)


def interval_chart(rows: Sequence[Interval], *, x_label: str, y_label: str, key: str) -> str:
    """An SVG of one row an interval, the first at the top, with a line at zero (a forest plot).

    A row without a value says so in its label; key: as in `lines_by_cycle`.
    """
    with _figure(key, 9.0, 1.35 + 0.38 * max(1, len(rows))) as figure:
        axes = figure.subplots()
        axes.axvline(0.0, color=_INK, lw=1.1, ls=(0, (2, 2)), label="no difference")
        named = False
        for y, row in enumerate(rows):
            if row.mean is None:
                continue
            if row.low is not None and row.high is not None:
                label = "_" if named else "95 % interval"
                axes.plot([row.low, row.high], [y, y], color=_LINES[0], lw=2.2, label=label)
            label = "_" if named else "mean difference"
            axes.plot([row.mean], [y], "o", color=_LINES[0], ms=6, label=label)
            named = True
        labels = [row.label if row.mean is not None else f"{row.label}: no value" for row in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(max(1, len(rows)) - 0.4, -0.6)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(axis="x", lw=0.6)
        axes.set_axisbelow(True)
        _widen(axes.get_xlim, axes.set_xlim)
        figure.legend(loc="outside upper left", ncols=3)
        return _svg(figure, key)


def _draw_line(axes: Any, cycles: Sequence[int], line: Line, number: int) -> None:
    values = [math.nan if value is None else value for value in line.values]
    i = number % len(_LINES)
    style = {"color": _LINES[i], "ls": _DASHES[i], "marker": _MARKERS[i], "lw": 1.8, "ms": 4.5}
    axes.plot(cycles[: len(values)], values, label=line.name, **style)


def _dress_cycles(axes: Any, cycles: Sequence[int], y_label: str) -> None:
    step = math.ceil(len(cycles) / 12) or 1
    axes.set_xticks(list(cycles)[::step])
    axes.set_xlabel(CYCLE)
    axes.set_ylabel(y_label)
    axes.grid(axis="y", lw=0.6)
    axes.set_axisbelow(True)
    axes.margins(y=0.12)
    _widen(axes.get_ylim, axes.set_ylim)


def _widen(get: Any, put: Any) -> None:
    low, high = get()
    lack = _LEAST_SPAN - (high - low)
    if lack > 0:
        put(low - lack / 2, high + lack / 2)


@contextmanager
def _figure(key: str, width: float, height: float) -> Iterator[Any]:
    """A figure to draw in this module's style, whatever the machine's; other figures keep theirs."""
    import matplotlib
    from matplotlib import rc_context, rcdefaults
    from matplotlib.figure import Figure

    with rc_context(), warnings.catch_warnings():
        rcdefaults()
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": key})
        # Text stays text: the reader's fonts show what matplotlib's own font lacks.
        warnings.filterwarnings("ignore", message="Glyph")
        yield Figure(figsize=(width, height), layout="constrained", facecolor="none")


def _svg(figure: Any, key: str) -> str:
    """The <svg> element alone: no prolog, no date, ids of its own, colours a page can replace."""
    for axes in figure.axes:
        axes.patch.set_visible(False)
    file = io.StringIO()
    figure.savefig(
        file, format="svg", metadata=dict.fromkeys(["Date", "Creator", "Format", "Type"])
    )
    whole = file.getvalue()
    svg = whole[whole.index("<svg") :].strip()
    return re.sub(r"<[^>]*>", lambda tag: _adapted(tag.group(), key), svg)  # tags: no label's text


def _adapted(tag: str, key: str) -> str:
    tag = re.sub(r'( id="|xlink:href="#|url\(#)', rf"\g<1>{key}-", tag)
    for colour, variable in _VARIABLES.items():
        tag = tag.replace(colour, f"var({variable}, {colour})")
    return tag
