"""Charts as SVG, drawn by pygal, whose colours come from the style sheet of the page.

Neither script nor style stands in them: the page's policy would not let them act.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

Series = Mapping[str, Sequence[float | None]]
_WIDTH, _HEIGHT = 640, 260
_LEFT_OUT = ("script", "style", "desc")


def lines(title: str, labels: Sequence[str], series: Series, *, shares: bool = False) -> Markup:
    """A line for each series over the labels; None where a value is not known. shares: from 0 to 1."""
    fixed = {"range": (0, 1), "y_labels": [0, 0.2, 0.4, 0.6, 0.8, 1]} if shares else {}
    chart = _pygal().Line(**_common(labels) | fixed, dots_size=4)
    return _drawn(chart, title, labels, series)


def bars(title: str, labels: Sequence[str], series: Series) -> Markup:
    """A bar for each label, in which the series stand on one another."""
    return _drawn(_pygal().StackedBar(**_common(labels)), title, labels, series)


def _pygal() -> Any:
    """pygal, which takes 0.1 s to load, without the finder that it puts among those of Python: that is for
    its maps, is of a kind that Python 3.11 warns of at every import, and later ones pass over."""
    import pygal

    sys.meta_path[:] = [each for each in sys.meta_path if type(each).__module__ != "pygal"]
    return pygal


def _common(labels: Sequence[str]) -> dict[str, Any]:
    n = len(labels)
    return {
        "css": [],
        "js": [],
        "no_prefix": True,
        "disable_xml_declaration": True,
        "width": _WIDTH,
        "height": _HEIGHT,
        "margin": 8,
        "legend_at_bottom": True,
        "x_labels": list(labels),
        "x_labels_major_count": 6,
        "show_minor_x_labels": n <= 6,
        "no_data_text": "nothing yet",
        "truncate_legend": -1,
    }


def _drawn(chart: Any, title: str, labels: Sequence[str], series: Series) -> Markup:
    for name, values in series.items():
        chart.add(name, list(values))
    chart.add_xml_filter(_without_script)
    drawn = Markup(chart.render(is_unicode=True))
    return Markup('<figure class="chart"><figcaption>{}</figcaption>{}{}</figure>').format(
        title, drawn, _table(title, labels, series)
    )


def _without_script(root: Any) -> Any:
    """The picture without what the policy forbids, named for screen readers as a picture."""
    for parent in list(root.iter()):
        for child in list(parent):
            tag = child.tag if isinstance(child.tag, str) else ""
            name = tag.split("}")[-1]
            gone = name in _LEFT_OUT or not tag or (name == "title" and parent is root)
            if gone or "tooltip-overlay" in child.get("class", ""):
                parent.remove(child)
            child.attrib.pop("style", None)
            child.attrib.pop("id", None)
    root.attrib.pop("id", None)
    root.set("aria-hidden", "true")
    return root


def _table(title: str, labels: Sequence[str], series: Series) -> Markup:
    """The same numbers for those who do not see the picture."""
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(name) for name in series)
    rows = Markup("").join(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            label,
            Markup("").join(
                Markup("<td>{}</td>").format("" if values[i] is None else f"{values[i]:.4g}")
                for values in series.values()
            ),
        )
        for i, label in enumerate(labels)
    )
    return Markup(
        '<details><summary>Numbers<span class="hidden"> of {}</span></summary><div class="wide" tabindex="0" '
        'role="region" aria-label="{}"><table><thead><tr><th scope="col"></th>{}</tr></thead>'
        "<tbody>{}</tbody></table></div></details>"
    ).format(title, escape(title), head, rows)
