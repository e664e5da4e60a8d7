"""The options that commands share, and the function that opens the index of a command."""

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict, TypeVar

import typer

from rag_flywheel.cli.where import read_one

if TYPE_CHECKING:
    from rag_flywheel.flywheel import Flywheel

KB = Path("indexes/kb")
_VARIABLE = "RAG_FLYWHEEL_INDEX"
_URL = re.compile(r"postgres(ql)?:/")
_INDEX, _JSON = "rag_flywheel.index", "rag_flywheel.json"  # in ctx.meta, which commands share


def _index_given(ctx: typer.Context, here: Path) -> Path:
    """The folder that is named here, else the one named before a command that this belongs to."""
    source = ctx.get_parameter_source("index")
    if source is not None and source.name == "COMMANDLINE":
        ctx.meta[_INDEX] = here
    given: Path = ctx.meta.get(_INDEX, here)
    if _URL.match(str(given)):
        raise typer.BadParameter(
            "found the URL of a database; expected the folder that knows it, which `rag-flywheel copy` "
            "makes, and Flywheel.open(URL, cache=FOLDER) in Python"
        )
    return given


Index = Annotated[
    Path,
    typer.Option(
        "--index",
        "-i",
        envvar=_VARIABLE,
        callback=_index_given,
        help="The index folder.",
    ),
]


def _indexes_given(ctx: typer.Context, here: list[str] | None) -> list[str]:
    """The folders that are named here, else the one named before the command or by the environment."""
    before: Path | None = ctx.meta.get(_INDEX)
    return here or [str(before or os.environ.get(_VARIABLE) or KB)]


State = Annotated[
    str | None,
    typer.Option(
        envvar="RAG_FLYWHEEL_SERVICE_STATE",
        help="Where the records of the service (keys, limits, jobs) are: a file, or the URL of a PostgreSQL "
        "database that hosts share; default: service.db beside the first index.",
    ),
]
Indexes = Annotated[
    list[str] | None,
    typer.Option(
        "--index",
        "-i",
        callback=_indexes_given,
        help="An index folder, or NAME=FOLDER; may be given several times.  "
        f"[env var: {_VARIABLE}]  [default: {KB}]",
    ),
]


def _json_asked(ctx: typer.Context, here: bool) -> bool:
    """Whether --json stands here or before a command that this belongs to."""
    ctx.meta[_JSON] = asked = here or bool(ctx.meta.get(_JSON))
    return asked


Json = Annotated[
    bool, typer.Option("--json", callback=_json_asked, help="Print JSON for programs.")
]
User = Annotated[str | None, typer.Option(help="Id of the user.")]
TenantName = Annotated[
    str | None,
    typer.Option("--tenant", help="Act for this tenant alone; default: all tenants."),
]
MinRelevance = Annotated[
    float | None,
    typer.Option(
        min=0.0, max=1.0, help="The least relevance, 0 to 1; what is below it is left out."
    ),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        help="Metadata filter: lang=en, year>=2020, or an expression in JSON. All must hold, but a key "
        "given twice with = may have either value."
    ),
]
Lenient = Annotated[
    bool,
    typer.Option(
        "--lenient", help="Leave out, and count, lines that cannot be used, instead of stopping."
    ),
]
Dask = Annotated[
    str | None,
    typer.Option(
        "--dask",
        metavar="ADDRESS",
        envvar="RAG_FLYWHEEL_DASK",
        help="Embed on the workers of the Dask scheduler at this address, as tcp://host:8786.",
    ),
]
ReadOnly = Annotated[
    bool,
    typer.Option(
        "--read-only",
        help="Write nothing to the folder; answers are not recorded, and take no votes.",
    ),
]
Word = TypeVar("Word", bound=str)


def one_of(text: str, allowed: Sequence[Word], name: str = "") -> Word:
    """The allowed word that the text is. Raises BadParameter, a usage error, when it is none."""
    for word in allowed:
        if word == text:
            return word
    raise typer.BadParameter(f"{name}{text!r} is none of {', '.join(allowed)}")


class TenantArguments(TypedDict):
    """How a command names a tenant to Flywheel, or asks for all."""

    tenant: str | int | None
    all_tenants: bool


def of_tenant(fw: "Flywheel", tenant: str | None) -> TenantArguments:
    """The tenant that a text names, a number where the passages of the index have numbers; None: all."""
    if tenant is None:
        return {"tenant": None, "all_tenants": True}
    key = fw.config.tenant_key
    value: object = tenant
    if key is not None:
        value = read_one(key, tenant, fw.metadata_keys(all_tenants=True))
    named = value if isinstance(value, str | int) and not isinstance(value, bool) else tenant
    return {"tenant": named, "all_tenants": False}


def open_index(
    index: Path, *, create: bool = False, read_only: bool = False, dask: str | None = None
) -> "Flywheel":
    """Open the index of a command. Slow imports happen here, so that `--help` stays fast."""
    from rag_flywheel.flywheel import Flywheel

    return Flywheel.open(index, create=create, read_only=read_only, dask=dask)


def seconds(text: str) -> float:
    """The seconds of a duration such as 30m. Raises BadParameter, a usage error."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", text.strip(), re.ASCII)
    if match is None:
        raise typer.BadParameter(f"{text!r} is no duration; expected such as 90s, 30m, 6h or 2d")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def remove_if_empty(index: Path) -> None:
    """Remove an index that a failed command has just made, unless it holds passages."""
    if not index.exists():
        return
    with open_index(index) as fw:
        empty = not fw.passages()
    if empty:
        shutil.rmtree(index)
