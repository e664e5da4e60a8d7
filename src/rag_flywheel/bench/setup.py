"""Prepares a benchmark run: reads a collection with its splits, and indexes it with an encoder."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from rag_flywheel.bench.place import Place
from rag_flywheel.bench.prepared import FILE_NAME, read_prepared
from rag_flywheel.bench.protocol import Protocol, Traffic
from rag_flywheel.bench.stream import stream
from rag_flywheel.encoder import Encoder
from rag_flywheel.errors import InputError, counted
from rag_flywheel.flywheel import Flywheel
from rag_flywheel.formats.beir import Collection, Split, read_beir
from rag_flywheel.records import Progress
from rag_flywheel.serve.lookups import Lookups
from rag_flywheel.store.passages import normalised

_STREAM_SEED = 3
_HALVES_SEED = 5
TRAIN_AND_TEST = "splits train and test"
_DEV_SHARE = 5  # one train query in so many stands in for a dev split


@dataclass(frozen=True)
class Bench:
    """A collection ready to run, with its splits, encoder and index.

    parts: ids of the train queries of each cycle, in the order they are asked.
    base: the folder of the index without votes.
    lookups: a cache shared by the runs, whose passages are the same; it changes no answer.
    again, askers: of cycles-v2 alone: the train queries that are scored as questions asked again, and
        the number of the user who asks each of `parts`.
    place: where `base` and its copies are.
    """

    collection: Collection
    train: Split
    dev: Split
    test: Split
    split_note: str
    dev_note: str
    vectors_note: str
    parts: tuple[tuple[str, ...], ...]
    encoder: Encoder | None
    base: Path
    lookups: Lookups
    again: Split = field(default_factory=lambda: Split({}, {}))
    askers: tuple[tuple[int, ...], ...] = ()
    place: Place = field(default_factory=Place)

    @property
    def scored(self) -> Split:
        """The queries that are scored: the test queries, and those asked again."""
        test, again = self.test, self.again
        texts, qrels = {**test.queries, **again.queries}, {**test.qrels, **again.qrels}
        return Split(texts, qrels, test.own | again.own)

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
        folder = self.folder(name)
        self.place.copy(self.base, folder)
        try:
            with self.open(folder) as fw:
                yield fw
        finally:
            self.place.delete(folder)


def prepare(
    folder: Path,
    protocol: Protocol,
    scratch: Path,
    progress: Progress | None,
    place: Place | None = None,
) -> Bench:
    """Read a collection and index it below `scratch`; in cycles-v2, with its stream of questions.

    place: where the index is, None: in its folder alone.

    Raises InputError for what the collection lacks.
    """
    collection = read_beir(folder, lenient=protocol.lenient)
    rng = np.random.default_rng(protocol.seed)
    whole, test, split_note = _train_and_test(folder, collection, protocol.seed)
    order = rng.permutation(sorted(whole.queries)).tolist()
    if "dev" in collection.splits and collection.splits["dev"].queries:
        dev, dev_note = collection.splits["dev"], "split dev"
    else:
        held_out, order = order[: len(order) // _DEV_SHARE], order[len(order) // _DEV_SHARE :]
        dev, dev_note = only(whole, held_out), "20 % of the train queries, which cast no votes"
    order = order[: protocol.max_train]
    if len(order) < protocol.n_cycles:
        raise InputError(
            f"{folder} has {counted(len(order), 'train query', 'train queries')} to ask; expected at "
            f"least {protocol.n_cycles}, one a cycle: ask for fewer cycles"
        )
    most = protocol.max_test
    if most is not None and len(test.queries) > most:
        test = only(test, sorted(rng.permutation(sorted(test.queries))[:most].tolist()))
    encoder, place = read_prepared(folder, collection), place or Place()
    base = scratch / "base"
    with place.make(base, encoder) as fw:
        fw.add(collection.passages, progress=progress or False)
        fw.refresh()
        encoder_name = fw.status().encoder
    parts = np.array_split(np.array(order), protocol.n_cycles)
    prepared = f"prepared: {FILE_NAME}" if encoder else f"encoded: {encoder_name}"
    bench = Bench(
        collection,
        only(whole, order),
        dev,
        test,
        split_note,
        dev_note,
        prepared,
        tuple(tuple(part.tolist()) for part in parts),
        encoder,
        base,
        Lookups(sum(len(split.queries) for split in collection.splits.values())),
        place=place,
    )
    return bench if protocol.traffic is None else with_stream(bench, protocol, protocol.traffic)


def _train_and_test(folder: Path, collection: Collection, seed: int) -> tuple[Split, Split, str]:
    """The splits train and test, and what they are: where one is missing, the other is cut in two.

    Many published collections have judgments of test alone. Raises InputError when neither is there.
    """
    found = {name: collection.splits.get(name, Split({}, {})) for name in ("train", "test")}
    there = [name for name, split in found.items() if split.queries]
    if not there:
        raise InputError(
            f"{folder / 'qrels'} judges no query of train.tsv or test.tsv; expected train (asked and "
            "voted on), test (scored), and perhaps dev (chooses the weights of the rules compared with)"
        )
    if len(there) == 2:
        return found["train"], found["test"], TRAIN_AND_TEST
    (name,) = there
    whole = found[name]
    rng = np.random.default_rng([seed, _HALVES_SEED])
    order = rng.permutation(sorted(whole.queries)).tolist()
    half = len(order) // 2
    missing = "train" if name == "test" else "test"
    note = (
        f"no {missing} queries: half of those of {name}, by seed, are asked, and the others scored"
    )
    return only(whole, sorted(order[half:])), only(whole, sorted(order[:half])), note


def with_stream(bench: Bench, protocol: Protocol, traffic: Traffic) -> Bench:
    """The bench with a stream of questions in place of the train queries, each asked once.

    parts, askers: the question and the user of each asking, in order; questions come again.
    train: the questions of the stream alone, each once.
    again: the same, at most max_test of them by seed, which are scored as questions asked again.
    test: without questions that the stream has word for word.
    Raises InputError when fewer questions than cycles, or no test query, are left.
    """
    rng = np.random.default_rng([protocol.seed, _STREAM_SEED])
    askings = stream(bench.train, traffic, rng)
    if len(askings) < protocol.n_cycles:
        raise InputError(
            f"the stream of {bench.collection.name} has {counted(len(askings), 'question')}; expected "
            f"at least {protocol.n_cycles}, one a cycle"
        )
    train = only(bench.train, sorted({query for query, _ in askings}))
    words = {normalised(text) for text in train.queries.values()}
    other = [q for q, text in bench.test.queries.items() if normalised(text) not in words]
    if not other:
        raise InputError(
            f"every test query of {bench.collection.name} is a train query word for word; expected "
            "some in other words"
        )
    again = rng.permutation(list(train.queries))[: protocol.max_test].tolist()
    cuts = np.array_split(np.arange(len(askings)), protocol.n_cycles)
    return replace(
        bench,
        train=train,
        test=only(bench.test, sorted(other)),
        again=only(train, sorted(again)),
        parts=tuple(tuple(askings[i][0] for i in cut.tolist()) for cut in cuts),
        askers=tuple(tuple(askings[i][1] for i in cut.tolist()) for cut in cuts),
    )


def only(split: Split, queries: list[str]) -> Split:
    """The part of a split that has these queries."""
    texts = {q: split.queries[q] for q in queries}
    return Split(texts, {q: split.qrels[q] for q in queries}, split.own & texts.keys())


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file of a collection that a run reads, by name."""
    kinds = {".gz", ".jsonl", ".tsv", ".npz"}
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in kinds
    }
