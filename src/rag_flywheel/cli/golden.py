"""The commands `golden` and `review`, each one call on Flywheel."""

from pathlib import Path
from typing import Annotated

import typer

from rag_flywheel.cli import show
from rag_flywheel.cli.options import (
    KB,
    Index,
    Json,
    Lenient,
    TenantName,
    User,
    of_tenant,
    open_index,
)
from rag_flywheel.formats.rows import HIGHEST_GRADE

GOLDEN_HELP = "Queries whose answers are known."
REVIEW_HELP = "Answers to review."
golden = typer.Typer(no_args_is_help=True)
review = typer.Typer(no_args_is_help=True)
PassageId = Annotated[str, typer.Argument(metavar="PASSAGE", help="The id of the passage.")]
ItemId = Annotated[str, typer.Argument(metavar="ID", help="The id that `review next` shows.")]


@golden.callback()
@review.callback()
def options(index: Index = KB, as_json: Json = False) -> None:
    """Take the options that may stand before the command."""


@golden.command("add")
def golden_add(
    path: Annotated[
        Path,
        typer.Argument(
            help="A BEIR folder, or a .csv or .tsv: query,passage_id and optionally grade."
        ),
    ],
    split: Annotated[
        str, typer.Option(help="The split of a BEIR folder; all: every split.")
    ] = "test",
    lenient: Lenient = False,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Import known answers, all or none; a grade above 0 is an answer."""
    with open_index(index) as fw:
        show.added(
            fw.golden.add(path, split=split, lenient=lenient, **of_tenant(fw, tenant)), as_json
        )


@golden.command("pin")
def golden_pin(
    query: str,
    passage_id: PassageId,
    grade: Annotated[
        int, typer.Option(min=1, max=HIGHEST_GRADE, help="Of several, the highest comes first.")
    ] = 1,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Put a passage first for a query, until `unpin`."""
    with open_index(index) as fw:
        pinned = fw.pin(query, passage_id, grade=grade, **of_tenant(fw, tenant))
    show.count("pinned", int(pinned), as_json)


@golden.command("unpin")
def golden_unpin(
    query: str,
    passage_id: PassageId,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Take back that a passage was pinned for a query."""
    with open_index(index) as fw:
        unpinned = fw.unpin(query, passage_id, **of_tenant(fw, tenant))
    show.count("unpinned", int(unpinned), as_json)


@golden.command("list")
def golden_list(tenant: TenantName = None, index: Index = KB, as_json: Json = False) -> None:
    """List every query with a known answer, and the sources of the answer."""
    with open_index(index) as fw:
        show.result(fw.golden.items(**of_tenant(fw, tenant)), as_json, show.golden)


@golden.command("export")
def golden_export(
    path: Annotated[Path, typer.Argument(help="A new folder, or a new .csv or .tsv.")],
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Write known answers as a BEIR folder, or a .csv or .tsv."""
    with open_index(index) as fw:
        show.count("exported", fw.golden.export(path, **of_tenant(fw, tenant)), as_json)


@review.command("next")
def review_next(tenant: TenantName = None, index: Index = KB, as_json: Json = False) -> None:
    """Show the passage with the most votes on which users or sources disagree."""
    with open_index(index) as fw:
        show.result(fw.review.next(**of_tenant(fw, tenant)), as_json, show.review_item)


@review.command("list")
def review_list(
    n: Annotated[int, typer.Option("-n", min=1, help="How many to show.")] = 50,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """List everything that waits for a decision, in the order of `next`."""
    with open_index(index) as fw:
        found = fw.review.items(**of_tenant(fw, tenant))
        show.result(found, as_json, lambda items: show.review_items(items, n))


@review.command("accept")
def review_accept(
    item_id: ItemId,
    user: User = None,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Decide that the passage answers the query."""
    with open_index(index) as fw:
        passage = fw.review.accept(item_id, user_id=user, **of_tenant(fw, tenant))
    show.values({"accepted": item_id, "passage": passage}, as_json)


@review.command("reject")
def review_reject(
    item_id: ItemId,
    user: User = None,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Decide that the passage does not answer the query."""
    with open_index(index) as fw:
        fw.review.reject(item_id, user_id=user, **of_tenant(fw, tenant))
    show.value("rejected", item_id, as_json)


@review.command("undo")
def review_undo(
    item_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Default: the last decision.")
    ] = None,
    user: User = None,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Undo a decision; a passage that an accepted text became is removed."""
    with open_index(index) as fw:
        undone = fw.review.undo(item_id, user_id=user, **of_tenant(fw, tenant))
    show.value("undone", undone, as_json)
