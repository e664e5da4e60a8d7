"""The options that every command takes. It knows nothing of the commands."""

from pathlib import Path
from typing import Annotated

import typer

Index = Annotated[
    Path,
    typer.Option("--index", "-i", envvar="RAG_FLYWHEEL_INDEX", help="The index folder."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
User = Annotated[str | None, typer.Option(help="Who says so.")]
KB = Path("indexes/kb")
