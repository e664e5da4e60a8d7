"""The command line: each command is one call on Flywheel, shown as a table or, with --json, as JSON.

--index and --json may stand before the command or after it, and with --json errors are JSON too:
{"error": {"type": ..., "message": ...}} on standard error.

Exit codes: 0 done, 1 error (for `verify`: problems found; for `status`: broken), 2 usage, 3 a refresh was
rejected, 75 another process holds the refresh lock; those of `health` are 0 ok, 1 degraded, 2 broken.
"""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import rag_flywheel
from rag_flywheel.cli import show
from rag_flywheel.cli.add import add
from rag_flywheel.cli.bench import bench
from rag_flywheel.cli.export import EXPORT_HELP, export
from rag_flywheel.cli.feedback import OTHERS as OTHER_FEEDBACK
from rag_flywheel.cli.feedback import coverage, feedback, gaps
from rag_flywheel.cli.golden import GOLDEN_HELP, REVIEW_HELP, golden, review
from rag_flywheel.cli.health import health
from rag_flywheel.cli.imports import IMPORT_HELP, imports
from rag_flywheel.cli.mcp import mcp
from rag_flywheel.cli.messages import (
    UsageError,
    failed,
    log_each_step,
    messages_to_stderr,
    usage_failed,
)
from rag_flywheel.cli.options import (
    KB,
    Dask,
    Index,
    Json,
    MinRelevance,
    ReadOnly,
    TenantName,
    User,
    Where,
    of_tenant,
    open_index,
    seconds,
)
from rag_flywheel.cli.privacy import COMMANDS as PRIVACY
from rag_flywheel.cli.raters import COMMANDS as RATERS
from rag_flywheel.cli.service import KEYS_HELP, keys, serve
from rag_flywheel.cli.where import filter_of
from rag_flywheel.errors import FlywheelError, LockedError

if TYPE_CHECKING:
    from rag_flywheel.flywheel import Flywheel

