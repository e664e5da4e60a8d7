"""The commands `export`, each one call on `fw.export`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from rag_flywheel.cli import show
from rag_flywheel.cli.options import KB, Index, Json, TenantName, of_tenant, one_of, open_index
from rag_flywheel.records import ExportReport, FileFormat, TrainingSet

if TYPE_CHECKING:
    from rag_flywheel.export.export import Export

EXPORT_HELP = "Write the log, judgments and training sets for other programs."
export = typer.Typer(no_args_is_help=True)
KINDS: tuple[TrainingSet, ...] = get_args(TrainingSet)
FORMATS: tuple[FileFormat, ...] = get_args(FileFormat)
ToFile = Annotated[
    Path, typer.Option("--to", help="A new file; its ending says how: .jsonl, .csv or .parquet.")
]
ToFolder = Annotated[Path, typer.Option("--to", help="A new or empty folder.")]
Since = Annotated[
    str | None, typer.Option(help="From this day or time on: 2026-11-30, 2026-11-30T08:00Z.")
]
Until = Annotated[str | None, typer.Option(help="Before this day or time.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Take the place of a file.")]


@export.callback()
def options(index: Index = KB, as_json: Json = False) -> None:
    """Take the options that may stand before the command."""


def _run(
    index: Path,
    as_json: bool,
    tenant: str | None,
    write: Callable[["Export", Any], ExportReport],
) -> None:
    with open_index(index) as fw:
        report = write(fw.export, of_tenant(fw, tenant))
    show.result(report, as_json, show.exported)


@export.command("votes")
def export_votes(
    to: ToFile,
    since: Since = None,
    until: Until = None,
    overwrite: Overwrite = False,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Write votes, verdicts on answers, signals and corrections, a row each."""

    def write(to_files: "Export", named: Any) -> ExportReport:
        return to_files.votes(
            to, since=since, until=until, overwrite=overwrite, progress=True, **named
        )

    _run(index, as_json, tenant, write)


@export.command("judgments")
def export_judgments(
    to: ToFile,
    since: Since = None,
    until: Until = None,
    overwrite: Overwrite = False,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Write what the votes on each passage for each question add up to, a row each."""

    def write(to_files: "Export", named: Any) -> ExportReport:
        return to_files.judgments(
            to, since=since, until=until, overwrite=overwrite, progress=True, **named
        )

    _run(index, as_json, tenant, write)


@export.command("retrievals")
def export_retrievals(
    to: ToFile,
    since: Since = None,
    until: Until = None,
    overwrite: Overwrite = False,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Write what was asked, and shown, a row for each time."""

    def write(to_files: "Export", named: Any) -> ExportReport:
        return to_files.retrievals(
            to, since=since, until=until, overwrite=overwrite, progress=True, **named
        )

    _run(index, as_json, tenant, write)


@export.command("beir")
def export_beir(
    to: ToFolder,
    since: Since = None,
    until: Until = None,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Write passages, past questions and their grades as a BEIR folder, for benchmarks."""

    def write(to_files: "Export", named: Any) -> ExportReport:
        return to_files.beir(to, since=since, until=until, progress=True, **named)

    _run(index, as_json, tenant, write)


@export.command("trec")
def export_trec(
    to: ToFolder,
    since: Since = None,
    until: Until = None,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Write the newest rankings as a run of TREC, with qrels and topics."""

    def write(to_files: "Export", named: Any) -> ExportReport:
        return to_files.trec(to, since=since, until=until, progress=True, **named)

    _run(index, as_json, tenant, write)


@export.command("ubi")
def export_ubi(
    to: ToFolder,
    since: Since = None,
    until: Until = None,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Write retrievals and votes as queries and events of User Behavior Insights 1.3.0."""

    def write(to_files: "Export", named: Any) -> ExportReport:
        return to_files.ubi(to, since=since, until=until, progress=True, **named)

    _run(index, as_json, tenant, write)


@export.command("training-set")
def export_training_set(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    to: ToFolder,
    file_format: Annotated[
        str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")
    ] = "jsonl",
    min_people: Annotated[
        int, typer.Option(min=1, help="How many people at least agree on a passage or answer.")
    ] = 1,
    most_negatives: Annotated[
        int, typer.Option(min=1, help="The most wrong passages beside one right one.")
    ] = 4,
    unreviewed: Annotated[
        bool, typer.Option("--unreviewed", help="dpo: also corrections that nobody has accepted.")
    ] = False,
    since: Since = None,
    until: Until = None,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Write pairs, triplets, preferences or questions to train or evaluate other models with."""
    chosen = one_of(kind, KINDS, "KIND ")

    def write(to_files: "Export", named: Any) -> ExportReport:
        return to_files.training_set(
            chosen,
            to,
            file_format=one_of(file_format, FORMATS, "--format "),
            min_people=min_people,
            most_negatives=most_negatives,
            unreviewed=unreviewed,
            since=since,
            until=until,
            progress=True,
            **named,
        )

    _run(index, as_json, tenant, write)
