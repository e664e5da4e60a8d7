"""The shapes of an index, and what each needs."""

import importlib.util
from types import ModuleType

from rag_flywheel.service import known_keys
from rag_flywheel.store.service import jobs
from stated.page import Page
from stated.results import ROOT

SIZES = (1e5, 1e6, 1e7, 1e8)
DIM, GBIT = 384, 1.0


def _program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("sizing", ROOT / "benchmarks" / "sizing.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def many_hosts(page: Page) -> None:
    """docs/how-to/many-hosts.md."""
    page.says("is silent for {:.0f} seconds has failed", jobs.SILENT_S)
    page.lets("elsewhere", "says 503, and whatever writes gets 503")  # tests/hosts
    page.lets("elsewhere", "(409 with", "Everything else gets 503")  # tests/hosts
    assert known_keys.GOOD_S == 5 * 60  # "within five minutes"
    page.lets("arithmetic", "network of half a millisecond, twenty exchanges are 10 ms")
    page.lets("fact", "up to 40 threads")
    page.lets("example", "tcp://scheduler:8786")
    page.lets("arithmetic", "answer five calls at once need 200")
    votes = page.result("postgres")
    rows = (votes[f"votes a second, {n} a call, 8 processes"] for n in (1, 10))
    each, many = (row["postgresql"]["votes"] for row in rows)
    page.says("stored {:,} votes a second one by one, and {:,} with ten in a call", each, many)
    engine = page.result("speed_engine")
    page.says(
        "At {:,} passages a process took {:.0f} MB instead of {:.0f}",
        engine["passages"],
        engine["in_postgresql"]["loaded_mb"],
        engine["in_memory"]["loaded_mb"],
    )
    _sizes(page)
    _model(page)


def _sizes(page: Page) -> None:
    for name in ("speed_growth", "speed_query", "speed_refresh", "speed_service", "encoding"):
        page.result(name)
    sizing = _program().Sizing()
    page.says("| passages | {:,.0f} | {:,.0f} | {:,.0f} | {:,.0f} |", *SIZES)
    columns = [sizing.rows(n, DIM, GBIT) for n in SIZES]
    for row in columns[0]:
        page.says(f"| {row} | {{}} | {{}} | {{}} | {{}} |", *(column[row] for column in columns))
    page.lets(
        "design", "| one core: a refresh after 1 % changed |", "| fetching after 1 % changed |"
    )
    page.lets("design", f"Vectors of {DIM} numbers, one core, a network of 1 Gbit a second")


def _model(page: Page) -> None:
    found = _program().Sizing()
    page.says("Up to {:,} passages these were measured", found.measured)
    page.says("and {:,} passages of {} numbers as they were measured", found.measured, DIM)
    page.says(
        "{:.2f} (n / {:,})^{:.2f} for the search and its record, {:.1f} to encode it, and {:.1f} for HTTP",
        found.recorded_ms,
        found.measured,
        found.slope,
        found.encode_ms,
        found.service_ms,
    )
    page.says(
        "{:.0f} MiB and n ({:,.0f} + 4 (d − {})) bytes",
        found.memory_base / 2**20,
        found.memory_each,
        DIM,
    )
    page.says("n ({:,.0f} + 4 (d − {})) bytes in the database", found.database_each, DIM)
    page.says("and n ({:,.0f} + 4 (d − {})) in a version", found.version_each, DIM)
    page.says("adds {:.1f} % of that", 100 * found.changed_share)
    page.lets("design", "Another version with 1 % of the passages", "after 1 % changed")
    page.says("n / {:.0f} seconds of one core", found.embedded_per_s)
    page.says("{:.3f} ms for each of the n", found.refresh_s_each * 1e3)
    million = page.result("speed_million")["steps"]["ask"]["threads_1"]["ours"]["cpu_p50_ms"]
    page.says("took {:.1f} ms for the search alone", million)
    searched = found.question_ms(1e6) - found.encode_ms - found.service_ms
    page.says("where the model has {:.1f}", searched)
