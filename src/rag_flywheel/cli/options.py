"""What every command shares: its options, and the index that it opens."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from rag_flywheel.flywheel import Flywheel

Index = Annotated[
    Path,
    typer.Option("--index", "-i", envvar="RAG_FLYWHEEL_INDEX", help="The index folder."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
User = Annotated[str | None, typer.Option(help="Who says so.")]
KB = Path("indexes/kb")
Word = TypeVar("Word", bound=str)


def one_of(given: str, allowed: Sequence[Word], name: str = "") -> Word:
    """The allowed word that was given. Raises BadParameter, a usage error, when there is none."""
    for word in allowed:
        if word == given:
            return word
    raise typer.BadParameter(f"{name}{given!r} is none of {', '.join(allowed)}")


def open_index(index: Path, *, create: bool = False) -> "Flywheel":
    """The index of a command. What takes long to import loads now, not for every `--help`."""
    from rag_flywheel.flywheel import Flywheel

    return Flywheel.open(index, create=create)
