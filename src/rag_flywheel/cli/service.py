"""The commands of the HTTP service: `serve`, and `keys` with what it holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag_flywheel.cli import show
from rag_flywheel.cli.options import KB, Indexes, Json, State
from rag_flywheel.errors import ConfigError
from rag_flywheel.store.service.names import file_beside, named_folder, tenant_named

if TYPE_CHECKING:
    from rag_flywheel.service.logs import LogFormat
    from rag_flywheel.store.database import Database

KEYS_HELP = "The API keys of the service: add, list, revoke."
keys = typer.Typer(help=KEYS_HELP, no_args_is_help=True)


def serve(
    index: Indexes = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that answer.")] = 1,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="An origin whose pages may send feedback; may be repeated."),
    ] = None,
    calls_per_minute: Annotated[
        int | None,
        typer.Option(
            min=0,
            envvar="RAG_FLYWHEEL_SERVICE_CALLS_PER_MINUTE",
            help="By key, or by address of a public key; 0: no limit; default: 12000.",
        ),
    ] = None,
    votes_per_minute: Annotated[
        int | None,
        typer.Option(
            min=0,
            envvar="RAG_FLYWHEEL_SERVICE_VOTES_PER_MINUTE",
            help="By user, and on one retrieval; 0: no limit; default: 120.",
        ),
    ] = None,
    token_hours: Annotated[
        float, typer.Option(min=0.01, help="For how long a page can use a feedback token.")
    ] = 3.0,
    state: State = None,
    log_format: Annotated[
        str | None, typer.Option(help="Of the lines it logs: text or json; default: text.")
    ] = None,
) -> None:
    """Serve indexes over HTTP, with a dashboard, until it is interrupted.

    Without any key it serves this machine alone; `rag-flywheel keys add` makes one.
    """
    try:
        from pydantic import ValidationError

        from rag_flywheel.service.run import run
        from rag_flywheel.service.settings import Settings
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed; install the extra: pip install 'rag-flywheel[service]'"
        ) from None
    try:
        settings = Settings(
            indexes=_folders(index),
            host=host,
            port=port,
            workers=workers,
            origins=tuple(origin or ()),
            calls_per_minute=calls_per_minute,
            votes_per_minute=votes_per_minute,
            token_s=round(token_hours * 3600),
            state=state,
        )
    except ValidationError as error:
        raise ConfigError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
    if log_format is not None:
        settings = settings.model_copy(update={"log_format": _log_format(log_format)})
    run(settings)


@keys.command("add")
def add_key(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="read, vote, write, review or admin; may be repeated; default: vote of a public one."
        ),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="The tenant it is bound to.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="The index it is for; may be repeated; default: all.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="For browsers: it only votes, by signed tokens.")
    ] = False,
    index: Indexes = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it. It is stored nowhere, and never shown again."""
    from rag_flywheel.store.service.keys import make_key

    with _records(index, state) as database:
        bound = tenant_named(tenant)
        scopes = scope or (["vote"] if public else [])
        text, key = make_key(database, name, scopes, tenant=bound, indexes=only, public=public)
    show.values({"key": text, "id": key.id, "scopes": ", ".join(key.scopes)}, as_json)


@keys.command("list")
def list_keys(index: Indexes = None, state: State = None, as_json: Json = False) -> None:
    """List the keys, without their secrets."""
    from rag_flywheel.store.service.keys import keys as every

    with _records(index, state) as database:
        show.result(every(database), as_json, show.keys)


@keys.command("revoke")
def revoke(
    key: Annotated[str, typer.Argument(help="Its id, as `keys list` shows it.")],
    index: Indexes = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Revoke a key: every process of the service refuses it from the next request on."""
    from rag_flywheel.store.service.keys import revoke_key

    with _records(index, state) as database:
        revoke_key(database, key)
    show.value("revoked", key, as_json)


def _log_format(text: str) -> "LogFormat":
    if text not in ("text", "json"):
        raise ConfigError(f"--log-format is {text!r}; expected text or json")
    return text  # type: ignore[return-value]


def _folders(given: list[str] | None) -> dict[str, Path]:
    """The folders of indexes by their names."""
    return dict(map(named_folder, given or [str(KB)]))


@contextmanager
def _records(index: list[str] | None, state: str | None) -> Iterator["Database"]:
    """The records of the service, open. Raises NotAFlywheelError for a folder without an index."""
    from rag_flywheel.deploy.folder import require_index
    from rag_flywheel.store.service.state import open_state

    folders = list(_folders(index).values())
    for folder in folders if state is None else ():
        require_index(folder)
    database = open_state(state or file_beside(folders[0]))
    try:
        yield database
    finally:
        database.close()
