"""A benchmark result as one HTML page that needs nothing else: tables, charts, how to read them.

It formats the result's JSON and measures nothing; it must not know how a result is computed.
"""

import html
from collections.abc import Collection as Names
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from rag_flywheel.bench import report_charts as charts
from rag_flywheel.bench.reading import how_to_read
from rag_flywheel.bench.terminal import (
    DIFFERENCE,
    MEASURE,
    NONE,
    Json,
    ahead,
    best_first,
    check_format,
    difference_cells,
    named,
    number,
    refresh_table,
    share,
    slice_gains,
    slice_measures,
    slice_rankings,
    slice_rows,
)
from rag_flywheel.formats.printable import printable

Cell: TypeAlias = str | tuple[str, str]
"""Text of a table cell, or (text, small print below it)."""

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1b1c; --paper: #fff; --soft: #5a5d61; --grid: #d0d1d2;
  --mark: #eef4fa; --link: #0a559c }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e4e5e7; --paper: #17191c; --soft: #a5a9ae; --grid: #43474c; --mark: #222c37;
    --link: #8cc4f5; --line-1: #6db6f2; --line-2: #f2a35e; --line-3: #4fcfa3; --line-4: #dfa0cb;
    --line-5: #d5c95a } }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
main { max-width: 62rem; margin: 0 auto; padding: 1rem 1.5rem 4rem }
h1 { font-size: 1.6rem } h2 { margin-top: 3rem; border-bottom: 1px solid var(--grid) }
h1, h2, h3, dt { line-height: 1.25; overflow-wrap: anywhere } h3 { margin-top: 2rem }
a { color: var(--link) } nav ul { padding: 0 } nav li { display: inline-block; margin-right: 1.2rem }
p, dd { max-width: 46rem } dd { margin: 0 0 .8rem } dt { font-weight: 600 }
.facts { display: grid; grid-template-columns: repeat(4, 1fr); gap: 0 1.5rem }
.facts dt { font-weight: 400; font-size: .85rem; color: var(--soft) }
.wide { overflow-x: auto; margin: 1rem 0 }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: .3rem 0 }
th, td { padding: .3rem .6rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--grid); font-weight: 400 }
thead th { vertical-align: bottom; color: var(--soft); border-bottom-color: var(--soft) }
.n { text-align: right } td.n, tbody th { white-space: nowrap }
td.w, tbody th { overflow-wrap: anywhere; white-space: normal; min-width: 7rem }
.strong { background: var(--mark) } .strong > * { font-weight: 600 }
small { display: block; font-weight: 400; color: var(--soft) }
figure { margin: 1.5rem 0 } figcaption, summary { color: var(--soft); font-size: .875rem }
.warning { border-left: .3rem solid var(--link); padding: .2rem .8rem; background: var(--mark) }
svg { max-width: 100%; height: auto; display: block }
svg text { font-family: system-ui, "Segoe UI", Roboto, Arial, sans-serif !important }
@media (max-width: 44rem) { .facts { grid-template-columns: repeat(2, 1fr) } }
@media print { main { max-width: none; padding: 0 } body { font-size: 10pt }
  table { font-size: 7.5pt } th, td { padding: .2rem .3rem } .wide { overflow: visible }
  tr, figure, dd { break-inside: avoid } h2, h3, dt, caption { break-after: avoid } }
