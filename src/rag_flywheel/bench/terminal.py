"""Formats a benchmark result as text: its numbers, its tables in the terminal, and explanations.

It formats the result's JSON and measures nothing; it must not know how a result is computed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from rag_flywheel.bench.protocol import RESULT_FORMAT
from rag_flywheel.errors import InputError

MEASURE = "nDCG@10"
NONE = "–"
DIFFERENCE = ("difference", "95 % interval", "p")
Json: TypeAlias = Mapping[str, Any]

_WIDTH = 100
_READING = (
    (
        "The runs",
        "In “votes” users see the flywheel's own hits, as in use. The others are controls. In “fixed "
        "exposure” they see the static ranking's hits in every cycle, which tells learning from "
        "showing. In “random votes” every verdict is a coin toss: a gain there comes from which hits are "
        "shown for similar queries, not from what votes say, and a loss is the price of noise. In "
        "“no votes” only the refreshes happen, so that line should be level. Lines that coincide "
        "hide one another.",
    ),
    (
        "The rankings compared",
        "Each rule starts from the same passages and vectors, and learns, if it learns, from the votes "
        "of “fixed exposure”; only “flywheel” learns from votes on its own hits. A weight “on dev” was "
        "the best for that collection's dev queries, which neither vote nor are scored; other "
        "weights were not chosen here. An oracle knows the answers: it shows what reranking could "
        "reach at most.",
    ),
    (
        "Differences",
        "A difference is the mean over the test queries of nDCG@10 minus that of the static hybrid for "
        "the same query. Its 95 % interval is a percentile bootstrap over queries, and p comes from a "
        "two-sided paired randomisation test: how often a difference at least as large appears when "
        "the two values of each query are swapped at random. Both speak of other test queries like "
        "these, not of other users, seeds or collections, and neither is corrected for the number of "
        "comparisons on this page. Helped and hurt are the shares of test queries whose nDCG@10 "
        "is higher and lower. “Flywheel ahead” is the flywheel's mean minus that of the row, learning from "
        "votes on its own hits, and below it from the very votes that the rules learn from.",
    ),
    (
        "Near-duplicates",
        "Some test queries nearly repeat a train query, and memory alone can answer those. A second "
        "table leaves them out.",
    ),
    (
        "Measures",
        "nDCG@10, R@k (recall: the share of a query's relevant passages among the first k) and P@8 "
        "(the share of the first 8 hits that are relevant) are better when higher. harmful@8, the share "
        "of the first 8 hits that a truthful user would call harmful, is better when lower. Judged@8 is "
        "the share of the first 8 hits that the qrels mention at all. Where qrels list only relevant "
        "passages, Judged@8 equals P@8 and, with 8 hits, harmful@8 is 1 − P@8: three names for one "
        "number. With one relevant passage a query, P@8 cannot exceed 1/8, and R@1 is the share of "
        "queries answered by the first hit. A passage that answers but is not in the qrels counts as "
        "wrong.",
    ),
    (
        "Slices, lag, exposure",
        "Near, related and far part the test queries by how like a train query they are; other slices "
        "overlap them. Fewer queries make wider intervals. The correction lag counts test queries whose "
        "first hit was wrong before any vote, those of them that became right and stayed so, and the "
        "median of the cycles it took. The Gini index of exposure is 0 when every passage was shown "
        "equally often and near 1 when a few got all the showing; few queries a cycle alone make it high.",
    ),
)


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
    tables: list[tuple[Sequence[str], Callable[[Json], list[list[str]]]]] = [
        (("ranking", MEASURE, *DIFFERENCE, "helped", "hurt"), _ranking_rows),
        (("run", "votes", "before", "at the end"), _run_rows),
        (("slice", "queries", "static", "flywheel", *DIFFERENCE), slice_rows),
    ]
    for columns, rows in tables:
        _print(console, columns, [(c["name"], rows(c)) for c in collections])


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


def how_to_read(result: Json) -> list[tuple[str, str]]:
    """(topic, sentences) that explain the protocol and what each number means, as plain text."""
    p = result["protocol"]
    most = p.get("max_train")
    some = "" if most is None else f", {most} at most,"
    protocol = (
        f"{p['name']} simulates people who use an index and vote. The train queries of a collection "
        f"are shuffled by the seed{some} and cut into {p['n_cycles']} parts of about equal size. In each "
        "cycle the queries of one part are asked, each by another user, sixteen at a time, who may "
        "vote on what is shown; then the index is refreshed and the test queries are scored. Cycle 0 is "
        "before any vote. Test queries never get a vote: what they gain was learned from other queries."
    )
    return [("The protocol", protocol), ("The users", _users(p["k"], p["users"])), *_READING]


_ANSWER_INPUT = {
    "text": "the answer's text, a sentence or two of the passage",
    "cited": "which hit it was written from",
    "nothing": "nothing of the answer",
}


def _users(k: int, users: Json) -> str:
    eps = f"with probability {users['eps']:g} the verdict is the wrong one."
    if users["answer_level"]:
        sentences = [
            f"An answer is written from one of {k} hits: with probability {users['careful']:g} the first "
            "that answers the query by the qrels, if there is one, else any, the hit at rank r "
            "with probability proportional to 1/r. A user judges that answer alone: it is helpful if "
            f"its hit answers the query; {eps} The flywheel is told {_ANSWER_INPUT[users['told']]}; the "
            "rules compared with, which know votes on passages alone, are told the hit."
        ]
    else:
        sentences = [
            f"A user sees {k} hits and looks at the hit at rank r with probability r^−{users['eta']:g}. A "
            "hit looked at gets a vote, “helpful” if the qrels say that it answers the query and "
            f"“harmful” if not; {eps}"
        ]
        if users["trust"]:
            sentences.append(
                "A hit at rank r that does not answer is taken for helpful, for its rank alone, with "
                f"probability {users['trust']:g} / r."
            )
    if users["malicious"]:
        sentences.append(
            f"A share of {users['malicious']:g} of the users attacks instead (“{users['attack']}”) and "
            "votes on every hit."
        )
    return " ".join(sentences)


def _ranking_rows(c: Json) -> list[list[str]]:
    """The static hybrid, the best rule beside the flywheel and the oracle, the flywheel, the oracle."""
    ours = [r for r in c["rankings"] if r["name"].startswith("flywheel")]
    ceiling = [r for r in c["rankings"] if r["name"].startswith("oracle")]
    static = named(c["rankings"], c["static"])
    rules = [r for r in best_first(c["rankings"]) if r not in [static, *ours, *ceiling]]
    best = [{**r, "name": f"best other: {r['name']}"} for r in rules[:1]]
    rows = []
    for r in (static, *best, *ours, *ceiling):
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


def _print(
    console: Any, columns: Sequence[str], blocks: Sequence[tuple[str, list[list[str]]]]
) -> None:
    """One table, a block of rows a collection; names may wrap, numbers may not."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("collection", overflow="fold", max_width=16)
    table.add_column(columns[0], overflow="fold", max_width=28)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    for name, rows in blocks:
        for i, row in enumerate(rows):
            style = "bold" if row[0] == "flywheel" else None
            table.add_row(name if i == 0 else "", *row, style=style)
        table.add_section()
    console.print()
    console.print(table)
