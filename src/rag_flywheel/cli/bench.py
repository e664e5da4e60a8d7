"""The command `rag-flywheel bench`: options in, result files and a table out."""

import os
from pathlib import Path
from typing import Annotated

import typer

from rag_flywheel.cli import show
from rag_flywheel.cli.options import Json, Lenient, one_of
from rag_flywheel.errors import InputError


def bench(
    collections: Annotated[
        list[str], typer.Argument(help="BEIR folders, or their names under RAG_FLYWHEEL_DATA.")
    ],
    out: Annotated[
        Path, typer.Option(help="Result file; the report goes beside it, ending in .html.")
    ] = Path("bench.json"),
    protocol: Annotated[
        str,
        typer.Option(
            help="v1: each question is asked once; v2: a stream of questions with repeats."
        ),
    ] = "v1",
    seed: Annotated[int, typer.Option(help="Seed of shuffling, users and tests.")] = 0,
    cycles: Annotated[int, typer.Option(min=1, help="Number of cycles of votes and refresh.")] = 10,
    max_train: Annotated[
        int | None, typer.Option(min=2, help="At most so many train queries of each collection.")
    ] = None,
    max_test: Annotated[
        int | None, typer.Option(min=2, help="At most so many test queries of each collection.")
    ] = None,
    eta: Annotated[float, typer.Option(min=0, help="Rank r is looked at with r^-eta.")] = 1.0,
    eps: Annotated[float, typer.Option(min=0, max=1, help="Share of wrong verdicts.")] = 0.2,
    trust: Annotated[
        float, typer.Option(min=0, max=1, help="Trust in a wrong hit at rank 1, falling as 1/rank.")
    ] = 0.0,
    malicious: Annotated[float, typer.Option(min=0, max=1, help="Share of attackers.")] = 0.0,
    attack: Annotated[
        str, typer.Option(help="What attackers do: random, inverted or collude.")
    ] = "inverted",
    tune_after: Annotated[
        list[int] | None, typer.Option(help="A cycle after which to tune the encoder of queries.")
    ] = None,
    answer_level: Annotated[bool, typer.Option(help="Users judge only the whole answer.")] = False,
    told: Annotated[
        str, typer.Option(help="What such a vote comes with: the text, cited, or nothing.")
    ] = "text",
    asked: Annotated[
        int | None,
        typer.Option(min=2, help="v2: questions asked in all; else as many as train queries."),
    ] = None,
    users: Annotated[int, typer.Option(min=1, help="v2: number of users who ask.")] = 50,
    willingness: Annotated[
        float, typer.Option(min=0, max=1, help="v2: mean chance that who asked votes at all.")
    ] = 0.5,
    unasked: Annotated[
        float, typer.Option(min=0, max=1, help="v2: share of needs that nobody asks about.")
    ] = 0.2,
    store: Annotated[
        str | None,
        typer.Option(help="URL of a PostgreSQL database that indexes are stored in; else SQLite."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="What passages are found in, as `engine` in flywheel.toml; else memory."),
    ] = None,
    lenient: Lenient = False,
    as_json: Json = False,
) -> None:
    """Measure accuracy over cycles of votes, in comparison with other ways to rank."""
    from rag_flywheel.bench.bench import run_bench, write_result
    from rag_flywheel.bench.collection import find_collection
    from rag_flywheel.bench.extra import require_bench_extra
    from rag_flywheel.bench.place import Place
    from rag_flywheel.bench.protocol import PROTOCOLS, Protocol, Traffic
    from rag_flywheel.bench.report import write_report
    from rag_flywheel.bench.terminal import print_result
    from rag_flywheel.bench.users import ATTACKS, TOLD, Users
    from rag_flywheel.report.progress import Bars

    require_bench_extra()
    kind, known = one_of(attack, ATTACKS, "attack "), one_of(told, TOLD, "told ")
    again = one_of(protocol, PROTOCOLS, "protocol ") == "v2"
    if out.suffix != ".json":
        raise typer.BadParameter(f"{out} does not end in .json")
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise InputError(
            f"{out.parent} is no folder that can be written to; make it, or give --out"
        )
    habits = Users(eta, eps, trust, malicious, kind, answer_level, known)
    folders = [find_collection(name) for name in collections]
    traffic = Traffic(asked, unasked=unasked, n_users=users, willingness=willingness)
    followed = Protocol(
        cycles,
        seed,
        max_train,
        max_test,
        tune_after=tuple(tune_after or ()),
        users=habits,
        traffic=traffic if again else None,
        lenient=lenient,
    )
    with Bars() as bars:
        result = run_bench(folders, followed, bars, Place(store, engine))
    write_result(result, out)
    write_report(result, out.with_suffix(".html"))
    files = {"result": str(out), "report": str(out.with_suffix(".html"))}
    if not as_json:
        print_result(result)
    show.values(files, as_json)
