"""The command `mcp`: the tools for agents over the Model Context Protocol."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rag_flywheel.cli.options import KB, Index, State, of_tenant, open_index
from rag_flywheel.errors import ConfigError
from rag_flywheel.store.service.names import file_beside, named_folder, tenant_named

if TYPE_CHECKING:
    from rag_flywheel.integrations.mcp import Caller
    from rag_flywheel.store.database import Database

_SERVICE_URL, _SERVICE_KEY = "RAG_FLYWHEEL_SERVICE_URL", "RAG_FLYWHEEL_KEY"


def mcp(
    http: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Serve over HTTP there; default: standard input."),
    ] = None,
    service: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar=_SERVICE_URL,
            help="Ask the service at this address instead of an index folder.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            envvar=_SERVICE_KEY,
            help="The key of that service; give it by the environment, where no list of processes shows it.",
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            envvar="RAG_FLYWHEEL_USER", help="Id of the user whose agent calls; default: mcp."
        ),
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(help="Id of the conversation, whose rephrased questions are noticed."),
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option(envvar="RAG_FLYWHEEL_TENANT", help="Act for this tenant alone."),
    ] = None,
    all_tenants: Annotated[
        bool, typer.Option("--all-tenants", help="Search what belongs to all tenants.")
    ] = False,
    submit_answer: Annotated[
        bool,
        typer.Option(
            "--submit-answer",
            help="Also offer the tool submit_answer, by which passages that an answer quotes are adopted.",
        ),
    ] = False,
    votes_per_hour: Annotated[
        int, typer.Option(min=1, help="How much feedback one user may give in an hour.")
    ] = 100,
    state: State = None,
    index: Index = KB,
) -> None:
    """Serve the tools for agents over the Model Context Protocol (MCP), until the input ends."""
    address = None if http is None else _address(http)
    if tenant is not None and all_tenants:
        raise typer.BadParameter("--tenant and --all-tenants exclude each other")
    if service is None:
        from rag_flywheel.deploy.folder import require_index

        require_index(index)
    try:
        from rag_flywheel.integrations.mcp import (
            knowledge_server,
            log_to_stderr,
            run_stdio,
            warm_beside,
        )
        from rag_flywheel.integrations.tools import VoteBudget
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed; install the extra: pip install 'rag-flywheel[mcp]'"
        ) from None
    log_to_stderr()
    opened = _service(service, key) if service is not None else _folder(index)
    with opened as (knowledge, named_by):
        caller = named_by(user, session, tenant, all_tenants)
        server = knowledge_server(
            knowledge,
            caller=caller,
            budget=VoteBudget(votes_per_hour),
            submit_answer=submit_answer,
        )
        if address is None:
            _require_tenant(knowledge, caller)
        warming = warm_beside(knowledge)
        try:
            if address is None:
                run_stdio(server, knowledge.close)
            else:
                _run_http(server, address, state, None if service is not None else index)
        finally:
            warming.join()  # it must not load libraries while the process ends


_NamedBy = Callable[[str | None, str | None, str | None, bool], "Caller"]
"""Makes the caller of the user, session and tenant that are named on a command line."""


@contextmanager
def _folder(index: Path) -> Iterator[tuple[Any, _NamedBy]]:
    from rag_flywheel.integrations.mcp import Caller

    with open_index(index) as fw:

        def named_by(
            user: str | None, session: str | None, tenant: str | None, every: bool
        ) -> Caller:
            named = None if tenant is None else of_tenant(fw, tenant)["tenant"]
            return Caller(user, session, named, every)

        yield fw, named_by


@contextmanager
def _service(url: str, key: str | None) -> Iterator[tuple[Any, _NamedBy]]:
    try:
        from rag_flywheel.client import Client
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{error.name} is not installed; install the extra: pip install 'rag-flywheel[client]'"
        ) from None
    from rag_flywheel.integrations.mcp import Caller

    with Client(url, key=key) as client:
        yield (
            client,
            lambda user, session, tenant, every: Caller(user, session, tenant_named(tenant), every),
        )


def _require_tenant(knowledge: Any, caller: "Caller") -> None:
    """Raises ConfigError when an index in a folder has tenants and none is named, and InputError when one is
    named that it cannot have."""
    config = getattr(knowledge, "config", None)
    if config is None:
        return
    if caller.tenant is not None:
        knowledge.passages(n=1, tenant=caller.tenant)
    elif config.tenant_key is not None and config.tenant_required and not caller.all_tenants:
        raise ConfigError(
            f"the index has tenants (tenant_key = {config.tenant_key!r}), and none is named; name one with "
            "--tenant, or give --all-tenants for all of them"
        )


def _run_http(
    server: Any, address: tuple[str, int], state: str | None, folder: Path | None
) -> None:
    """Serve over HTTP with the keys of the file, if there is any."""
    from rag_flywheel.integrations.mcp_http import run_http
    from rag_flywheel.store.service.state import open_state

    records = state if state is not None or folder is None else file_beside(folder)
    name = "" if folder is None else named_folder(str(folder))[0]
    keys: Database | None = None if records is None else open_state(records)
    try:
        run_http(server, *address, keys, name)
    finally:
        if keys is not None:
            keys.close()


def _address(text: str) -> tuple[str, int]:
    """The host and port of an address. Raises BadParameter, a usage error."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise typer.BadParameter(f"{text!r} is no address; expected such as 127.0.0.1:8001")
    return host, int(port)
