"""The commands on personal data: those that are stored, and counts that hide who is in them."""

from typing import Annotated

import typer

from rag_flywheel.cli import show
from rag_flywheel.cli.options import KB, Index, Json, TenantName, of_tenant, open_index


def audit(
    region: Annotated[
        list[str] | None,
        typer.Option(
            help="A country, as DE: telephone numbers are found as they are written there; may be repeated."
        ),
    ] = None,
    passages: Annotated[
        bool, typer.Option("--passages", help="Also look through titles and texts of passages.")
    ] = False,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Print what was found; else only counts and records.")
    ] = False,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Look for personal data in what is stored; exit code 1 when some is found."""
    with open_index(index) as fw:
        report = fw.audit(regions=region or (), passages=passages, show=reveal)
    show.result(report, as_json, show.audited)
    if report.findings:
        raise typer.Exit(1)


def dp_counts(
    what: Annotated[str, typer.Argument(help="votes, questions or missing.")] = "votes",
    epsilon: Annotated[float, typer.Option(help="The privacy loss of one user, at most 10.")] = 1.0,
    delta: Annotated[float, typer.Option(help="The chance that it is more, at most 0.001.")] = 1e-6,
    most_keys: Annotated[int, typer.Option(min=1, help="For how many keys a user counts.")] = 10,
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Print counts that may leave the house: differentially private, the privacy loss beside them."""
    with open_index(index) as fw:
        named = of_tenant(fw, tenant)
        found = fw.dp_counts(what, epsilon=epsilon, delta=delta, most_keys=most_keys, **named)
    show.result(found, as_json, show.dp_counts)


COMMANDS = (audit, dp_counts)
