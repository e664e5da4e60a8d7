"""A small collection in which votes on a question help its other phrasings."""

import json
from pathlib import Path

import numpy as np

from fakes import WordEncoder
from rag_flywheel.formats.beir import read_beir
from rag_flywheel.refresh.unrelated import UNRELATED
from rag_flywheel.store.passages import encoded_text

TOPICS, PHRASINGS = 24, 6


def write_collection(folder: Path) -> Path:
    """24 topics; each has an answer and a decoy that look alike to its 6 phrasings."""
    (folder / "qrels").mkdir(parents=True)
    corpus, queries, qrels = [], [], {"train": [], "test": []}
    for t in range(TOPICS):
        corpus.append({"_id": f"answer{t}", "title": "", "text": f"topic{t} fix{t} solution"})
        corpus.append({"_id": f"decoy{t}", "title": "", "text": f"topic{t} story{t} tale"})
        for n in range(PHRASINGS):
            queries.append({"_id": f"q{t}-{n}", "text": f"topic{t} problem{t} word{t}{n} please"})
            split = "test" if n == PHRASINGS - 1 else "train"
            qrels[split].append(f"q{t}-{n}\tanswer{t}\t1")
    queries += [{"_id": f"u{n}", "text": text} for n, text in enumerate(UNRELATED)]  # of a refresh
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    for split, lines in qrels.items():
        header = "query-id\tcorpus-id\tscore"
        (folder / "qrels" / f"{split}.tsv").write_text("\n".join([header, *lines]) + "\n")
    encoder = WordEncoder()
    passages = [encoded_text(p) for p in read_beir(folder).passages]
    np.savez(
        folder / "minilm.npz",
        passages=encoder.encode_passages(passages),
        queries=encoder.encode_queries([q["text"] for q in queries]),
    )
    return folder
