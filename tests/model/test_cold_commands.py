"""A command for one query imports neither torch nor what trains models, which takes seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rag_flywheel import Flywheel, Passage
from rag_flywheel.encode.bert_encoder import BertEncoder
from rag_flywheel.encode.make import make_encoder
from rag_flywheel.encode.model_folder import model_folder
from rag_flywheel.encode.numpy_bert import NumpyBert
from rag_flywheel.encode.plain_model import read_plain_model
from rag_flywheel.encode.sentence_encoder import SentenceEncoder

pytestmark = pytest.mark.model
RUN = (
    "import sys\nfrom rag_flywheel.cli import main\ntry:\n    main()\nfinally:\n"
    "    print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)\n"
)
TRAINING = {"transformers", "sentence_transformers", "sklearn", "sympy", "datasets", "accelerate"}
TEXTS = [
    "how do I roll back",
    "wer darf abstimmen?",
    "",
    "字 🙂 [SEP] <b>",
    "long words " * 400,
    "Ж",
]


@pytest.fixture(scope="module")
def kb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cold") / "kb"
    with Flywheel.open(root) as fw:
        fw.add([Passage("hours", "The desk is open from nine."), Passage("cats", "Cats sleep.")])
        fw.refresh()
    return root


def run(*arguments: str) -> tuple[str, set[str]]:
    """What a command prints, and the packages that it imports."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return done.stdout, set(done.stderr.strip().rpartition("\n")[2].split())


def test_retrieve_imports_no_torch_and_no_training_library(kb: Path) -> None:
    printed, imported = run(
        "retrieve", "when is the desk open", "-k", "1", "--json", "--index", str(kb)
    )
    assert json.loads(printed)["hits"][0]["passage_id"] == "hours"
    assert {"tokenizers", "safetensors", "faiss"} <= imported
    assert imported & (TRAINING | {"torch"}) == set()


@pytest.mark.parametrize("command", ["status", "versions", "log"])
def test_commands_without_a_query_import_no_model(kb: Path, command: str) -> None:
    _, imported = run(command, "--index", str(kb))
    assert "rag_flywheel" in imported
    assert imported & (TRAINING | {"torch", "tokenizers", "faiss", "scipy"}) == set()


def test_the_default_model_gives_the_librarys_vectors_under_its_revision() -> None:
    ours = make_encoder("sentence-transformers:all-MiniLM-L6-v2")
    library = SentenceEncoder.load("all-MiniLM-L6-v2")
    assert isinstance(ours, BertEncoder)
    assert (ours.name, ours.revision, ours.dim) == (library.name, library.revision, library.dim)
    np.testing.assert_array_equal(ours.encode_queries(TEXTS), library.encode_queries(TEXTS))
    np.testing.assert_array_equal(ours.encode_passages(TEXTS), library.encode_passages(TEXTS))
    assert ours.count_tokens(TEXTS) == library.count_tokens(TEXTS)


def test_what_numpy_computes_of_the_default_model_is_what_the_library_does_in_float32() -> None:
    plain = read_plain_model(model_folder("all-MiniLM-L6-v2"))
    assert plain is not None
    numpy_bert = NumpyBert(plain.shape, plain.weights, plain.tokenizer, plain.max_tokens)
    found = numpy_bert.encode(TEXTS)
    library = SentenceEncoder.load("all-MiniLM-L6-v2")
    exact = library.model.encode(TEXTS, normalize_embeddings=True)
    assert np.abs(found - exact).max() <= 1e-6
    assert (found * exact).sum(axis=1).min() >= 0.9999999
