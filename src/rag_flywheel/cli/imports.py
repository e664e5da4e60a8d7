"""The commands `import`: retrievals and votes from the files, or the APIs, of other tools."""

from pathlib import Path
from typing import Annotated, Any

import typer

from rag_flywheel.cli import show
from rag_flywheel.cli.options import KB, Index, Json, TenantName, of_tenant, one_of, open_index
from rag_flywheel.records import Tool

IMPORT_HELP = "Bring in feedback from other tools."
imports = typer.Typer(no_args_is_help=True)
Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="Files that the tool exported.")
]
MaybeFiles = Annotated[
    list[Path] | None,
    typer.Argument(metavar="FILE", help="Files that the tool exported; or --live."),
]
Live = Annotated[
    bool,
    typer.Option(
        "--live",
        help="Ask the tool's API, with the keys in the tool's own environment variables.",
    ),
]
Since = Annotated[
    str | None,
    typer.Option(help="With --live: from this day or time on: 2026-11-30, 2026-11-30T08:00Z."),
]
Until = Annotated[str | None, typer.Option(help="With --live: before this day or time.")]
Project = Annotated[
    str | None, typer.Option(help="With --live: the project; default: the tool's own variable.")
]
Url = Annotated[
    str | None,
    typer.Option(help="With --live: where the tool is; default: the tool's own variable."),
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


_NO_DOCUMENTS = (
    "Phoenix's REST API does not give the annotations of single documents; export them to a file to import "
    "them too"
)


@imports.callback()
def options(index: Index = KB, as_json: Json = False) -> None:
    """Take the options that may stand before the command."""


@imports.command("langfuse")
def langfuse(
    files: MaybeFiles = None,
    live: Live = False,
    since: Since = None,
    until: Until = None,
    url: Url = None,
    score: Scores = None,
    judge: Judges = None,
    id_key: IdKey = None,
    dry_run: DryRun = False,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Import observations and scores of Langfuse: JSON, JSONL, CSV or Parquet, plain or gzip."""
    asked = _asked(files, live, since, until, None, url)
    _import("langfuse", files, score, judge, id_key, dry_run, tenant, index, as_json, asked)


@imports.command("phoenix")
def phoenix(
    files: MaybeFiles = None,
    live: Live = False,
    since: Since = None,
    until: Until = None,
    project: Project = None,
    url: Url = None,
    score: Scores = None,
    judge: Judges = None,
    id_key: IdKey = None,
    dry_run: DryRun = False,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Import spans and annotations of Arize Phoenix, or of OpenInference as OTLP JSON."""
    asked = _asked(files, live, since, until, project, url)
    _import("phoenix", files, score, judge, id_key, dry_run, tenant, index, as_json, asked)


@imports.command("langsmith")
def langsmith(
    files: MaybeFiles = None,
    live: Live = False,
    since: Since = None,
    until: Until = None,
    project: Project = None,
    url: Url = None,
    score: Scores = None,
    judge: Judges = None,
    id_key: IdKey = None,
    dry_run: DryRun = False,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Import runs and feedback of LangSmith: JSON, JSONL or Parquet."""
    asked = _asked(files, live, since, until, project, url)
    _import("langsmith", files, score, judge, id_key, dry_run, tenant, index, as_json, asked)


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


def _asked(
    files: list[Path] | None,
    live: bool,
    since: str | None,
    until: str | None,
    project: str | None,
    url: str | None,
) -> dict[str, str | None] | None:
    """What --live asks for; None: files are given. Raises BadParameter, a usage error."""
    asked = {"since": since, "until": until, "project": project, "url": url}
    if live and files:
        raise typer.BadParameter("files and --live exclude each other")
    if not live and not files:
        raise typer.BadParameter("expected files that the tool exported, or --live")
    if not live and (named := [name for name, value in asked.items() if value is not None]):
        raise typer.BadParameter(f"--{named[0]} is for --live")
    return asked if live else None


def _import(
    tool: Tool,
    files: list[Path] | None,
    scores: list[str] | None,
    judges: list[str] | None,
    id_key: str | None,
    dry_run: bool,
    tenant: str | None,
    index: Path,
    as_json: bool,
    asked: dict[str, str | None] | None = None,
) -> None:
    with open_index(index) as fw:
        options: dict[str, Any] = {
            "scores": scores or (),
            "judges": judges or (),
            "id_key": id_key,
            "dry_run": dry_run,
            "progress": True,
            **of_tenant(fw, tenant),
        }
        if asked is None:
            report = fw.import_files(tool, files or (), **options)
        else:
            from rag_flywheel.integrations.live.imports import LIVE_TOOLS, import_live

            report = import_live(fw, one_of(tool, LIVE_TOOLS), **{**asked, **options})
    if asked is not None and tool == "phoenix":
        typer.echo(_NO_DOCUMENTS, err=True)
    show.result(report, as_json, show.imported)
