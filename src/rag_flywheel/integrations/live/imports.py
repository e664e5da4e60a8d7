"""Imports feedback from the API of a tool, by way of a file in the shape that the tool exports.

All is fetched before anything is imported, so that nothing is half imported, and the file is deleted with
its folder, also where the call fails.
"""

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from rag_flywheel.checks import check_one_of, check_optional_text
from rag_flywheel.errors import ConfigError, InputError
from rag_flywheel.flywheel import Flywheel
from rag_flywheel.integrations.live.asked import Asked, Moment, Rows, moment_of
from rag_flywheel.records import ImportReport, Progress
from rag_flywheel.report.progress import Bars, as_progress
from rag_flywheel.store import wall_clock
from rag_flywheel.store.tenants import Tenant

LiveTool: TypeAlias = Literal["langfuse", "phoenix", "langsmith"]
"""Whose API is asked."""
LIVE_TOOLS: tuple[LiveTool, ...] = get_args(LiveTool)


def import_live(
    flywheel: Flywheel,
    tool: LiveTool,
    *,
    since: Moment | None = None,
    until: Moment | None = None,
    project: str | None = None,
    url: str | None = None,
    scores: Sequence[str] = (),
    judges: Sequence[str] = (),
    id_key: str | None = None,
    dry_run: bool = False,
    progress: bool | Progress = False,
    tenant: Tenant | None = None,
    all_tenants: bool = False,
) -> ImportReport:
    """`Flywheel.import_files` of what a tool's API has of a period; needs the extra of the tool's name.

    Keys, and the address and project where they are not given, come from the tool's own environment
    variables. since, until: None is the beginning, and now. project: its name; keys of Langfuse are of one.
    progress: as in `import_files`, with the step "fetch" before. Raises InputError, ConfigError (a key or
    the extra is missing), AccessError and ServiceError; then nothing came in.
    """
    check_one_of("tool", tool, LIVE_TOOLS)
    asked = _asked(tool, since, until, project, url)
    fetch = _fetcher(tool)
    with tempfile.TemporaryDirectory(prefix="rag-flywheel-import-") as folder:  # of this user alone
        path = Path(folder) / f"{tool}.jsonl"
        with Bars() as bars:
            told = as_progress(progress, bars)

            def count(n: int) -> None:
                if told is not None:  # how many there are, no API says
                    told("fetch", n, n + 1)

            with Rows(path, count) as rows:
                fetch(asked, rows)
        if not path.stat().st_size:  # an API that has nothing of the period is no wrong file
            path.write_text("[]", encoding="utf-8")
        return flywheel.import_files(
            tool,
            path,
            scores=scores,
            judges=judges,
            id_key=id_key,
            dry_run=dry_run,
            progress=progress,
            tenant=tenant,
            all_tenants=all_tenants,
        )


def _asked(
    tool: LiveTool,
    since: Moment | None,
    until: Moment | None,
    project: str | None,
    url: str | None,
) -> Asked:
    check_optional_text("project", project)
    check_optional_text("url", url)
    if project is not None and tool == "langfuse":
        raise InputError("project is given; the keys of Langfuse are of one project: expected none")
    if url is not None and not url.startswith(("https://", "http://")):
        raise InputError(f"url is {url!r}; expected https://...")
    now = datetime.fromtimestamp(wall_clock.now(), UTC)
    asked = Asked(
        None if since is None else moment_of("since", since),
        now if until is None else moment_of("until", until),
        project,
        url,
    )
    if asked.since is not None and asked.since >= asked.until:
        raise InputError(f"since is {asked.since}; expected a time before {asked.until}")
    return asked


def _fetcher(tool: LiveTool) -> Any:
    """What fetches from a tool. Raises ConfigError where its client is not installed."""
    with suppress(ModuleNotFoundError):
        return import_module(f"rag_flywheel.integrations.live.{tool}").fetch
    raise ConfigError(
        f"the client of {tool} is not installed; install the extra: pip install 'rag-flywheel[{tool}]'"
    )
