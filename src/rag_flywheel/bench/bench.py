"""Runs a protocol on collections; the result records all that is needed to repeat it."""

import dataclasses
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from rag_flywheel.bench.compare import compare
from rag_flywheel.bench.compare_stream import compare_stream
from rag_flywheel.bench.cycles import SHOWN
from rag_flywheel.bench.machine import environment
from rag_flywheel.bench.measures import all_means
from rag_flywheel.bench.place import Place
from rag_flywheel.bench.protocol import RESULT_FORMAT, CycledRun, Protocol
from rag_flywheel.bench.replay import replay
from rag_flywheel.bench.runs import run_fixed, run_none, run_random, run_votes, tossed
from rag_flywheel.bench.setup import TRAIN_AND_TEST, Bench, hashes, prepare
from rag_flywheel.bench.stream import need_of
from rag_flywheel.bench.users import Users
from rag_flywheel.config import DEFAULT_ENCODER
from rag_flywheel.encode.make import make_encoder
from rag_flywheel.errors import counted
from rag_flywheel.records import Progress

T = TypeVar("T")


def run_bench(
    folders: Sequence[Path],
    protocol: Protocol,
    progress: Progress | None = None,
    place: Place | None = None,
) -> dict[str, Any]:
    """Run the protocol on each collection; the result is plain data, ready for JSON.

    place: where the indexes are, None: in folders below the one for temporary files.
    Two runs with the same seed on one thread give the same result, `environment` and the seconds
    of each collection aside. Raises InputError.
    """
    with (
        tempfile.TemporaryDirectory() as scratch,
        closing(Series(folders, Path(scratch), progress, place)) as series,
    ):
        return series.run(protocol)


class Series:
    """Runs on the same collections with protocols that differ in their users alone.

    What does not depend on the users is computed once: the index without votes, the controls, and
    the replay of ratings. Each result equals that of a separate `run_bench`, except for its seconds.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        scratch: Path,
        progress: Progress | None = None,
        place: Place | None = None,
    ) -> None:
        self._folders = folders
        self._place = place or Place()
        self._scratch = scratch
        self._progress = progress
        self._alike: Protocol | None = None
        self._cache: dict[tuple[str, Path, Protocol], Any] = {}

    def close(self) -> None:
        """Delete what it has made on servers; folders are left to whoever gave `scratch`."""
        for made in self._cache.values():
            if isinstance(made, Bench) and self._place != Place():
                self._place.delete_all(made.base)

    def run(self, protocol: Protocol) -> dict[str, Any]:
        """One result, as by `run_bench`. Raises ValueError when protocols differ in more than users."""
        began, started = time.monotonic(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        alike = dataclasses.replace(protocol, users=Users())
        if self._alike not in (None, alike):
            raise ValueError(f"{alike} is not {self._alike}, which the runs before it had")
        self._alike = alike
        collections = [self._collection(folder, protocol) for folder in self._folders]
        return {
            "format": RESULT_FORMAT,
            "protocol": _settings(protocol),
            "environment": {
                **environment(started, time.monotonic() - began),
                **self._place.names(),
            },
            "collections": collections,
        }

    def _once(self, name: str, folder: Path, protocol: Protocol, compute: Callable[[], T]) -> T:
        """The result of `compute`, cached by name, folder and protocol."""
        key = name, folder, protocol
        if key not in self._cache:
            self._cache[key] = compute()
        cached: T = self._cache[key]
        return cached

    def _collection(self, folder: Path, protocol: Protocol) -> dict[str, Any]:
        began = time.monotonic()
        progress = self._progress
        nobody, tossing = dataclasses.replace(protocol, users=Users()), tossed(protocol)
        scratch = Path(tempfile.mkdtemp(dir=self._scratch))
        bench = self._once(
            "bench", folder, nobody, lambda: prepare(folder, nobody, scratch, progress, self._place)
        )
        fixed, cast = run_fixed(bench, protocol, progress)
        runs = [
            run_votes(bench, protocol, progress),
            fixed,
            self._once("random", folder, tossing, lambda: run_random(bench, tossing, progress)),
            self._once("none", folder, nobody, lambda: run_none(bench, nobody, progress)),
        ]
        replayed = self._once("replay", folder, nobody, lambda: replay(folder, bench, nobody))
        encoder = bench.encoder or make_encoder(DEFAULT_ENCODER)
        comparison = compare if protocol.traffic is None else compare_stream
        return {
            "name": bench.collection.name,
            "n_passages": len(bench.collection.passages),
            "n_train": len(bench.train.queries),
            "n_voted": len({vote.query for vote in cast}),
            "n_dev": len(bench.dev.queries),
            "n_test": len(bench.test.queries),
            "sha256": hashes(folder),
            "lines": [dataclasses.asdict(lines) for lines in bench.collection.lines],
            "left_out": _left_out(bench),
            "splits": bench.split_note,
            "vectors": bench.vectors_note,
            "dev": bench.dev_note,
            **_stream(bench),
            "runs": [_run(bench, run) for run in runs],
            **comparison(bench, protocol, encoder, runs, cast),
            "replay": replayed,
            "seconds": round(time.monotonic() - began, 1),
        }


def _left_out(bench: Bench) -> list[str]:
    """Sentences on what of a collection is not measured, or not as it is written."""
    found = [sentence for lines in bench.collection.lines for sentence in lines.sentences]
    own = frozenset[str]().union(*(split.own for split in bench.collection.splits.values()))
    if own:
        several = counted(len(own), "query has", "queries have")
        found.append(f"{several} the id of a passage, which is not ranked for it")
    unused = sorted(set(bench.collection.splits) - {"train", "dev", "test"})
    if unused:
        found.append(f"splits not used: {', '.join(unused)}")
    if bench.split_note != TRAIN_AND_TEST:
        found.append(bench.split_note)
    return found


def write_result(result: Mapping[str, Any], path: Path) -> None:
    """Write a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _settings(protocol: Protocol) -> dict[str, Any]:
    settings = {"name": protocol.name, "k": SHOWN, **dataclasses.asdict(protocol)}
    if protocol.traffic is None:
        del settings["traffic"]
    return settings


def _stream(bench: Bench) -> dict[str, Any]:
    """The counts of the stream, of cycles-v2 alone."""
    if not bench.askers:
        return {}
    times = Counter(query for part in bench.parts for query in part)
    needs = {need_of(bench.train, query) for query in times}
    return {
        "stream": {
            "n_asked": times.total(),
            "n_questions": len(times),
            "n_needs": len(needs),
            "most_asked": max(times.values()),
            "n_users": len({user for part in bench.askers for user in part}),
            "n_asked_again": len(bench.again.queries),
        }
    }


def _run(bench: Bench, run: CycledRun) -> dict[str, Any]:
    qrels = bench.test.qrels
    cycles = [
        {
            "number": i,
            "n_votes": n_votes,
            "values": all_means(qrels, {q: found[q] for q in qrels}),
        }
        for i, (n_votes, found) in enumerate(run.cycles)
    ]
    about = {"name": run.name, "what": run.what}
    shown = {**about, "cycles": cycles, "exposure_gini": list(run.exposure_gini)}
    if bench.askers:
        shown["refreshes"] = [dataclasses.asdict(refresh) for refresh in run.refreshes]
    return shown
