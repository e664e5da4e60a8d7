"""One round of `swaps.py`: something changes in a folder, and a refresh makes a version of it.

What is true at the moment is in `Cells`, which other processes read without waiting.
"""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rag_flywheel import Flywheel, Passage
from rag_flywheel.bench.collection import find_collection
from rag_flywheel.bench.prepared import PreparedEncoder, read_prepared
from rag_flywheel.encoder import Encoder
from rag_flywheel.formats.beir import read_beir
from rag_flywheel.records import Vectors

_COMES, _GOES = 3, 6  # of ten rounds
N_MARKED, N_QUERIES = 20, 400
_GENERATION = re.compile(r"generation(\d+) ")


class Cells:
    """Whole numbers in a file that processes share; each is written by one of them.

    generation, extra and vote: `done` is what is surely true, `begun` what may be true already.
    """

    NAMES = ("generation_begun", "generation_done", "extra_begun", "extra_done", "vote_done")

    def __init__(self, path: Path, *, make: bool = False) -> None:
        if make:
            np.zeros(len(self.NAMES), dtype=np.int64).tofile(path)
        self._numbers = np.memmap(path, dtype=np.int64, mode="r+")

    def set(self, name: str, value: int) -> None:
        self._numbers[self.NAMES.index(name)] = value

    def get(self, name: str) -> int:
        return int(self._numbers[self.NAMES.index(name)])


@dataclass(frozen=True)
class Marked:
    """A collection: passages that stay, `base` of which are also kept in a copy that says its
    generation; a passage that comes and goes, and a question on it; queries, and what answers each."""

    passages: Sequence[Passage]
    base: Sequence[Passage]
    extra: Passage
    extra_query: str
    queries: Sequence[str]
    relevant: dict[str, set[str]]
    encoder: Encoder


class Ungenerated:
    """Encodes a text as it would be without the word that says its generation."""

    def __init__(self, made: PreparedEncoder) -> None:
        self._made = made
        self.name, self.revision, self.dim = made.name, made.revision, made.dim

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        return self._made.encode_queries(texts)

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        return self._made.encode_passages([_GENERATION.sub("", text) for text in texts])


def read_marked(name: str) -> Marked:
    """The collection of this name, which must have vectors beside it."""
    folder = find_collection(name)
    collection = read_beir(folder)
    made = read_prepared(folder, collection)
    if made is None:
        raise SystemExit(f"{folder} has no prepared vectors")
    split = collection.splits["train"]
    relevant = {split.queries[q]: set(split.qrels[q]) for q in split.queries if q in split.qrels}
    queries = list(dict.fromkeys(relevant))[:N_QUERIES]
    by_id = {p.id: p for p in collection.passages}
    based = list(dict.fromkeys(p for q in queries for p in sorted(relevant[q])))
    base = [by_id[p] for p in based[:N_MARKED]]
    extra = by_id[based[N_MARKED]]
    (extra_query, *_) = (q for q in queries if extra.id in relevant[q])
    stays = [p for p in collection.passages if p.id != extra.id]
    return Marked(stays, base, extra, extra_query, queries, relevant, Ungenerated(made))


def marked(data: Marked, generation: int) -> list[Passage]:
    """Copies of the base that say that they are of this generation."""
    return [
        Passage(f"marked {p.id}", f"generation{generation} {p.text}", p.title) for p in data.base
    ]


def generation_of(text: str) -> int | None:
    """What a marked passage says; None of another."""
    found = _GENERATION.match(text)
    return int(found[1]) if found else None


def known_answers(data: Marked) -> Iterator[tuple[str, set[str]]]:
    """Questions, and the ids that answer them, marked copies among them."""
    for query in data.queries:
        right = data.relevant[query]
        yield query, right | {f"marked {p}" for p in right}


def play(
    fw: Flywheel, root: Path, data: Marked, n: int, cells: Cells | None
) -> tuple[str, float, float]:
    """Round n: of ten, one edits every marked passage, one brings a passage, one takes it away, and
    the others vote; then a refresh. (Its version; when that went live, on time.time's clock; how
    long the refresh took.)"""

    def say(name: str, value: int) -> None:
        if cells is not None:
            cells.set(name, value)

    kind, number = n % 10, n // 10 + 1
    if kind == 0:
        say("generation_begun", number)
        fw.add(marked(data, number))
        say("generation_done", number)
    elif kind not in {_COMES, _GOES}:
        query = data.queries[0]
        shown = fw.retrieve(query)
        fw.feedback(shown.id, shown.hits[0].passage_id, "helpful", user_id=f"of round {n}")
        again = fw.retrieve(query, record=False)
        say("vote_done", max(v for hit in again.hits for v in hit.explanation.votes))
    else:
        coming = kind == _COMES
        times = 2 * number - coming  # odd: it is there
        say("extra_begun", times)
        if coming:
            fw.add([data.extra])
        else:
            fw.remove([data.extra.id])
        say("extra_done", times)
    began = time.monotonic()
    report = fw.refresh()
    assert report.outcome == "promoted", report
    assert report.version is not None
    seconds = time.monotonic() - began
    return report.version, (root / "CURRENT").stat().st_mtime_ns / 1e9, seconds
