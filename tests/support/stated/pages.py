"""All pages, and what each of them states."""

import functools
from collections.abc import Callable

from stated import (
    agents,
    decisions,
    engines,
    explained,
    gains,
    hosts,
    imported,
    notes,
    readme,
    settings,
    speed,
)
from stated.page import Page
from stated.results import ROOT

STATEMENTS: dict[str, Callable[[Page], None]] = {
    "README.md": readme.readme,
    "docs/architecture.md": readme.architecture,
    "docs/glossary.md": readme.glossary,
    "docs/tutorial.md": readme.tutorial,
    "docs/explanation/decisions.md": decisions.decisions,
    "docs/explanation/dependencies.md": settings.dependencies,
    "docs/explanation/exploration.md": explained.exploration,
    "docs/explanation/how-votes-are-learned-from.md": explained.model,
    "docs/explanation/relevance.md": explained.relevances,
    "docs/explanation/speed.md": speed.cost,
    "docs/explanation/the-gate.md": explained.gate,
    "docs/explanation/tuning.md": explained.tuning,
    "docs/explanation/when-votes-do-not-help.md": gains.when,
    "docs/how-to/agents.md": agents.agents,
    "docs/how-to/backup.md": settings.backups,
    "docs/how-to/change-encoder.md": settings.change_encoder,
    "docs/how-to/embed-on-many-machines.md": settings.embed_on_many_machines,
    "docs/how-to/changing-documents.md": settings.changing,
    "docs/how-to/cron-and-systemd.md": settings.cron,
    "docs/how-to/documents.md": settings.adding,
    "docs/how-to/feedback.md": settings.feedback,
    "docs/how-to/import-feedback.md": imported.feedback,
    "docs/how-to/keys-and-limits.md": settings.keys_and_limits,
    "docs/how-to/known-answers.md": settings.known,
    "docs/how-to/languages.md": settings.languages,
    "docs/how-to/own-data-in-the-benchmark.md": settings.own_data,
    "docs/how-to/many-hosts.md": hosts.many_hosts,
    "docs/how-to/mcp.md": agents.mcp,
    "docs/how-to/milvus.md": engines.elsewhere,
    "docs/how-to/monitoring.md": settings.monitoring,
    "docs/how-to/postgresql.md": settings.postgresql,
    "docs/how-to/versions-in-an-object-store.md": settings.object_store,
    "docs/how-to/privacy-requests.md": settings.privacy,
    "docs/how-to/run-it.md": settings.running,
    "docs/how-to/training-sets.md": settings.training_sets,
    "docs/how-to/voters.md": explained.voters,
    "docs/how-to/watch-an-index.md": settings.watching,
    "docs/reference/files.md": settings.files,
    "docs/reference/filters.md": settings.filter_page,
    "docs/reference/import-tables.md": imported.tables,
    "docs/reference/limits.md": settings.limits,
    "docs/notes/bm25-libraries.md": notes.libraries,
    "docs/notes/comparison-notes.md": gains.comparison,
    "docs/notes/demo-collection.md": notes.demo,
    "docs/notes/feedback-notes.md": notes.feedback,
    "docs/notes/gate-notes.md": gains.gate_notes,
    "docs/notes/learning-notes.md": notes.learning,
    "docs/notes/speed-notes.md": speed.notes,
}


def pages() -> list[str]:
    """README and every page of the documentation, by their paths in the repository."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found]


@functools.cache
def read(name: str) -> Page:
    """A page, compared with what is stated of it."""
    page = Page(name, (ROOT / name).read_text(encoding="utf-8"))
    STATEMENTS.get(name, lambda page: None)(page)
    page.has_footer()
    return page
