"""The page on export files has every column, and no other."""

import re
from pathlib import Path

import pytest

from rag_flywheel.export.log_files import JUDGMENTS, RETRIEVALS, VOTES
from rag_flywheel.export.training_rows import COLUMNS, MOST_NEGATIVES, PROVENANCE
from rag_flywheel.formats.row_files import Column

DOCS = Path(__file__).parents[2] / "docs"
TABLES = {
    "Votes": VOTES,
    "Judgments": JUDGMENTS,
    "Retrievals": RETRIEVALS,
    "Provenance of training sets": PROVENANCE,
}


@pytest.mark.parametrize("heading", [*TABLES])
def test_the_reference_has_the_columns_of_each_file(heading: str) -> None:
    text = (DOCS / "reference" / "export-files.md").read_text(encoding="utf-8")
    part = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in part.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(cells))) == sorted(names(TABLES[heading]))


def names(columns: tuple[Column, ...]) -> list[str]:
    return [column.name for column in columns]


def test_the_guide_has_the_columns_of_each_training_set_in_their_order() -> None:
    text = (DOCS / "how-to" / "training-sets.md").read_text(encoding="utf-8")
    found = {
        kind: re.findall(r"`(\w+)`", cells)
        for kind, cells in re.findall(r"^\| `([\w-]+)` \| (.*?) \|", text, flags=re.MULTILINE)
    }
    assert found == {kind: names(columns) for kind, columns in COLUMNS.items()}
    assert f"at most {MOST_NEGATIVES} beside a right passage" in text
