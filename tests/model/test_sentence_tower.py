"""The part of the real model that votes can teach: what is shared, what changes, what does not."""

import json
import threading
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from rag_flywheel.encode.sentence_encoder import SentenceEncoder
from rag_flywheel.encode.tower import Tower
from rag_flywheel.encode.tuned import TunedQueries
from rag_flywheel.errors import CorruptFileError
from rag_flywheel.improve import teach as teaching
from rag_flywheel.improve.examples import Examples
from rag_flywheel.improve.teach import Lessons, teach
from rag_flywheel.rank.features import FEATURES
from rag_flywheel.records import QueryKey

pytestmark = pytest.mark.model
N_TEXTS = 300


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder.load("all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def exact(encoder: SentenceEncoder) -> SentenceEncoder:
    """The same weights in float32 arithmetic on every processor."""
    name, revision = encoder.name, encoder.revision
    return SentenceEncoder(encoder.model, name=name, revision=revision, bf16=False)


@pytest.fixture(scope="module")
def needs() -> list[list[str]]:
    """Phrasings of the same need, by need."""
    text = resources.files("rag_flywheel.bench").joinpath("stdlib_needs.jsonl").read_text()
    return [json.loads(line)["phrasings"] for line in text.splitlines()]


@pytest.fixture(scope="module")
def lessons(encoder: SentenceEncoder, needs: list[list[str]]) -> Lessons:
    """Each need's first phrasing is a passage, the others ask for it; among others, at times missing."""
    rng = np.random.default_rng(0)
    asked = [(i, text) for i, phrasings in enumerate(needs) for text in phrasings[1:]][:N_TEXTS]
    lineages = rng.integers(0, len(needs), (len(asked), 6))
    lineages[:, 0] = [i for i, _ in asked]
    lineages[lineages[:, 1:].min(axis=1) % 3 == 0, 5] = -1
    n = len(asked)
    chances = np.where(lineages == lineages[:, :1], 1.0, 0.02) * (lineages >= 0)
    vectors = encoder.encode_passages([phrasings[0] for phrasings in needs])
    examples = Examples(
        [QueryKey(str(i).encode(), None) for i in range(n)],
        encoder.encode_queries([text for _, text in asked]),
        lineages,
        np.zeros((n, 6, len(FEATURES)), dtype=np.float32),
        np.zeros((n, 6)),
        np.zeros((n, 6)),
        np.zeros(n, dtype=np.int64),
    )
    validation = np.array([i % 6 == 0 for i, _ in asked])
    chances /= chances.sum(axis=1, keepdims=True)
    return Lessons([t for _, t in asked], examples, validation, chances, lambda p: vectors[p])


def moved(tower: Tower) -> None:
    rng = np.random.default_rng(0)
    tower.take(
        {n: (w * rng.normal(1, 0.05, w.shape)).astype(np.float32) for n, w in tower.weights.items()}
    )


def test_the_last_three_layers_are_taught_and_the_rest_is_shared(encoder: SentenceEncoder) -> None:
    tower = encoder.tower()
    layers = {name.split(".layer.")[1].split(".")[0] for name in tower.taught}
    assert layers == {"3", "4", "5"}
    assert all(".encoder.layer." in name for name in tower.taught)
    n = sum(p.numel() for p in tower.taught.values())
    assert n == 3 * 1_774_464  # of a layer of 384 and 1536
    known = dict(encoder.model.named_parameters())
    for name, parameter in tower.model.named_parameters():
        shared = parameter.data_ptr() == known[name].data_ptr()
        assert shared == (name not in tower.taught), name
    (embeddings,) = (n for n in known if n.endswith("word_embeddings.weight"))
    assert tower.model.get_parameter(embeddings).data_ptr() == known[embeddings].data_ptr()


def test_an_untaught_tower_answers_as_the_encoder_does(
    encoder: SentenceEncoder, exact: SentenceEncoder, needs: list[list[str]]
) -> None:
    tower = encoder.tower()
    texts = [phrasings[0] for phrasings in needs[:40]] + ["a", "long " * 400, "ünïcödé 字"]
    with torch.no_grad():
        found = tower.vectors(texts).numpy()
    np.testing.assert_allclose(found, exact.encode_queries(texts), atol=1e-5)
    assert (found * encoder.encode_queries(texts)).sum(axis=1).min() > 0.999
    assert tower.revision != encoder.revision  # it names the way they are made


def test_taught_weights_change_queries_and_not_passages(
    encoder: SentenceEncoder, exact: SentenceEncoder, needs: list[list[str]], tmp_path: Path
) -> None:
    texts = [phrasings[0] for phrasings in needs[:33]]
    queries, passages = encoder.encode_queries(texts), encoder.encode_passages(texts)
    tower = encoder.tower()
    moved(tower)
    taught = exact.with_tower(tower)
    found = taught.encode_queries(texts)
    assert (found * queries).sum(axis=1).max() < 0.9999
    with torch.no_grad():
        np.testing.assert_allclose(found, tower.vectors(texts).numpy(), atol=1e-5)
    np.testing.assert_array_equal(encoder.encode_passages(texts), passages)
    np.testing.assert_array_equal(encoder.encode_queries(texts), queries)
    quick = encoder.with_tower(tower).encode_queries(texts)
    assert (found * quick).sum(axis=1).min() > 0.999
    assert taught.revision == tower.revision
    path = tmp_path / "encoder" / "queries.safetensors"
    tower.save(path)
    assert path.stat().st_size < 22e6
    again = TunedQueries(exact, path, tower.revision)
    np.testing.assert_allclose(again.encode_queries(texts), found, atol=1e-6)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptFileError, match="no usable encoder"):
        encoder.tower().load(path)


def test_a_tower_is_made_while_others_encode(encoder: SentenceEncoder) -> None:
    """A tokenizer refuses to be copied, or used, by two at once."""
    errors: list[BaseException] = []
    done = threading.Event()

    def encode(text: str) -> None:
        n = 0
        try:
            while not done.is_set():
                n += 1
                encoder.encode_queries([f"{text} {'word ' * (n % 50)}"] * (1 + n % 3))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=encode, args=(f"thread {i}",)) for i in range(3)]
    for thread in threads:
        thread.start()
    try:
        towers = [encoder.tower() for _ in range(15)]
    finally:
        done.set()
        for thread in threads:
            thread.join(60)
    assert errors == []
    assert len({tower.revision for tower in towers}) == 1


def test_a_short_teaching_lowers_the_loss_and_leaves_passages(
    encoder: SentenceEncoder, lessons: Lessons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passages = encoder.encode_passages(lessons.texts[:20])
    tower, before = encoder.tower(), encoder.encode_queries(lessons.texts[:20])
    done = teach(tower, lessons, tmp_path / "of the whole.safetensors")
    assert done.better
    assert done.scores["tuning_loss"] < done.scores["tuning_loss_before"] - 0.01
    np.testing.assert_array_equal(encoder.encode_passages(lessons.texts[:20]), passages)
    np.testing.assert_array_equal(encoder.encode_queries(lessons.texts[:20]), before)
    assert tower.revision != encoder.tower().revision

    monkeypatch.setattr(teaching, "_SAVE_EVERY_S", -1.0)

    def stop(_: str, step: int, __: int) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teach(encoder.tower(), lessons, tmp_path / "checkpoint.safetensors", stop)
    other, steps = encoder.tower(), list[int]()
    again = teach(
        other, lessons, tmp_path / "checkpoint.safetensors", lambda _, n, __: steps.append(n)
    )
    assert steps[0] == 3
    assert (again, other.revision) == (done, tower.revision)
