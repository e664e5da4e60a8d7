"""The log of another tool, of which questions wait for a refresh to embed them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fakes import WordEncoder
from rag_flywheel import Flywheel, ImportedHit, ImportedRetrieval, ImportedVote, Passage
from rag_flywheel.capture.question_vectors import MOST_AT_ONCE
from rag_flywheel.store.embedding import MOST_WHILE_ANSWERING

N_WAITING = MOST_WHILE_ANSWERING + 100
N = MOST_AT_ONCE + N_WAITING  # questions in the log
DAY = 1_790_000_000.0
PASSAGES = [Passage(f"p{i}", f"page {i} on topic{i % 7} and thing{i}") for i in range(40)]


def question(i: int, of: str = "") -> str:
    """The words of a question; of: who asks, in words of their own."""
    return f"alpha{of}{i} beta{of}{i} gamma{of}{i} delta{of}{i}"


def near(i: int, of: str = "") -> str:
    """A question of other words that is like one of the log."""
    return f"alpha{of}{i} beta{of}{i} gamma{of}{i} epsilon{of}{i}"


def helped(i: int) -> str:
    """The passage that the vote on a question is on."""
    return f"p{(i + 2) % 40}"


def asked(i: int) -> ImportedRetrieval:
    """The retrieval of a question."""
    hits = [ImportedHit(f"p{(i + k) % 40}") for k in range(3)]
    return ImportedRetrieval(f"r{i}", question(i), hits, at=DAY + i, user_id=f"user{i % 90}")


def voted(i: int, verdict: Any = "helpful") -> ImportedVote:
    """The vote on it."""
    user = f"user{i % 90}"
    return ImportedVote(f"v{i}{verdict}", f"r{i}", verdict, helped(i), user_id=user, at=DAY + i)


def log_of(numbers: Sequence[int]) -> list[ImportedRetrieval | ImportedVote]:
    """The retrievals of some questions, and the votes on them."""
    return [*map(asked, numbers), *map(voted, numbers)]


def opened(path: Path, encoder: WordEncoder | None = None, **more: Any) -> Flywheel:
    """The index at a path."""
    return Flywheel.open(path, encoder=encoder or WordEncoder(), **more)


def imported(path: Path) -> Path:
    """An index into which the log came, with questions that wait."""
    with opened(path) as fw:
        fw.add(PASSAGES)
        assert fw.import_votes(log_of(range(N))).waiting == N_WAITING
    return path


def files_of(path: Path) -> dict[str, bytes]:
    """The files of the newest version, without that of its id and time."""
    folder = max((path / "versions").iterdir())
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "manifest.json")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}
