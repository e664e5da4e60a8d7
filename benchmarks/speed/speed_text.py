"""What a call adds to encoding its query with the real model: ours, and the floor of raw libraries;
beside the encoding by sentence-transformers itself.

    python benchmarks/speed/speed_text.py --index FOLDER --data FOLDER

The folders are those that `speed_peers.py` makes of a collection: WORK/COLLECTION-N/rag-flywheel and
.../data. Queries are encoded by all-MiniLM-L6-v2, on one thread; what is searched with is the vector
that the index knows for the query, which takes as long.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sentence_transformers import SentenceTransformer

from rag_flywheel import Flywheel
from rag_flywheel.bench.machine import commit, machine
from rag_flywheel.encode.model_folder import BUNDLED_NAME, find_model
from rag_flywheel.encode.sentence_encoder import SentenceEncoder
from rag_flywheel.records import Vectors
from speed import LIBRARIES, Bench, Figures, K, live
from speed_data import SEED, Data, Stored
from speed_floor import Floor
from speed_store import Given
from speed_times import Times, percentiles, timed


class Encoding(Stored):
    """Encodes each query with a real model, and returns the stored vector."""

    def __init__(self, model: SentenceEncoder, vectors: dict[str, Vectors]) -> None:
        super().__init__(vectors)
        self.model = model

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """float32 (n, dim), unit rows."""
        self.model.encode_queries(texts)
        return super().encode_queries(texts)


def measured(index: Path, given: Given, rounds: int, n: int) -> Figures:
    """Encoding alone, and with the floor and with ours behind it, in turn, for n queries."""
    step = max(1, len(given.queries) // n)
    queries, vectors = given.queries[::step], given.query_vectors[::step]
    model = SentenceEncoder.load(BUNDLED_NAME)
    encoder = Encoding(model, dict(zip(queries, vectors, strict=True)))
    library = SentenceTransformer(str(find_model(BUNDLED_NAME)), device="cpu")
    with Flywheel.open(index, encoder=encoder) as fw:
        floor = Floor(live(Bench(fw, index, Data([], queries, encoder), rounds)), dim=encoder.dim)

        def with_floor(i: int) -> None:
            floor(queries[i], encoder.encode_queries([queries[i]])[0])

        calls: dict[str, Callable[[int], object]] = {
            "library_encoding": lambda i: library.encode(queries[i], show_progress_bar=False),
            "encoding": lambda i: model.encode_queries([queries[i]]),
            "encoding_and_floor": with_floor,
            "whole_call": lambda i: fw.retrieve(queries[i], K, record=False),
            "whole_call_recorded": lambda i: fw.retrieve(queries[i], K),
        }
        spent: dict[str, list[Times]] = {name: [] for name in calls}
        for turn in range(rounds + 1):
            for name, call in calls.items():
                fw.lookups.clear()
                one = timed(call, len(queries))
                if turn:  # the first round warms up
                    spent[name].append(one)
        n_passages = fw.status().n_passages
    rows = {name: percentiles(each) for name, each in spent.items()}
    alone = rows["encoding"]["cpu_p50_ms"]
    whole = {name: row["cpu_p50_ms"] for name, row in rows.items() if "whole" in name}
    added = {name: round(ms / alone - 1.0, 3) for name, ms in whole.items()}
    of_library = rows["library_encoding"]["cpu_p50_ms"]
    return {
        "n_passages": n_passages,
        "n_queries": len(queries),
        "rows": rows,
        "added": added,
        "added_to_library": {name: round(ms / of_library - 1.0, 3) for name, ms in whole.items()},
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=100, help="so many, evenly taken")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed_text.json"))
    asked = parser.parse_args()
    began = time.perf_counter()
    found: Figures = {"commit": commit(), "seed": SEED, "k": K, "rounds": asked.rounds}
    found |= {"model": BUNDLED_NAME, "machine": machine(*LIBRARIES)}
    found |= measured(asked.index, Given(asked.data), asked.rounds, asked.queries)
    found["seconds"] = round(time.perf_counter() - began, 1)
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
