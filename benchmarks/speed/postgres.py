"""Measures retrieve and votes of an index in SQLite and of the same one on PostgreSQL, in turns.

    postgres.py --url postgresql://... --folder SCRATCH [--out FILE]

The server should lie on the same machine and store on the same disk as the folder. Vectors are given, so that
no model takes part.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Flywheel, Passage, copy
from rag_flywheel.bench.machine import commit, machine
from rag_flywheel.formats.beir import read_beir
from rag_flywheel.records import Vectors

WRITERS, SECONDS, ROUNDS, K = 8, 8.0, 5, 8
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


def retrieve_ms(fw: Flywheel, queries: Sequence[str], *, record: bool) -> list[float]:
    """Milliseconds of each query, asked for the first time."""
    fw.lookups.clear()
    times = []
    for query in queries:
        began = time.perf_counter()
        fw.retrieve(query, k=K, record=record)
        times.append((time.perf_counter() - began) * 1e3)
    return times


def cast(place: str, many: int, begin: Any, out: Any, name: int) -> None:
    """One writer: votes for some seconds, `many` in one call; puts how many into `out`."""
    with opened(place) as fw:
        given = fw.retrieve(f"writer {name}", k=K)
        hits = [hit.passage_id for hit in given.hits]
        begin.wait()
        n, until = 0, time.monotonic() + SECONDS
        while time.monotonic() < until:
            if many == 1:
                fw.feedback(given.id, hits[n % K], "helpful", user_id=f"{name}-{n}")
            else:
                fw.feedback_many(
                    [vote(given.id, hits[i % K], f"{name}-{n}-{i}") for i in range(many)]
                )
            n += many
        out.put(n)


def vote(retrieval: str | None, passage: str, user: str) -> Any:
    """A vote on a hit."""
    from rag_flywheel import Vote

    return Vote(retrieval_id=retrieval, passage_id=passage, verdict="helpful", user_id=user)


def votes_a_second(place: str, many: int) -> float:
    """Votes of eight processes in a second, each durable when the call returns."""
    context = multiprocessing.get_context("spawn")
    begin, out = context.Barrier(WRITERS), context.Queue()
    writers = [
        context.Process(target=cast, args=(place, many, begin, out, i)) for i in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    total = sum(int(out.get(timeout=300)) for _ in writers)
    for writer in writers:
        writer.join()
    return total / SECONDS


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
    calls: dict[str, Callable[[Flywheel], list[float]]] = {
        "retrieve, record=False": lambda fw: retrieve_ms(fw, queries, record=False),
        "retrieve, recorded": lambda fw: retrieve_ms(fw, queries, record=True),
    }
    for name, call in calls.items():
        rounds: dict[str, list[list[float]]] = {store: [] for store in places}
        opened_ = {store: opened(place) for store, place in places.items()}
        for fw in opened_.values():
            call(fw)
        for _ in range(ROUNDS):
            for store, fw in opened_.items():
                rounds[store].append(call(fw))
        for fw in opened_.values():
            fw.close()
        found[name] = {store: medians(each) for store, each in rounds.items()}
    for many in (1, 10):
        found[f"votes a second, {many} a call, {WRITERS} processes"] = {
            store: round(votes_a_second(place, many)) for store, place in places.items()
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
