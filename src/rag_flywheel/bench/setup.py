"""Prepares a benchmark run: reads a collection with its splits, and indexes it with an encoder."""

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rag_flywheel.bench.prepared import FILE_NAME, read_prepared
from rag_flywheel.bench.protocol import Protocol
from rag_flywheel.encoder import Encoder
from rag_flywheel.errors import InputError
from rag_flywheel.flywheel import Flywheel
from rag_flywheel.formats.beir import Collection, Split, read_beir
from rag_flywheel.records import Progress
from rag_flywheel.serve.lookups import Lookups

_DEV_SHARE = 5  # one train query in so many stands in for a dev split


@dataclass(frozen=True)
class Bench:
    """A collection ready to run, with its splits, encoder and index.

    parts: ids of the train queries of each cycle, in the order they are asked.
    base: the folder of the index without votes.
    lookups: a cache shared by the runs, whose passages are the same; it changes no answer.
    again, askers: of cycles-v2 alone: the train queries that are scored as questions asked again, and
        the number of the user who asks each of `parts`.
    """

    collection: Collection
    train: Split
    dev: Split
    test: Split
    dev_note: str
    vectors_note: str
    parts: tuple[tuple[str, ...], ...]
    encoder: Encoder | None
    base: Path
    lookups: Lookups
    again: Split = field(default_factory=lambda: Split({}, {}))
    askers: tuple[tuple[int, ...], ...] = ()

    @property
    def scored(self) -> Split:
        """The queries that are scored: the test queries, and those asked again."""
        return Split(
            {**self.test.queries, **self.again.queries}, {**self.test.qrels, **self.again.qrels}
        )

    def open(self, folder: Path) -> Flywheel:
        """Open an index folder that was copied from `base`."""
        fw = Flywheel.open(folder, encoder=self.encoder)
        fw.lookups = self.lookups
        return fw

    def folder(self, name: str) -> Path:
        """Where the copy of this name is."""
        return self.base.parent / name

    @contextmanager
    def copy(self, name: str) -> Iterator[Flywheel]:
        """A copy of `base` to run on, deleted at the end."""
        folder = Path(shutil.copytree(self.base, self.folder(name)))
        with self.open(folder) as fw:
            yield fw
        shutil.rmtree(folder)


def prepare(folder: Path, protocol: Protocol, scratch: Path, progress: Progress | None) -> Bench:
    """Read a collection and index it below `scratch`. Raises InputError for what it lacks."""
    collection = read_beir(folder)
    for name in ("train", "test"):
        if name not in collection.splits:
            raise InputError(
                f"{folder / 'qrels'} has no {name}.tsv; expected train (asked and voted on), test "
                "(scored), and perhaps dev (chooses the weights of the rules compared with)"
            )
    rng = np.random.default_rng(protocol.seed)
    whole = collection.splits["train"]
    order = rng.permutation(sorted(whole.queries)).tolist()
    if "dev" in collection.splits:
        dev, dev_note = collection.splits["dev"], "split dev"
    else:
        held_out, order = order[: len(order) // _DEV_SHARE], order[len(order) // _DEV_SHARE :]
        dev, dev_note = only(whole, held_out), "20 % of the train queries, which cast no votes"
    order = order[: protocol.max_train]
    if len(order) < protocol.n_cycles:
        raise InputError(
            f"{folder} has {len(order)} train queries to ask; expected at least "
            f"{protocol.n_cycles}, one a cycle"
        )
    test, most = collection.splits["test"], protocol.max_test
    if most is not None and len(test.queries) > most:
        test = only(test, sorted(rng.permutation(sorted(test.queries))[:most].tolist()))
    encoder = read_prepared(folder, collection)
    base = scratch / "base"
    with Flywheel.open(base, encoder=encoder) as fw:
        fw.add(collection.passages, progress=progress or False)
        fw.refresh()
        encoder_name = fw.status().encoder
    parts = np.array_split(np.array(order), protocol.n_cycles)
    prepared = f"prepared: {FILE_NAME}" if encoder else f"encoded: {encoder_name}"
    return Bench(
        collection,
        only(whole, order),
        dev,
        test,
        dev_note,
        prepared,
        tuple(tuple(part.tolist()) for part in parts),
        encoder,
        base,
        Lookups(sum(len(split.queries) for split in collection.splits.values())),
    )


def only(split: Split, queries: list[str]) -> Split:
    """The part of a split that has these queries."""
    return Split({q: split.queries[q] for q in queries}, {q: split.qrels[q] for q in queries})


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file of a collection that a run reads, by name."""
    kinds = {".gz", ".jsonl", ".tsv", ".npz"}
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in kinds
    }
