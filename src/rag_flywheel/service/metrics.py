"""What the service counts and measures, in the format of Prometheus; the only module that imports its client.

Labels hold names of indexes and words of closed vocabularies, and nothing that users or passages are named
by. With several processes each writes its numbers to files of its own, in the folder that the environment
variable PROMETHEUS_MULTIPROC_DIR names before this module is imported, and a scrape adds them up.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from rag_flywheel.report.coverage import Coverage
    from rag_flywheel.report.numbers import IndexNumbers

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_REGISTRY = CollectorRegistry()
disable_created_metrics()
_SECONDS = (
    0.001,
    0.002,
    0.003,
    0.005,
    0.0075,
    0.01,
    0.02,
    0.03,
    0.05,
    0.1,
    0.2,
    0.5,
    1,
    2.5,
    5,
    10,
)

retrieve_seconds = Histogram(
    "rag_flywheel_retrieve_duration_seconds",
    "What the library took for a call that retrieves or reranks.",
    ("index",),
    buckets=_SECONDS,
    registry=_REGISTRY,
)
retrievals = Counter(
    "rag_flywheel_retrievals",
    "Questions answered, by the kind of call: retrieve, retrieve_many, rank_many or rerank.",
    ("index", "source"),
    registry=_REGISTRY,
)
with_evidence = Counter(
    "rag_flywheel_retrievals_with_evidence",
    "Answers in which votes on this question or on similar ones moved a hit.",
    ("index",),
    registry=_REGISTRY,
)
votes = Counter(
    "rag_flywheel_votes",
    "Feedback that was recorded: votes on hits, verdicts on answers, signals, corrections, missing answers.",
    ("index", "kind", "verdict"),
    registry=_REGISTRY,
)
feedback_rejected = Counter(
    "rag_flywheel_feedback_rejected",
    "Feedback that was refused: unknown_id, invalid, opted_out, busy, storage or other.",
    ("index", "reason"),
    registry=_REGISTRY,
)
requests = Counter(
    "rag_flywheel_http_requests",
    "Requests answered.",
    ("route", "method", "status"),
    registry=_REGISTRY,
)
request_seconds = Histogram(
    "rag_flywheel_http_request_duration_seconds",
    "From a request's arrival to the end of its answer.",
    ("route",),
    buckets=_SECONDS,
    registry=_REGISTRY,
)
in_progress = Gauge(
    "rag_flywheel_http_requests_in_progress",
    "Requests that are being answered.",
    registry=_REGISTRY,
    multiprocess_mode="livesum",
)


class _Measure(NamedTuple):
    """A gauge of an index: what it is, and the field that it comes from."""

    text: str
    field: str


OF_INDEX: Mapping[str, _Measure] = {
    "index_passages": _Measure("Passages in the index.", "n_passages"),
    "index_bytes": _Measure("Bytes of the index folder.", "bytes_on_disk"),
    "disk_free_bytes": _Measure("Bytes that are free where the folder is.", "bytes_free"),
    "index_health": _Measure("0 ok, 1 degraded, 2 broken, as `rag-flywheel health`.", "health"),
    "votes_waiting": _Measure("Votes since the live version was built.", "n_votes_waiting"),
    "refresh_last_success_timestamp_seconds": _Measure(
        "When the last refresh ended that did not fail.", "last_success"
    ),
    "refresh_failures": _Measure("Refreshes that failed in a row, up to now.", "n_failures"),
    "refresh_running_seconds": _Measure(
        "How long a refresh has been running; 0: none.", "running_s"
    ),
    "gate_lift": _Measure(
        "The gain of the last weights that the gate tested: log-likelihood, or nDCG, a question.",
        "gate_lift",
    ),
}
OF_COVERAGE: Mapping[str, _Measure] = {
    "coverage_questions": _Measure("Questions that the coverage is computed from.", "n_asked"),
    "coverage_near_ratio": _Measure("Questions near one with votes.", "near_share"),
    "coverage_same_ratio": _Measure("Questions asking the same as one with votes.", "same_share"),
    "coverage_unanswered_ratio": _Measure("Questions without a good answer.", "unanswered_share"),
    "coverage_easy_asked_ratio": _Measure("Easy questions among those asked.", "easy_asked_share"),
    "coverage_easy_votes_ratio": _Measure("Votes that are on easy questions.", "easy_votes_share"),
    "coverage_unshown_ratio": _Measure("Passages that nobody was shown.", "unshown_share"),
    "coverage_unvoted_ratio": _Measure("Passages that nobody voted on.", "unvoted_share"),
    "coverage_exposure_gini": _Measure("How unevenly passages are shown.", "exposure_gini"),
    "drift_ratio": _Measure("Questions unlike any of the time before.", "drift"),
    "drift_p_value": _Measure("The chance of that where nothing changed.", "drift_p"),
}
COUNTED_FROM_THE_JOURNAL: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "promotions": (
        "Refreshes by what they came to: promoted, unchanged, rejected or failed.",
        ("index", "outcome"),
    ),
    "gate_decisions": (
        "Decisions of the gate: better, no better or vetoed.",
        ("index", "outcome"),
    ),
}
_REFRESH_SECONDS = "refresh_duration_seconds", "What refreshes took."
_PREFIX = "rag_flywheel_"


class Numbers(Protocol):
    """What is known of each index, by its name; it is computed elsewhere, and rarely."""

    def of_indexes(self) -> Mapping[str, "IndexNumbers"]:
        """The numbers of each index."""

    def of_coverage(self) -> Mapping[str, "Coverage"]:
        """The coverage of each index."""


class _Everything:
    """All metrics, as a registry is read."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        """What was counted, then what is known of the indexes."""
        folder = os.environ.get(FOLDER)
        if folder:
            yield from MultiProcessCollector(None, path=folder).collect()
        else:
            yield from _REGISTRY.collect()
        yield from _families(self._numbers)


def exposition(numbers: Numbers, accept: str) -> tuple[bytes, str]:
    """(all metrics, their media type), in the format that a scraper accepts."""
    encode, media_type = choose_encoder(accept)
    return encode(_Everything(numbers)), media_type


def _families(numbers: Numbers) -> Iterator[Metric]:
    indexes, covered = numbers.of_indexes(), numbers.of_coverage()
    yield from _gauges(OF_INDEX, indexes)
    yield from _gauges(OF_COVERAGE, covered)
    for name, (text, labels) in COUNTED_FROM_THE_JOURNAL.items():
        counter = CounterMetricFamily(_PREFIX + name, text, labels=labels)
        for index, found in indexes.items():
            for outcome, n in sorted(getattr(found, name).items()):
                counter.add_metric((index, outcome), n)
        yield counter
    name, text = _REFRESH_SECONDS
    histogram = HistogramMetricFamily(_PREFIX + name, text, labels=("index",))
    for index, found in indexes.items():
        bounds = [(floatToGoString(bound), n) for bound, n in found.refresh_buckets]
        buckets = [*bounds, ("+Inf", found.n_refreshes)]
        histogram.add_metric((index,), buckets, found.refresh_seconds)
    yield histogram


def _gauges(measures: Mapping[str, _Measure], values: Mapping[str, Any]) -> Iterator[Metric]:
    for name, measure in measures.items():
        gauge = GaugeMetricFamily(_PREFIX + name, measure.text, labels=("index",))
        for index, found in values.items():
            if (value := getattr(found, measure.field)) is not None:
                gauge.add_metric((index,), float(value))
        yield gauge


class Described(NamedTuple):
    """A metric as its documentation has it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


