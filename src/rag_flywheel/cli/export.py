"""The commands `export`, each one call on `fw.export`."""

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from rag_flywheel.cli import show
from rag_flywheel.cli.options import KB, Index, Json, TenantName, of_tenant, one_of, open_index
from rag_flywheel.records import ExportReport, FileFormat, TrainingSet

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
    method: str, index: Path, as_json: bool, tenant: str | None, *given: Any, **more: Any
) -> None:
    """Call a method of `fw.export`, and show its report."""
    with open_index(index) as fw:
        write = getattr(fw.export, method)
        report: ExportReport = write(*given, progress=True, **more, **of_tenant(fw, tenant))
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
    _run("votes", index, as_json, tenant, to, since=since, until=until, overwrite=overwrite)


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
    _run("judgments", index, as_json, tenant, to, since=since, until=until, overwrite=overwrite)


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
    _run("retrievals", index, as_json, tenant, to, since=since, until=until, overwrite=overwrite)


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
    _run("beir", index, as_json, tenant, to, since=since, until=until)


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
    _run("trec", index, as_json, tenant, to, since=since, until=until)


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
    _run("ubi", index, as_json, tenant, to, since=since, until=until)


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
    chosen, ending = one_of(kind, KINDS, "KIND "), one_of(file_format, FORMATS, "--format ")
    _run(
        "training_set",
        index,
        as_json,
        tenant,
        chosen,
        to,
        file_format=ending,
        min_people=min_people,
        most_negatives=most_negatives,
        unreviewed=unreviewed,
        since=since,
        until=until,
    )
