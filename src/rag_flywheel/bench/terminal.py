"""Formats a benchmark result as text: its numbers, and its tables in the terminal.

It formats the result's JSON and measures nothing; it must not know how a result is computed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from textwrap import fill
from typing import Any, TypeAlias

from rag_flywheel.bench.protocol import RESULT_FORMAT
from rag_flywheel.errors import InputError
from rag_flywheel.formats.printable import printable, printable_line

MEASURE = "nDCG@10"
NONE = "–"
DIFFERENCE = ("difference", "95 % interval", "p")
Json: TypeAlias = Mapping[str, Any]

_WIDTH = 100
_HEADER_WIDTH = 14
_SHORT = {"false_helpful": "false +", "false_harmful": "false −", "neighbours": "near"}
_NO_RATES = {"format_version", "sharpness", "given_sharpness", "choice", "candidate_spread"}


def print_result(result: Json) -> None:
    """Print, for each collection, the rankings that matter, the runs and the slices.

    At most 100 columns wide. Raises InputError when the result is of another format.
    """
    from rich.console import Console

    check_format(result)
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = min(console.width, _WIDTH) if console.is_terminal else _WIDTH
    collections = result["collections"]
    p = result["protocol"]
    console.print(
        f"{p['name']}: {p['n_cycles']} cycles, seed {p['seed']}; mean {MEASURE} of test queries, "
        "which never got a vote; differences are to the static hybrid"
    )
    once = [c for c in collections if "stream" not in c]
    tables: list[tuple[Sequence[str], Callable[[Json], list[list[str]]]]] = [
        (("ranking", MEASURE, *DIFFERENCE, "helped", "hurt"), _ranking_rows),
        (("run", "votes", "before", "at the end"), _run_rows),
    ]
    for columns, rows in tables:
        _print(console, columns, [(c["name"], rows(c)) for c in collections])
    if once:
        columns = ("slice", "queries", "static", "flywheel", *DIFFERENCE)
        _print(console, columns, [(c["name"], slice_rows(c)) for c in once])
    for c in collections:
        for columns, found in _stream_tables(c):
            _print(console, columns, [(c["name"], found)])
    for c in collections:
        for sentence in c.get("left_out", ()):
            console.print(printable(f"{c['name']}: {sentence}"))
        for warning in c.get("warnings", ()):
            console.print(printable(f"warning, {c['name']}: {warning}"), style="bold")


def _stream_tables(c: Json) -> list[tuple[Sequence[str], list[list[str]]]]:
    """The tables that only a collection of cycles-v2 has: (columns, rows)."""
    if "stream" not in c:
        return []
    refreshes = refresh_table(named(c["runs"], "votes"))
    return [slice_measures(c), slice_rankings(c), slice_gains(c), refreshes]


def check_format(result: Json) -> None:
    """Raise InputError unless the result is of the format this package shows."""
    if result.get("format") != RESULT_FORMAT:
        raise InputError(
            f"the result's format is {result.get('format')!r}; expected {RESULT_FORMAT!r}: give a file "
            "that this release's benchmark wrote"
        )


def number(value: float | None, digits: int = 3) -> str:
    """A value with so many digits after the point; a dash for None and NaN."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None) -> str:
    """A difference with its sign and three digits; a dash for None and NaN."""
    shown = number(value)
    return shown if shown == NONE or shown.startswith("−") else f"+{shown}"


def share(value: float | None) -> str:
    """A share of 1 as per cent with one digit after the point; a dash for None."""
    return NONE if value is None else f"{value:.1%}".replace("%", " %")


def difference_cells(difference: Json | None) -> list[str]:
    """Mean, "low to high" and p of a paired difference, for the columns of DIFFERENCE."""
    d = difference or {}
    low, high = signed(d.get("low")), signed(d.get("high"))
    ends = NONE if NONE in (low, high) else f"{low} to {high}"
    return [signed(d.get("mean")), ends, number(d.get("p"), 4)]


def ahead(differences: Json) -> tuple[str, str]:
    """How far the flywheel is ahead of a ranking with its own votes, and with the same votes."""
    own, same = (
        f"{signed(d['mean'])}, p {number(d['p'], 4)}" if d else NONE
        for d in (differences.get("flywheel"), differences.get("flywheel, fixed exposure"))
    )
    return own, f"same votes: {same}"


def named(rows: Sequence[Json], name: str) -> Json:
    """The row of this name. Raises InputError when there is none."""
    for row in rows:
        if row["name"] == name:
            return row
    found = ", ".join(str(row["name"]) for row in rows)
    raise InputError(f"the result has no {name!r}, only: {found}; run the benchmark again")


def best_first(rankings: Sequence[Json]) -> list[Json]:
    """The rankings from the highest nDCG@10 down; those without a value last."""
    return sorted(rankings, key=lambda r: math.inf if (v := r["values"][MEASURE]) is None else -v)