"""
_X_LABEL = f"difference in mean {MEASURE}, flywheel − static hybrid"
_STREAM = {
    "n_asked": "questions asked, with repeats",
    "n_questions": "different questions",
    "n_needs": "different needs",
    "most_asked": "times the commonest was asked",
    "n_users": "users",
    "n_asked_again": "of the questions, asked again",
}
_BETTER = {"harmful@8": "lower is better", "Judged@8": "how much is known"}


def write_report(result: Json, path: Path) -> None:
    """Write the report of a result as UTF-8 HTML, the same bytes for the same result.

    Raises InputError when the result is of another format.
    """
    check_format(result)
    path.write_text(_page(result), encoding="utf-8", newline="\n")


def escape(text: str) -> str:
    """Text as HTML that shows it, with characters that cannot be seen as escapes."""
    return html.escape(printable(text))


def _page(result: Json) -> str:
    collections = result["collections"]
    title = f"rag-flywheel benchmark, {escape(str(result['protocol']['name']))}"
    anchors = {f"collection-{i}": c for i, c in enumerate(collections, 1)}
    links = {"all": "All collections"} | {anchor: c["name"] for anchor, c in anchors.items()}
    links |= {"read": "How to read this", "made": "How it was made"}
    topics = "".join(f"<dt>{escape(t)}</dt><dd>{escape(s)}</dd>" for t, s in how_to_read(result))
    items = "".join(f"<li><a href='#{a}'>{escape(name)}</a></li>" for a, name in links.items())
    parts = [
        f"<h1>{title}</h1><nav aria-label='Contents'><ul>{items}</ul></nav>",
        _headline(collections),
        *(_collection(c, anchor) for anchor, c in anchors.items()),
        "<section id='read'><h2>How to read this</h2><details><summary>The protocol, the users, and what "
        f"each number means</summary><dl>{topics}</dl></details></section>",
        _made(result),
    ]
    head = (
        f"<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n<title>{title}</title>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        f"<style>\n{_STYLE}</style>\n</head>\n"
    )
    return head + "<body>\n<main>\n" + "\n".join(parts) + "\n</main>\n</body>\n</html>\n"


def _headline(collections: Sequence[Json]) -> str:
    rows: list[list[Cell]] = []
    distinct: list[list[Cell]] = []
    intervals = []
    for c in collections:
        static, ours = (named(c["rankings"], name) for name in (c["static"], "flywheel"))
        rows.append([c["name"], str(c["n_test"]), *_side_by_side(static, ours)])
        intervals.append(_interval(c["name"], c["n_test"], ours["difference"]))
        before, after = (r["without_near_duplicates"] for r in (static, ours))
        distinct.append([c["name"], str(after["n"]), *_side_by_side(before, after)])
    columns = ("collection", "test queries", "static hybrid", "flywheel", *DIFFERENCE)
    chart = charts.interval_chart(
        intervals, x_label=_X_LABEL, y_label="collection (test queries)", key="all"
    )
    return (
        f"<section id='all'><h2>All collections</h2>{''.join(map(_warnings, collections))}"
        f"<p>Mean {MEASURE} of test queries after the last cycle of votes. No test query ever got a "
        "vote; the static hybrid is the ranking without any.</p>"
        + _table("All test queries", columns, rows)
        + _table("Without test queries that nearly repeat a train query", columns, distinct)
        + _headline_slices(collections)
        + _figure(chart, "The flywheel's difference to the static hybrid, by collection.")
        + "</section>"
    )


def _headline_slices(collections: Sequence[Json]) -> str:
    """The slices of all collections of cycles-v2."""
    rows: list[list[Cell]] = [
        [f"{c['name']}: {row[0]}", *row[1:]]
        for c in collections
        if "stream" in c
        for row in slice_rows(c)
    ]
    columns = ("collection: slice", "questions", "static hybrid", "flywheel", *DIFFERENCE)
    return _table("By slice of the questions", columns, rows) if rows else ""


def _side_by_side(static: Json, ours: Json) -> list[str]:
    values = [number(r["values"][MEASURE]) for r in (static, ours)]
    return [*values, *difference_cells(ours.get("difference"))]


def _interval(name: str, n: int, difference: Json | None) -> charts.Interval:
    d = difference or {}
    return charts.Interval(f"{name} ({n})", d.get("mean"), d.get("low"), d.get("high"))


def _collection(c: Json, key: str) -> str:
    facts = [
        ("passages", c["n_passages"]),
        ("train queries", c["n_train"]),
        ("of them got votes", c["n_voted"]),
        ("dev queries", f"{c['n_dev']} ({c['dev']})"),
        ("test queries", c["n_test"]),
        ("vectors", c["vectors"]),
        ("static hybrid is the ranking", c["static"]),
        ("seconds", c["seconds"]),
    ]
    facts += [(_STREAM[name], n) for name, n in c.get("stream", {}).items()]
    shown = "".join(f"<div><dt>{k}</dt><dd>{escape(str(v))}</dd></div>" for k, v in facts)
    return (
        f"<section id='{key}'><h2>{escape(c['name'])}</h2><dl class='facts'>{shown}</dl>"
        f"<h3>By cycle</h3>{_cycles(c, key)}"
        f"<h3>Rankings compared</h3>{_rankings(c)}"
        f"<h3>For whom: slices of the test queries</h3>{_slices(c, key)}"
        f"<h3>Correction lag and exposure</h3>{_correction(c['correction'])}{_exposure(c, key)}"
        f"{_refreshes(c)}</section>"
    )


def _warnings(c: Json) -> str:
    """What to know of a collection before its numbers are read: what was left out, and warnings."""
    found = [escape(f"{c['name']}: {sentence}.") for sentence in c.get("left_out", ())]
    found += [escape(f"Warning, {c['name']}: {warning}.") for warning in c.get("warnings", ())]
    return "".join(f"<p class='warning' role='note'>{warning}</p>" for warning in found)


def _refreshes(c: Json) -> str:
    """What each refresh made live, of the runs that have it."""
    tables = []
    for run in c["runs"]:
        if "refreshes" in run:
            columns, rows = refresh_table(run)
            reasons = [refresh["reason"] for refresh in run["refreshes"]]
            caption = f"Live after each cycle of the run “{run['name']}”"
            cells: list[list[Cell]] = [
                [*row, reason] for row, reason in zip(rows, reasons, strict=True)
            ]
            tables.append(_table(caption, (*columns, "why"), cells, words=(len(columns),)))
    if not tables:
        return ""
    others = "".join(tables[1:])
    return (
        "<h3>Refreshes: new weights, estimated rates of wrong votes, and the kernel</h3>"
        f"{tables[0]}<details><summary>The other runs</summary>{others}</details>"
    )


def _cycles(c: Json, key: str) -> str:
    static = named(c["rankings"], c["static"])["values"][MEASURE]
    votes = named(c["runs"], "votes")["cycles"]
    cycles = [y["number"] for y in votes]
    lines = [charts.Line(r["name"], [y["values"][MEASURE] for y in r["cycles"]]) for r in c["runs"]]
    quality = charts.lines_by_cycle(
        lines,
        cycles=cycles,
        y_label=f"mean {MEASURE} of test queries (0 to 1)",
        key=f"{key}-quality",
        level=("static hybrid", static),
    )
    panels = {
        f"{m}: {_BETTER.get(m, 'higher is better')}": charts.Line(
            m, [y["values"][m] for y in votes]
        )
        for m in votes[0]["values"]
        if m != MEASURE
    }
    others = charts.small_multiples(panels, cycles=cycles, name="votes", key=f"{key}-others")
    return (
        _figure(quality, f"{MEASURE} by cycle, all runs. The axis does not start at 0.")
        + _figure(others, "Other measures by cycle, run “votes”. The axes do not start at 0.")
        + "<details><summary>The numbers of these charts</summary>"
        + "".join(_run_table(run) for run in c["runs"])
        + "</details>"
    )


def _run_table(run: Json) -> str:
    measures = list(run["cycles"][0]["values"])
    rows: list[list[Cell]] = [
        [str(y["number"]), str(y["n_votes"]), *(number(y["values"][m]) for m in measures)]
        for y in run["cycles"]
    ]
    caption = f"Run “{run['name']}”: {run['what']}"
    return _table(caption, ("cycle", "votes so far", *measures), rows)


def _rankings(c: Json) -> str:
    columns = ("ranking", MEASURE, *DIFFERENCE, "helped", "hurt", "flywheel ahead", "weight")
    ranked = best_first(c["rankings"])
    measures = list(ranked[0]["values"])
    rows: list[list[Cell]] = []
    all_rows: list[list[Cell]] = []
    for r in ranked:
        small = "; ".join(str(r[k]) for k in ("what", "source") if r[k])
        weight = NONE if r["weight"] is None else f"{r['weight']:g}"
        rows.append(
            [
                (r["name"], small),
                number(r["values"][MEASURE]),
                *difference_cells(r["difference"]),
                *(share(r[k]) for k in ("helped", "hurt")),
                ahead(r.get("ahead", {})),
                (weight, str(r["chosen"] or "")),
            ]
        )
        values = [r["values"][m] for m in measures]
        values.append(r["without_near_duplicates"]["values"][MEASURE])
        all_rows.append([r["name"], *map(number, values)])
    strong = ("flywheel", c["static"])
    every = (*measures, f"{MEASURE} without near-duplicates")
    return (
        _table(f"By {MEASURE}; differences are to “{c['static']}”", columns, rows, strong=strong)
        + _other_measures(ranked, strong)
        + "<details><summary>All measures of these rankings</summary>"
        + _table("Means over the test queries", ("ranking", *every), all_rows, strong=strong)
        + "</details>"
    )


def _other_measures(ranked: Sequence[Json], strong: Names[str]) -> str:
    """The differences in the other measures, of results that have them."""
    measures = next((list(d) for r in ranked if (d := r.get("differences"))), [])[1:]
    if not measures:
        return ""
    columns = [name for m in measures for name in (m, *DIFFERENCE)]
    rows: list[list[Cell]] = [
        [
            r["name"],
            *(
                cell
                for m in measures
                for cell in (
                    number(r["values"][m]),
                    *difference_cells((r["differences"] or {}).get(m)),
                )
            ),
        ]
        for r in ranked
    ]
    caption = f"{' and '.join(measures)} of the same rankings, each with its difference"
    return _table(caption, ("ranking", *columns), rows, strong=strong)


def _slices(c: Json, key: str) -> str:
    columns = ("slice", "test queries", "static hybrid", "flywheel", *DIFFERENCE)
    rows: list[list[Cell]] = [
        [(s["name"], s["what"]), *cells[1:]]
        for s, cells in zip(c["slices"], slice_rows(c), strict=True)
    ]
    whole = named(c["rankings"], "flywheel")["difference"]
    intervals = [_interval("all", c["n_test"], whole)]
    intervals += [_interval(s["name"], s["n"], s["difference"]) for s in c["slices"]]
    chart = charts.interval_chart(
        intervals, x_label=_X_LABEL, y_label="slice (test queries)", key=f"{key}-slices"
    )
    return (
        _table(f"Mean {MEASURE} by slice", columns, rows)
        + _figure(chart, "The flywheel's difference to the static hybrid, by slice.")
        + (_slices_of_a_stream(c, key) if "stream" in c else "")
    )


def _slices_of_a_stream(c: Json, key: str) -> str:
    by_cycle = charts.lines_by_cycle(
        [charts.Line(s["name"], s["by_cycle"]) for s in c["slices"] if s["n"]],
        cycles=list(range(len(c["slices"][0]["by_cycle"]))),
        y_label=f"mean {MEASURE} (0 to 1)",
        key=f"{key}-slices-by-cycle",
    )
    (columns, rows), (names, values) = slice_measures(c), slice_rankings(c)
    compared, gains = slice_gains(c)
    ahead: list[list[Cell]] = [
        [f"{s['name']}: {other}", *difference_cells(d)]
        for s in c["slices"]
        for other, d in s["ahead"].items()
    ]
    return (
        _table(f"Mean {MEASURE} of the rankings that matter most", names, values)
        + _table(
            f"What votes changed: mean {MEASURE} before any vote and at the end", compared, gains
        )
        + _figure(by_cycle, f"{MEASURE} by cycle and slice, run “votes”.")
        + _table("All measures by slice", columns, rows, words=(1,))
        + "<details><summary>The flywheel beside other rankings, by slice</summary>"
        + _table(f"Flywheel less the other, mean {MEASURE}", ("slice: other", *DIFFERENCE), ahead)
        + "</details>"
    )


def _correction(found: Json) -> str:
    rows: list[list[Cell]] = [
        ["test queries whose first hit was wrong before any vote", str(found["n_wrong_at_first"])],
        ["of them right at the end, and from some cycle on", str(found["n_corrected"])],
        ["median number of cycles it took", number(found["median_cycle"], 1)],
    ]
    return _table("Correction lag in the run “votes”", ("what", "value"), rows)


def _exposure(c: Json, key: str) -> str:
    runs = [run for run in c["runs"] if run["exposure_gini"]]
    if not runs:
        return "<p>No run of this result counted how often passages were shown.</p>"
    cycles = list(range(1, 1 + max(len(run["exposure_gini"]) for run in runs)))
    chart = charts.lines_by_cycle(
        [charts.Line(run["name"], run["exposure_gini"]) for run in c["runs"]],
        cycles=cycles,
        y_label="Gini index of exposure (0 to 1)",
        key=f"{key}-exposure",
    )
    rows: list[list[Cell]] = [
        [run["name"], *(number(gini) for gini in run["exposure_gini"])] for run in runs
    ]
    caption = "Gini index of how often each passage was shown, by cycle"
    table = _table(caption, ("run", *map(str, cycles)), rows)
    return _figure(chart, "How unevenly passages were shown. The axis does not start at 0.") + table


def _made(result: Json) -> str:
    blocks = [("Protocol", result["protocol"]), ("Environment", result["environment"])]
    blocks += [(f"sha256 of files: {c['name']}", c["sha256"]) for c in result["collections"]]
    tables = (
        _table(caption, ("what", "value"), _flat(values), words=(1,)) for caption, values in blocks
    )
    return f"<section id='made'><h2>How it was made</h2>{''.join(tables)}</section>"


def _flat(values: Json, above: str = "") -> list[tuple[str, str]]:
    """Names and values as text, those of nested mappings after the name of their mapping."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{above}{name}: ")
        else:
            rows.append((f"{above}{name}", NONE if value is None else str(value)))
    return rows


def _figure(svg: str, caption: str) -> str:
    label = f"<svg role='img' aria-label='{escape(caption)}' "
    return f"<figure>{svg.replace('<svg ', label, 1)}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    words: Names[int] = (),
    strong: Names[str] = (),
) -> str:
    """A table whose first column names the row; words: other columns that hold no numbers."""
    kinds = ["w" if i == 0 or i in words else "n" for i in range(len(columns))]
    head = "".join(
        f"<th scope='col' class='{kind}'>{escape(name)}</th>"
        for kind, name in zip(kinds, columns, strict=True)
    )
    body = []
    for row in rows:
        name = row[0] if isinstance(row[0], str) else row[0][0]
        cells = [f"<th scope='row' class='w'>{_cell(row[0])}</th>"]
        cells += [
            f"<td class='{k}'>{_cell(v)}</td>" for k, v in zip(kinds[1:], row[1:], strict=False)
        ]
        body.append(f"<tr{' class=strong' if name in strong else ''}>{''.join(cells)}</tr>")
    return (
        f"<div class='wide'><table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return escape(cell)
    return escape(cell[0]) + (f"<small>{escape(cell[1])}</small>" if cell[1] else "")
