"""Measures retrieve and votes of an index in SQLite and of the same one on PostgreSQL, in turns.

    postgres.py --url postgresql://... --folder SCRATCH [--out FILE]

The server should lie on the same machine and store on the same disk as the folder. Vectors are given, so that
no model takes part. Times are medians of rounds; "processor" is what the asking process used, without the
server's part, which wall-clock times hold.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Flywheel, Passage, copy
from rag_flywheel.bench.machine import commit, machine
from rag_flywheel.formats.beir import read_beir
from rag_flywheel.records import Vectors

WRITERS, SECONDS, ROUNDS, VOTE_ROUNDS, K = 8, 8.0, 5, 3, 8
DIM = 384


class Hashed:
    """Vectors by the words of a text: the sum of a vector of chance for each."""

    name, revision, dim = "hashed-words", "1", DIM

    def __init__(self) -> None:
        self._words: dict[str, Vectors] = {}

    def _word(self, word: str) -> Vectors:
        if word not in self._words:
            seed = int.from_bytes(blake2b(word.encode(), digest_size=8).digest())
            self._words[word] = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
        return self._words[word]

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, 384), of unit length."""
        rows = np.ones((len(texts), DIM), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                row += self._word(word)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    encode_passages = encode_queries


def opened(place: str) -> Flywheel:
    """The index of a folder."""
    return Flywheel.open(place, encoder=Hashed())


def retrieved(
    indexes: Mapping[str, Flywheel], queries: Sequence[str], **how: Any
) -> dict[str, tuple[list[float], float]]:
    """For each index (milliseconds of each query, processor milliseconds of this process in all), each query
    asked of one index after the other, for the first time."""
    times: dict[str, list[float]] = {store: [] for store in indexes}
    used = dict.fromkeys(indexes, 0.0)
    for fw in indexes.values():
        fw.lookups.clear()
    for n, query in enumerate(queries):
        order = list(indexes.items())
        for store, fw in order if n % 2 else reversed(order):
            used_before, began = time.process_time(), time.perf_counter()
            fw.retrieve(query, k=K, **how)
            times[store].append((time.perf_counter() - began) * 1e3)
            used[store] += (time.process_time() - used_before) * 1e3
    return {store: (times[store], used[store]) for store in indexes}


def cast(place: str, many: int, begin: Any, out: Any, name: int) -> None:
    """One writer: votes for some seconds, `many` in one call; puts how many, and the processor seconds that
    it took, into `out`."""
    with opened(place) as fw:
        given = fw.retrieve(f"writer {name}", k=K)
        hits = [hit.passage_id for hit in given.hits]
        begin.wait()
        n, until, used_before = 0, time.monotonic() + SECONDS, time.process_time()
        while time.monotonic() < until:
            if many == 1:
                fw.feedback(given.id, hits[n % K], "helpful", user_id=f"{name}-{n}")
            else:
                fw.feedback_many(
                    [vote(given.id, hits[i % K], f"{name}-{n}-{i}") for i in range(many)]
                )
            n += many
        out.put((n, time.process_time() - used_before))


def vote(retrieval: str | None, passage: str, user: str) -> Any:
    """A vote on a hit."""
    from rag_flywheel import Vote

    return Vote(retrieval_id=retrieval, passage_id=passage, verdict="helpful", user_id=user)


def votes_a_second(place: str, many: int) -> tuple[float, float]:
    """(votes of eight processes in a second, each durable when the call returns; processor milliseconds of
    the writers for each)."""
    context = multiprocessing.get_context("spawn")
    begin, out = context.Barrier(WRITERS), context.Queue()
    writers = [
        context.Process(target=cast, args=(place, many, begin, out, i)) for i in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    counts = [out.get(timeout=300) for _ in writers]
    for writer in writers:
        writer.join()
    total = sum(n for n, _ in counts)
    return total / SECONDS, sum(used for _, used in counts) / total * 1e3


def medians(rounds: Sequence[Sequence[float]]) -> dict[str, float]:
    """The median of the rounds' p50 and p95."""
    return {
        f"p{p}": round(statistics.median(float(np.percentile(each, p)) for each in rounds), 3)
        for p in (50, 95)
    }


def measured(folder: Path, url: str, collection: str, n_queries: int) -> dict[str, Any]:
    """All figures."""
    data = read_beir(Path(collection))
    passages = [Passage(p.id, p.text, p.title) for p in data.passages][:10_000]
    queries = list(data.splits["test"].queries.values())[:n_queries]
    lite, server = folder / "lite", folder / "server"
    with opened(str(lite)) as fw:
        fw.add(passages)
        fw.refresh()
    copy(lite, url, cache=server)
    places = {"sqlite": str(lite), "postgresql": str(server)}
    found: dict[str, Any] = {"n_passages": len(passages), "n_queries": len(queries), "k": K}
    calls: dict[str, dict[str, Any]] = {
        "retrieve, record=False": {"record": False},
        "retrieve, recorded": {},
        "retrieve, recorded, of a named user": {"user_id": "ann"},
    }
    with opened(places["sqlite"]) as one, opened(places["postgresql"]) as other:
        indexes = {"sqlite": one, "postgresql": other}
        for name, how in calls.items():
            retrieved(indexes, queries, **how)
            rounds = [retrieved(indexes, queries, **how) for _ in range(ROUNDS)]
            found[name] = {
                store: medians([each[store][0] for each in rounds])
                | {
                    "processor": round(
                        statistics.median(r[store][1] for r in rounds) / n_queries, 3
                    )
                }
                for store in places
            }
    for many in (1, 10):
        cast_: dict[str, list[tuple[float, float]]] = {store: [] for store in places}
        for _ in range(VOTE_ROUNDS):
            for store, place in places.items():
                cast_[store].append(votes_a_second(place, many))
        found[f"votes a second, {many} a call, {WRITERS} processes"] = {
            store: {
                "votes": round(statistics.median(n for n, _ in each)),
                "processor ms a vote": round(statistics.median(used for _, used in each), 3),
            }
            for store, each in cast_.items()
        }
    return found


def main(arguments: Sequence[str]) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--collection", required=True)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    found = measured(options.folder, options.url, options.collection, options.queries)
    found |= {"machine": machine("numpy", "psycopg"), "commit": commit()}
    text = json.dumps(found, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
