"""What one command of the shell costs, from the start of its process to the end: wall and processor time.

    python benchmarks/speed/speed_cold.py --out benchmarks/results/speed_cold.json

The index holds the documentation of this project, with the default model. Each round runs every command
once, in turns: `retrieve` as it is, by torch, and with the model left to sentence-transformers; `status`; and
imports by themselves, below which no command that needs them can go.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from rag_flywheel import Flywheel
from rag_flywheel.bench.machine import commit, machine
from rag_flywheel.encode.bert_encoder import BertEncoder
from rag_flywheel.encode.model_folder import model_folder
from rag_flywheel.encode.numpy_bert import NumpyBert
from rag_flywheel.encode.plain_model import read_plain_model
from rag_flywheel.encode.sentence_encoder import SentenceEncoder

ROOT = Path(__file__).parents[2]
LIBRARIES = ("torch", "transformers", "sentence-transformers", "tokenizers", "safetensors", "numpy")
QUERIES = ["how do I roll back", "wer darf abstimmen?", "", "字 🙂 [SEP] <b>", "long words " * 400]
_MODEL = "all-MiniLM-L6-v2"
_RUN = "import sys; from rag_flywheel.cli import main; main()"
_BY_LIBRARY = (
    "from rag_flywheel.encode.bert_encoder import BertEncoder; "
    "BertEncoder.of_folder = lambda *args, **names: None; "
)


def commands(index: Path) -> dict[str, list[str]]:
    """What is timed, by its name: arguments of the interpreter."""
    retrieve = ["retrieve", QUERIES[0], "--index", str(index)]
    return {
        "retrieve": ["-c", _RUN, *retrieve],
        "retrieve_by_torch": ["-c", "import torch; " + _RUN, *retrieve],
        "retrieve_by_library": ["-c", _BY_LIBRARY + _RUN, *retrieve],
        "status": ["-c", _RUN, "status", "--index", str(index)],
        "import_torch": ["-c", "import torch"],
        "import_torch_export": ["-c", "import torch.export"],
        "import_sentence_transformers": ["-c", "import sentence_transformers"],
    }


def seconds(arguments: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """(wall, processor) time of a new interpreter."""
    began, before = time.perf_counter(), os.times()
    subprocess.run(
        [sys.executable, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL
    )
    wall, after = time.perf_counter() - began, os.times()
    busy = after.children_user + after.children_system
    return wall, busy - before.children_user - before.children_system


def as_the_library() -> dict[str, Any]:
    """How far the vectors of queries are from those of the library's encoder, and whether revisions agree."""
    folder = model_folder(_MODEL)
    ours, library = BertEncoder.of_folder(folder, name=_MODEL), SentenceEncoder.load(_MODEL)
    assert ours is not None
    plain = read_plain_model(folder)
    assert plain is not None
    numpy_bert = NumpyBert(plain.shape, plain.weights, plain.tokenizer, plain.max_tokens)
    first = numpy_bert.encode(QUERIES)  # as a command of the shell computes them
    found = ours.encode_queries(QUERIES)
    exact = library.model.encode(QUERIES, normalize_embeddings=True)
    same = library.encode_queries(QUERIES)
    return {
        "least_cosine_to_our_encoder_by_the_library": round(float((found * same).sum(1).min()), 7),
        "most_difference": float(np.abs(found - same).max()),
        "least_cosine_to_the_library_in_float32": round(float((found * exact).sum(1).min()), 5),
        "numpy_least_cosine_to_the_library_in_float32": round(
            float((first * exact).sum(1).min()), 7
        ),
        "numpy_most_difference_to_the_library_in_float32": float(np.abs(first - exact).max()),
        "numpy_least_cosine_to_our_encoder_by_torch": round(float((first * found).sum(1).min()), 5),
        "same_revision": ours.revision == library.revision,
        "bf16": ours.bf16,
    }


def main() -> None:
    """Build the index, measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "flywheel-cold")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    index = asked.work / "kb"
    new = not index.exists()
    with Flywheel.open(index) as fw:
        if new:
            fw.add_files(ROOT / "docs", root=ROOT)
            fw.refresh()
        n_passages = fw.status().n_passages
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(asked.work / "compiled")}
    environment = {**os.environ, **compiled}  # as pip installs it
    names = commands(index)
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for turn in range(asked.rounds + 1):  # the first compiles and reads from the disk
        print(f"{time.strftime('%H:%M:%S')} round {turn}", file=sys.stderr, flush=True)
        for name, arguments in names.items():
            found = seconds(arguments, environment)
            spent[name] += [found] if turn else []
    result = {
        "commit": commit(),
        "machine": machine(*LIBRARIES),
        "n_passages": n_passages,
        "rounds": asked.rounds,
        "commands": {
            name: {
                "wall_s": round(statistics.median(wall for wall, _ in times), 2),
                "cpu_s": round(statistics.median(busy for _, busy in times), 2),
                "least_wall_s": round(min(wall for wall, _ in times), 2),
            }
            for name, times in spent.items()
        },
        "as_the_library": as_the_library(),
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
