"""The commands on users who vote: who is trusted how far, and whose votes are left out."""

from typing import Annotated

import typer

from rag_flywheel.cli import show
from rag_flywheel.cli.options import KB, Index, Json, open_index


def raters(
    name: Annotated[
        list[str] | None, typer.Option(help="An id to show beside its hash; may be repeated.")
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="How many to show.")] = 50,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """List users who vote: what each one's votes weigh, and who looks like one crowd."""
    with open_index(index) as fw:
        found = fw.raters(name or ())
        show.result(found if as_json else found[:n], as_json, show.raters)


def mute(
    user: Annotated[str | None, typer.Argument(help="Id of a user.")] = None,
    rater: Annotated[
        list[str] | None, typer.Option(help="Or a hash that `raters` lists; may be repeated.")
    ] = None,
    crowd: Annotated[
        int | None, typer.Option(min=1, help="Or all of a crowd that `raters` numbers.")
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Hear them again.")] = False,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Leave out all votes of users, past and future."""
    if user is None and not rater and crowd is None:
        raise typer.BadParameter("found no user; expected USER, --rater HASH or --crowd NUMBER")
    with open_index(index) as fw:
        users = list(rater or ())
        if crowd is not None:
            members = [each.user for each in fw.raters() if each.crowd == crowd]
            if not members:
                raise typer.BadParameter(f"there is no crowd {crowd}; see `rag-flywheel raters`")
            users += members
        n = fw.unmute(user, raters=users) if undo else fw.mute(user, raters=users)
    show.count("heard again" if undo else "muted", n, as_json)


COMMANDS = (raters, mute)
