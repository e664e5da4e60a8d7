"""The command `health`, which needs neither the index to be opened nor its encoder."""

from typing import Annotated

import typer

from rag_flywheel.cli import show
from rag_flywheel.cli.options import KB, Index, Json, seconds


def health(
    max_age: Annotated[
        str | None,
        typer.Option(help="How long ago the last refresh may have ended: 30m, 6h, 2d."),
    ] = None,
    allow_degraded: Annotated[
        bool, typer.Option("--allow-degraded", help="Exit with 0 unless the index is broken.")
    ] = False,
    read_only: Annotated[
        bool,
        typer.Option(
            "--read-only",
            help="It is only served from here: nothing has to be written or refreshed.",
        ),
    ] = False,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Tell whether the index can be served and is refreshed: exit code 0 ok, 1 degraded, 2 broken."""
    from rag_flywheel.report.health import exit_code
    from rag_flywheel.report.health import health as of_folder

    max_age_s = None if max_age is None else seconds(max_age)
    found = of_folder(index, read_only=read_only, max_age_s=max_age_s)
    show.result(found, as_json, show.health)
    code = exit_code(found)
    raise typer.Exit(0 if allow_degraded and code == 1 else code)
