"""What tests of known answers and of reviews say to an index."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from fakes import WordEncoder
from rag_flywheel import Flywheel, Passage
from rag_flywheel.records import AddReport, GoldenItem, Verdict

Answers = dict[str, tuple[dict[str, int], tuple[str, ...]]]
QUERY, TURNED = "reset the password", "password the reset"  # the same words: near-duplicates


def said(fw: Flywheel, query: str, passage: str, verdict: str, *users: str | None) -> None:
    """Each user asks the query and votes on the passage."""
    for user in users:
        shown = fw.retrieve(query, k=100)
        fw.feedback(shown.id, passage, cast(Verdict, verdict), user_id=user)


def corrected(fw: Flywheel, query: str, passage: str, user: str | None = "ann") -> str:
    """A user asks the query and names the passage; returns the id of the retrieval."""
    shown = fw.retrieve(query, k=1)
    fw.correct(shown.id, passage, user_id=user)
    return str(shown.id)


def known(fw: Flywheel) -> Answers:
    """By query: ({passage id: grade}, sources)."""
    return {i.query: (dict(i.answers), i.sources) for i in fw.golden.items()}


def table(rows: Mapping[tuple[str, str], int | None]) -> str:
    """A CSV of {(query, passage): grade}."""
    lines = [f"{query},{passage},{grade}" for (query, passage), grade in rows.items()]
    return "\n".join(["query,passage_id,grade", *lines]) + "\n"


def imported(fw: Flywheel, folder: Path, text: str) -> AddReport:
    """Import a CSV."""
    path = folder / "known.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return fw.golden.add(path)


def assert_same(root: Path, passages: list[Passage], path: Path, items: list[GoldenItem]) -> None:
    """A new index with the same passages that imports the file has these items."""
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        fw.add(passages)
        fw.golden.add(path)
        assert [(i.query, i.tenant, i.answers) for i in fw.golden.items()] == [
            (i.query, i.tenant, i.answers) for i in items
        ]
