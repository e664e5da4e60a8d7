"""Pages on what comes in from other tools."""

import math
import re
from datetime import UTC, datetime

from rag_flywheel.capture.imported_reading import EARLIEST
from rag_flywheel.capture.imported_records import AT_ONCE
from rag_flywheel.capture.imported_retrievals import chance_at
from rag_flywheel.capture.question_vectors import MOST_AT_ONCE
from rag_flywheel.capture.scores import VERDICT_NAMES, plain_name
from rag_flywheel.curate.weights import WEIGHTS
from rag_flywheel.formats.tools.tables import COLUMNS
from rag_flywheel.store.embedding import AT_ONCE as QUESTIONS_AT_ONCE
from stated.page import Page


def feedback(page: Page) -> None:
    """docs/how-to/import-feedback.md."""
    page.says("It weighs {:.1f} of a vote", WEIGHTS["judge"])
    page.says("or before {}, are refused", datetime.fromtimestamp(EARLIEST, UTC).year)
    page.says("in transactions of {:,} records", AT_ONCE)
    page.says("of the first {} questions with votes", MOST_AT_ONCE)
    page.says("commits the vectors of {} questions at a time", QUESTIONS_AT_ONCE)
    parts = [round(math.exp(-chance_at(rank))) for rank in (1, 2, 3)]
    page.says("1/{}, 1/{}, 1/{}, ...", *parts)
    page.lets("example", "--since 2026-11-01", 'since="2026-11-01"')
    page.lets("fact", "of version 0.16 or later")
    names = page.text.split("hyphens and underscores:")[1].split("`--score NAME`")[0]
    assert {plain_name(name) for name in re.findall(r"`([a-z-]+)`", names)} == VERDICT_NAMES


def tables(page: Page) -> None:
    """docs/reference/import-tables.md."""
    page.lets("numbers of a rating", "0.0", "1.0")
    page.lets("example", "0.8")
    page.lets("the first year of clocks", "1970")
    named = {
        name
        for line in page.text.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert named | {"hits", "answer"} == set(COLUMNS)