app = typer.Typer(
    help="Retrieval that improves from votes on its answers. Begin with `add`, `retrieve`, "
    "`feedback` and `refresh`; `demo` shows them at work.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
USAGE, REJECTED, LOCKED = 2, 3, 75


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rag-flywheel {rag_flywheel.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Take the options that stand before the command."""


def main(words: list[str] | None = None) -> None:
    """Run the command line and exit with its code; None: the arguments of this process.

    An error is one line on standard error, never a traceback; with --json, one JSON object.
    """
    words = sys.argv[1:] if words is None else words
    as_json = "--json" in itertools.takewhile(lambda word: word != "--", words)
    with messages_to_stderr():
        try:
            code = app(words, standalone_mode=False)
        except UsageError as error:
            usage_failed(error, as_json)
            code = USAGE
        except FlywheelError as error:
            failed(error, as_json)
            code = LOCKED if isinstance(error, LockedError) else 1
        except typer.Abort:
            code = 1
        except BrokenPipeError:
            code = 0
    sys.exit(code or 0)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the demo index and chart.")] = Path(
        "indexes"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the simulated users.")] = 0,
    cycles: Annotated[int, typer.Option(min=1, help="Number of cycles of votes and refresh.")] = 6,
    as_json: Json = False,
) -> None:
    """Run a help desk for Python's standard library that learns from simulated users."""
    from rag_flywheel.bench.demo import run_demo
    from rag_flywheel.bench.extra import require_bench_extra

    require_bench_extra()
    show.result(run_demo(out, seed=seed, n_cycles=cycles), as_json, show.demo)


def remove(
    ids: Annotated[list[str], typer.Argument(help="Passage ids.")],
    tenant: TenantName = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Remove passages; no answer shows them from now on."""
    with open_index(index) as fw:
        show.count("removed", fw.remove(ids, **of_tenant(fw, tenant)), as_json)


def retrieve(
    query: str,
    k: Annotated[int, typer.Option("-k", min=1, help="How many passages.")] = 8,
    where: Where = None,
    user: User = None,
    run: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID", help="A run that it belongs to, which feedback may name; may be repeated."
        ),
    ] = None,
    record: Annotated[
        bool, typer.Option(help="Record the retrieval, so that it can get votes.")
    ] = True,
    min_relevance: MinRelevance = None,
    explain: Annotated[
        bool, typer.Option(help="Show what each rank comes from, and the votes behind it.")
    ] = False,
    tenant: TenantName = None,
    read_only: ReadOnly = False,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Print the best passages for a query."""
    with open_index(index, read_only=read_only) as fw:
        named = of_tenant(fw, tenant)
        found = fw.retrieve(
            query,
            k,
            where=_filter(fw, where),
            user_id=user,
            run_id=run,
            record=record,
            min_relevance=min_relevance,
            **named,
        )
        behind = {h.rank: fw.votes_behind(h, **named) for h in found.hits} if explain else None
        # before the index is closed, which waits where another program writes
        show.retrieval(found, behind, as_json, record=record and not read_only)


def _filter(fw: "Flywheel", conditions: list[str] | None) -> dict[str, Any] | None:
    if not conditions:
        return None
    return filter_of(conditions, fw.metadata_keys(all_tenants=True), fw.config.tenant_key)


def refresh(
    if_votes: Annotated[
        int | None, typer.Option(min=1, help="Refresh only after this many new votes.")
    ] = None,
    max_age: Annotated[
        str | None, typer.Option(help="... or at this age of the live version: 90s, 30m, 6h, 2d.")
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Also tune the encoder of queries; takes minutes.")
    ] = False,
    dask: Dask = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Build the next index version, check it and make it live. It logs one line a step, for cron."""
    log_each_step()
    max_age_s = None if max_age is None else seconds(max_age)
    with _opened_to_refresh(index, dask) as fw:
        report = fw.refresh(if_votes=if_votes, max_age_s=max_age_s, tune=tune, progress=True)
    show.result(report, as_json, show.refreshed)
    if report.outcome == "rejected":
        raise typer.Exit(REJECTED)


def _opened_to_refresh(index: Path, dask: str | None) -> "Flywheel":
    """The open index; that it cannot be opened is a failed refresh, and leaves a trace as one."""
    try:
        return open_index(index, dask=dask)
    except FlywheelError as error:
        if (index / "flywheel.toml").exists():
            from rag_flywheel.refresh.failures import note

            note(index, None, error)
        raise


def status(read_only: ReadOnly = False, index: Index = KB, as_json: Json = False) -> None:
    """Show the state of the index in numbers, its problems first; exit code 1 when it is broken."""
    with open_index(index, read_only=read_only) as fw:
        found = fw.status()
    show.result(found, as_json, show.status)
    if found.health == "broken":
        raise typer.Exit(1)


def versions(
    explain: Annotated[
        str | None, typer.Option(metavar="ID", help="Explain how this version got its parameters.")
    ] = None,
    read_only: ReadOnly = False,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """List the index versions on disk, the newest first, or explain one of them."""
    with open_index(index, read_only=read_only) as fw:
        if explain is None:
            show.result(fw.versions(), as_json, show.versions)
        else:
            show.result(fw.explain_version(explain), as_json, show.story)


def change_encoder(
    encoder: Annotated[
        str | None,
        typer.Argument(help="sentence-transformers:NAME_OR_PATH, or module:function."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Make it live whatever the gate says.")
    ] = False,
    drop: Annotated[
        bool, typer.Option("--drop", help="Give up a change that did not go live, and its vectors.")
    ] = False,
    dask: Dask = None,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Change the encoder and keep the votes: embed anew beside the live version, compare, go live."""
    if drop == (encoder is not None) or (drop and force):
        raise UsageError("give the name of an encoder, or --drop alone")
    log_each_step()
    with open_index(index, dask=dask) as fw:
        if encoder is None:
            show.count("vectors dropped", fw.drop_encoder_change(), as_json)
            return
        report = fw.change_encoder(encoder, force=force, progress=True)
    show.result(report, as_json, show.refreshed)
    if report.outcome == "rejected":
        raise typer.Exit(REJECTED)


def rollback(
    version: Annotated[str | None, typer.Argument(help="Default: the one before.")] = None,
    hold: Annotated[
        bool, typer.Option("--hold", help="Do not let refreshes replace it until `release`.")
    ] = False,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Make an earlier version live; votes that came after it are held back until `release`."""
    with open_index(index) as fw:
        show.value("live", fw.rollback(version, hold=hold), as_json)


def release(index: Index = KB, as_json: Json = False) -> None:
    """End a rollback: votes after that version count again, and refreshes go on."""
    with open_index(index) as fw:
        show.value("released", fw.release(), as_json)


def verify(index: Index = KB, as_json: Json = False) -> None:
    """Check every file of the index folder; exit code 1 when something is wrong."""
    with open_index(index) as fw:
        problems = fw.verify()
    show.sentences(problems, "sound", as_json)
    if problems:
        raise typer.Exit(1)


def repair(index: Index = KB, as_json: Json = False) -> None:
    """Move damaged versions into quarantine/, rebuild from the database, and report what was done."""
    with open_index(index) as fw:
        show.sentences(fw.repair(progress=True), "nothing to repair", as_json)


def forget(user: str, index: Index = KB, as_json: Json = False) -> None:
    """Delete what is stored of a user, all that was learned from them, and versions that rest on them."""
    with open_index(index) as fw:
        show.result(fw.forget(user), as_json, show.forgotten)


def opt_out(
    user: str,
    undo: Annotated[bool, typer.Option("--undo", help="Record them again.")] = False,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Record nothing of a user from now on: neither questions nor votes."""
    with open_index(index) as fw:
        fw.opt_out(user, out=not undo)
    show.value("opted out", not undo, as_json)


def log(
    n: Annotated[int, typer.Option("-n", min=1, help="How many entries.")] = 50,
    tenant: TenantName = None,
    read_only: ReadOnly = False,
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Show the history of the index, the newest first: promotions, failures, rollbacks, ..."""
    with open_index(index, read_only=read_only) as fw:
        show.result(fw.history(n, **of_tenant(fw, tenant)), as_json, show.history)


def backup(
    dest: Annotated[Path, typer.Argument(help="A new folder, or that of an earlier backup.")],
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Back up the index while it is used; a folder with an earlier backup gets only what is new."""
    with open_index(index) as fw:
        show.result(fw.backup(dest), as_json, show.backed_up)


def restore(
    source: Annotated[Path, typer.Argument(help="The folder of a backup.")],
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Restore a backup into a new folder, or over the index that it was made of, in use or not."""
    from rag_flywheel.flywheel import restore as restored

    show.result(restored(source, index), as_json, show.restored)


def copy(
    source: Annotated[Path, typer.Argument(help="The folder of an index, which may be in use.")],
    dest: Annotated[str, typer.Argument(help="A new folder, or the URL of a PostgreSQL database.")],
    cache: Annotated[
        Path | None,
        typer.Option(help="With a URL: the new folder of settings and versions."),
    ] = None,
    objects: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="With a URL: the place in an object store that hosts share versions in, as s3://BUCKET/PREFIX.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy an index with all that it learned, between SQLite and PostgreSQL too."""
    from rag_flywheel.flywheel import copy as copied

    show.result(copied(source, dest, cache=cache, objects=objects), as_json, show.copied)


def join(
    url: Annotated[
        str, typer.Argument(help="The PostgreSQL database of an index that hosts share.")
    ],
    index: Index = KB,
    as_json: Json = False,
) -> None:
    """Make the index folder of this host, a new one, for an index that hosts share."""
    from rag_flywheel.flywheel import Flywheel

    with Flywheel.open(url, cache=index, create=False) as fw:
        found = fw.status()
    show.result(found, as_json, show.status)
    if found.health == "broken":
        raise typer.Exit(1)


_GROUPS: dict[str, tuple[Callable[..., None], ...]] = {
    "Begin with": (add, retrieve, feedback, refresh),
    "Feedback": OTHER_FEEDBACK,
    "Passages": (remove, status, health, gaps, coverage),
    "Versions and safety": (
        versions,
        change_encoder,
        rollback,
        release,
        verify,
        repair,
        backup,
        restore,
        copy,
        join,
        log,
    ),
    "Users": (*RATERS, forget, opt_out, *PRIVACY),
    "Service": (serve, mcp),
    "Measurement": (demo, bench),
}
for _group, _commands in _GROUPS.items():
    for _command in _commands:
        app.command(rich_help_panel=_group)(_command)
    if _group == "Feedback":
        _known = "Known answers"
        app.add_typer(golden, name="golden", help=GOLDEN_HELP, rich_help_panel=_known)
        app.add_typer(review, name="review", help=REVIEW_HELP, rich_help_panel=_known)
    if _group == "Passages":
        _others = "Other programs"
        app.add_typer(imports, name="import", help=IMPORT_HELP, rich_help_panel=_others)
        app.add_typer(export, name="export", help=EXPORT_HELP, rich_help_panel=_others)
    if _group == "Service":
        app.add_typer(keys, name="keys", help=KEYS_HELP, rich_help_panel=_group)