def _ranking_rows(c: Json) -> list[list[str]]:
    """The static hybrid, the best rule beside the flywheel and the oracle, the flywheel, the oracle."""
    shown = _shown(c)
    ours = [r for r in c["rankings"] if r["name"].startswith("flywheel")]
    ceiling = [r for r in c["rankings"] if r["name"].startswith("oracle")]
    static = named(c["rankings"], c["static"])
    rules = [r for r in best_first(c["rankings"]) if r not in [static, *ours, *ceiling]]
    best = [{**r, "name": f"best other: {r['name']}"} for r in rules[:1]]
    some = [r for r in rules[1:] if r["name"] in shown]
    rows = []
    for r in (static, *best, *some, *ours, *ceiling):
        shares = share(r["helped"]), share(r["hurt"])
        value = number(r["values"][MEASURE])
        rows.append([r["name"], value, *difference_cells(r["difference"]), *shares])
    return rows


def _run_rows(c: Json) -> list[list[str]]:
    rows = []
    for run in c["runs"]:
        values = [number(cycle["values"][MEASURE]) for cycle in run["cycles"]]
        rows.append([run["name"], str(run["cycles"][-1]["n_votes"]), values[0], values[-1]])
    return rows


def slice_rows(c: Json) -> list[list[str]]:
    """A row for each slice: name, queries, static hybrid, flywheel and the difference."""
    rows = []
    for s in c["slices"]:
        values = number(s["static"]), number(s["flywheel"])
        rows.append([s["name"], str(s["n"]), *values, *difference_cells(s["difference"])])
    return rows


def slice_measures(c: Json) -> tuple[Sequence[str], list[list[str]]]:
    """Columns and rows: in each slice, the measures beside nDCG@10 and the flywheel's differences."""
    rows = []
    for s in c["slices"]:
        for measure, difference in s["differences"].items():
            values = [number(s["rankings"][r][measure]) for r in (c["static"], "flywheel")]
            rows.append([s["name"], measure, str(s["n"]), *values, *difference_cells(difference)])
    return ("slice", "measure", "queries", "static", "flywheel", *DIFFERENCE), rows


def slice_rankings(c: Json) -> tuple[Sequence[str], list[list[str]]]:
    """Columns and rows: nDCG@10 of the rankings that matter most, by slice."""
    rows = [
        [name, *(number(s["rankings"][name][MEASURE]) for s in c["slices"])]
        for name in (c["static"], *_shown(c), "flywheel")
    ]
    return ("ranking", *(s["name"] for s in c["slices"])), rows


def slice_gains(c: Json) -> tuple[Sequence[str], list[list[str]]]:
    """Columns and rows: what votes changed in nDCG@10, by slice: the flywheel before any and at the end."""
    start = _shown(c)[0]
    rows = [
        [
            s["name"],
            *(number(s["rankings"][name][MEASURE]) for name in (start, "flywheel")),
            *difference_cells(s["ahead"][start]),
        ]
        for s in c["slices"]
    ]
    return ("slice", "before votes", "at the end", *DIFFERENCE), rows


def _shown(c: Json) -> list[str]:
    """The rankings that the flywheel is compared with in each slice, the first its own before any vote;
    none in cycles-v1."""
    return [name for s in c["slices"][:1] for name in s.get("ahead", ())]


def refresh_table(run: Json) -> tuple[Sequence[str], list[list[str]]]:
    """Columns and rows: what the refresh of each cycle of a run made live.

    The columns are whatever rates and whatever of the kernel the live parameters have.
    """
    found = [{**(p := r["parameters"]), **p.get("rates", {})} for r in run["refreshes"]]
    rates = [name for name in _names(found) if name not in _NO_RATES]
    kernel = [name for name in _names([p.get("kernel", {}) for p in found]) if "_" not in name]
    rows = [
        [
            str(cycle),
            refresh["weights"],
            *(_estimate(p, name) for name in rates),
            *(_estimate(p.get("kernel", {}), name) for name in kernel),
        ]
        for cycle, (refresh, p) in enumerate(zip(run["refreshes"], found, strict=True), 1)
    ]
    short = [_SHORT.get(name, name) for name in (*rates, *kernel)]
    return ("cycle", "weights", *short), rows


def _names(found: Sequence[Json]) -> list[str]:
    """The names of the numbers, and of what is not estimated, in these mappings."""
    numbers = (
        name
        for values in found
        for name, value in values.items()
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    )
    return list(dict.fromkeys(numbers))


def _estimate(values: Json, name: str) -> str:
    value = values.get(name, math.nan)
    if value is None:  # one right answer a question is what is assumed without an estimate
        return "1" if name == "answers" else NONE
    return NONE if math.isnan(value) else f"{value:.3g}".replace("-", "−")


def _print(
    console: Any, columns: Sequence[str], blocks: Sequence[tuple[str, list[list[str]]]]
) -> None:
    """One table, a block of rows a collection; names may wrap, numbers may not."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("collection", overflow="fold", max_width=16)
    table.add_column(columns[0], overflow="fold", max_width=28)
    for column in columns[1:]:
        table.add_column(fill(column, _HEADER_WIDTH), justify="right", no_wrap=True)
    for name, rows in blocks:
        for i, row in enumerate(rows):
            style = "bold" if row[0] == "flywheel" else None
            cells = map(printable_line, [name if i == 0 else "", *row])
            table.add_row(*map(Text, cells), style=style)
        table.add_section()
    console.print()
    console.print(table)