def described() -> list[Described]:
    """Every metric there is, in the order of their names."""
    found = [
        Described(metric.name, metric.type, tuple(labels), metric.documentation)
        for labels, metric in _own()
    ]
    for measures in (OF_INDEX, OF_COVERAGE):
        found += [
            Described(_PREFIX + name, "gauge", ("index",), measure.text)
            for name, measure in measures.items()
        ]
    found += [
        Described(_PREFIX + name, "counter", labels, text)
        for name, (text, labels) in COUNTED_FROM_THE_JOURNAL.items()
    ]
    name, text = _REFRESH_SECONDS
    found.append(Described(_PREFIX + name, "histogram", ("index",), text))
    totalled = (
        each._replace(name=f"{each.name}_total") if each.kind == "counter" else each
        for each in found
    )
    return sorted(totalled)


def _own() -> Iterable[tuple[Iterable[str], Metric]]:
    for collector in (
        retrieve_seconds,
        retrievals,
        with_evidence,
        votes,
        feedback_rejected,
        requests,
        request_seconds,
        in_progress,
    ):
        (metric,) = collector.describe()
        yield collector._labelnames, metric


def forget_dead_processes() -> None:
    """Take away the gauges of processes that are gone; what they counted stays."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return
    for path in Path(folder).glob("gauge_live*.db"):
        pid = path.stem.rpartition("_")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with suppress(FileNotFoundError):
                mark_process_dead(int(pid), folder)
