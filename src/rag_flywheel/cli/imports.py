"""The commands `import`: retrievals and votes from the files of other tools."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag_flywheel.cli import show
from rag_flywheel.cli.options import KB, Index, Json, TenantName, of_tenant, open_index

if TYPE_CHECKING:
    from rag_flywheel.formats.tools.read import Tool

IMPORT_HELP = "Bring in feedback from other tools."
imports = typer.Typer(no_args_is_help=True)
Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Files that the tool exported.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only count what would come in, and what would not.")
]
Scores = Annotated[
    list[str] | None,
    typer.Option(
        "--score",
        metavar="NAME[=WORST..BEST]",
        help="A score that is a verdict, such as stars=1..5; may be repeated. Default: the usual names.",
    ),
]
Judges = Annotated[
    list[str] | None,
    typer.Option(
        "--judge",
        metavar="NAME[=WORST..BEST]",
        help="A score that a language model gave, where the tool does not say so; may be repeated.",
    ),
]
IdKey = Annotated[
    str | None,
    typer.Option(metavar="KEY", help="The key of the documents' metadata with the passage id."),
]


@imports.callback()
def options(index: Index = KB, as_json: Json = False) -> None:
    """Take the options that may stand before the command."""


@imports.command("langfuse")
def langfuse(
    files: Files,
    score: Scores = None,
    judge: Judges = None,
    id_key: IdKey = None,
    dry_run: DryRun = False,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Import observations and scores of Langfuse: JSON, JSONL, CSV or Parquet, plain or gzip."""
    _import("langfuse", files, score, judge, id_key, dry_run, tenant, index, as_json)


@imports.command("phoenix")
def phoenix(
    files: Files,
    score: Scores = None,
    judge: Judges = None,
    id_key: IdKey = None,
    dry_run: DryRun = False,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Import spans and annotations of Arize Phoenix, or of OpenInference as OTLP JSON."""
    _import("phoenix", files, score, judge, id_key, dry_run, tenant, index, as_json)


@imports.command("langsmith")
def langsmith(
    files: Files,
    score: Scores = None,
    judge: Judges = None,
    id_key: IdKey = None,
    dry_run: DryRun = False,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Import runs and feedback of LangSmith: JSON, JSONL or Parquet."""
    _import("langsmith", files, score, judge, id_key, dry_run, tenant, index, as_json)


@imports.command("ubi")
def ubi(
    files: Files,
    dry_run: DryRun = False,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Import queries and events of User Behavior Insights."""
    _import("ubi", files, None, None, None, dry_run, tenant, index, as_json)


@imports.command("trec")
def trec(
    files: Files,
    dry_run: DryRun = False,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Import runs of TREC as retrievals and qrels as votes, with a file of the questions."""
    _import("trec", files, None, None, None, dry_run, tenant, index, as_json)


@imports.command("csv")
def own_table(
    files: Files,
    dry_run: DryRun = False,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Import votes, or retrievals, from tables of your own: CSV, TSV, JSONL or Parquet."""
    _import("csv", files, None, None, None, dry_run, tenant, index, as_json)


def _import(
    tool: "Tool",
    files: list[Path],
    scores: list[str] | None,
    judges: list[str] | None,
    id_key: str | None,
    dry_run: bool,
    tenant: str | None,
    index: Path,
    as_json: bool,
) -> None:
    with open_index(index) as fw:
        report = fw.import_files(
            tool,
            files,
            scores=scores or (),
            judges=judges or (),
            id_key=id_key,
            dry_run=dry_run,
            progress=True,
            **of_tenant(fw, tenant),
        )
    show.result(report, as_json, show.imported)
