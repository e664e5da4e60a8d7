"""The command `add`: files and folders become passages of the index."""

import tempfile
from pathlib import Path
from typing import Annotated, get_args

import typer

from rag_flywheel.cli import show
from rag_flywheel.cli.options import KB, Dask, Index, Json, one_of, open_index, remove_if_empty

Patterns = list[str] | None


def add(
    paths: Annotated[list[Path], typer.Argument(help="Files, or folders to search.")],
    index: Index = KB,
    include: Annotated[
        Patterns,
        typer.Option(help="Read only files of this pattern, such as '*.md'; may be repeated."),
    ] = None,
    exclude: Annotated[
        Patterns,
        typer.Option(help="Leave out what has this pattern, such as 'drafts/'; may be repeated."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Name files by their path from this folder.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Put this before the names of files, as in manual:a.md.")
    ] = None,
    prune: Annotated[
        bool,
        typer.Option(
            "--prune",
            help="Also remove passages of files that are gone from the folders, and of lines that "
            "are gone from the .jsonl files.",
        ),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Add nothing when a file cannot be read.")
    ] = False,
    chunk_tokens: Annotated[
        int | None, typer.Option(min=16, help="The most tokens of a passage.")
    ] = None,
    chunk_overlap: Annotated[
        int | None, typer.Option(min=0, help="Tokens that a passage shares with the one before.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Address that the sources are below, for links to sections.")
    ] = None,
    anchors: Annotated[
        str, typer.Option(help="Whose anchors the site has: github, mkdocs or vitepress.")
    ] = "github",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count what would change.")
    ] = False,
    dask: Dask = None,
    as_json: Json = False,
) -> None:
    """Add passages, or change those already there.

    Markdown, HTML, reStructuredText, MDX, notebooks, CSV, Word, PDF and text files are cut into passages;
    passages that a file no longer has are removed. Of JSONL, each line is a passage with id, text, title
    and metadata. A file that cannot be read is skipped and named.
    """
    from rag_flywheel.formats.anchors import Site

    with tempfile.TemporaryDirectory() as empty:
        is_there = index.exists()
        place = index if is_there or not dry_run else Path(empty) / index.name
        try:
            with open_index(place, create=True, dask=dask) as fw:
                report = fw.add_files(
                    paths,
                    include=include or (),
                    exclude=exclude or (),
                    root=root,
                    name=name,
                    prune=prune,
                    strict=strict,
                    chunk_tokens=chunk_tokens,
                    chunk_overlap=chunk_overlap,
                    base_url=base_url,
                    anchors=one_of(anchors, get_args(Site), "anchors "),
                    dry_run=dry_run,
                    progress=True,
                )
        except Exception:
            if not is_there:
                remove_if_empty(place)
            raise
    show.added_files(report, as_json, dry_run=dry_run)
