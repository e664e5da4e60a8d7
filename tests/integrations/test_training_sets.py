"""Training sets in the libraries that they are for: datasets, sentence-transformers, TRL, Ragas."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from exported import SETS, jsonl
from fakes import WordEncoder
from rag_flywheel import Flywheel, Passage
from rag_flywheel.records import FileFormat, TrainingSet

pytestmark = [pytest.mark.slow]
datasets = pytest.importorskip("datasets", reason="needs datasets")
TRL_COLUMNS = {  # huggingface.co/docs/trl, "Dataset formats and types", standard format
    "dpo": {"prompt": str, "chosen": str, "rejected": str},
    "kto": {"prompt": str, "completion": str, "label": bool},
    "preferences": {"prompt": str, "chosen": str, "rejected": str},
}


@pytest.fixture(scope="module")
def voted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with votes on passages and answers, and corrections, in every split."""
    root = tmp_path_factory.mktemp("voted") / "kb"
    with Flywheel.open(root, encoder=WordEncoder()) as fw:
        fw.add([Passage(f"p{n}", f"text number{n} says word{n % 7}", "t") for n in range(30)])
        for n in range(60):
            user = f"u{n}"
            shown = fw.retrieve(f"what says number{n % 30} and word{n % 4} {n}?", user_id=user)
            fw.answer(str(shown.id), f"an answer {n}")
            fw.feedback(shown.id, shown.hits[1].passage_id, "helpful", user_id=user)
            fw.feedback(shown.id, shown.hits[3].passage_id, "harmful", user_id=user)
            fw.answer_feedback(shown.id, "helpful" if n % 3 else "harmful", user_id=user)
            if n % 3 == 0:
                fw.correct(shown.id, text=f"a better answer {n}", user_id=user)
        for item in fw.review.items():
            if not item.passage_id:
                fw.review.accept(item.id)
    return root


@pytest.fixture
def fw(voted: Path) -> Any:
    with Flywheel.open(voted, encoder=WordEncoder()) as fw:
        yield fw


def loaded(folder: Path, cache: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's own
        return datasets.load_dataset(str(folder), cache_dir=str(cache))


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
@pytest.mark.parametrize("kind", SETS)
def test_datasets_finds_the_splits_and_their_rows_alone(
    fw: Flywheel, kind: TrainingSet, file_format: FileFormat, tmp_path: Path
) -> None:
    report = fw.export.training_set(kind, tmp_path / "set", file_format=file_format)
    found = loaded(tmp_path / "set", tmp_path / "cache")
    assert {name: split.num_rows for name, split in found.items()} == report.written
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    for name, split in found.items():
        assert split.column_names == manifest["columns"]
        if file_format == "jsonl":
            assert split.to_list() == jsonl(tmp_path / "set" / f"{name}.jsonl")


@pytest.mark.parametrize("kind", [*TRL_COLUMNS])
def test_the_columns_are_those_that_trl_documents(
    fw: Flywheel, kind: TrainingSet, tmp_path: Path
) -> None:
    fw.export.training_set(kind, tmp_path / "set")
    rows = loaded(tmp_path / "set", tmp_path / "cache")["train"]
    assert len(rows) > 5
    for row in rows:
        assert {name: type(value) for name, value in row.items()} == TRL_COLUMNS[kind]
        assert all(value.strip() for value in row.values() if isinstance(value, str))


def test_an_evaluation_set_has_the_fields_of_ragas(fw: Flywheel, tmp_path: Path) -> None:
    schema = pytest.importorskip("ragas.dataset_schema", reason="needs ragas")
    fw.export.training_set("evaluation", tmp_path / "set")
    found = schema.EvaluationDataset.from_jsonl(tmp_path / "set" / "train.jsonl")
    rows = jsonl(tmp_path / "set" / "train.jsonl")
    assert [sample.to_dict() for sample in found] == [
        {name: value for name, value in row.items() if value is not None} for row in rows
    ]


@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        ("pairs", "MultipleNegativesRankingLoss"),
        ("triplets", "MultipleNegativesRankingLoss"),
        ("triplets", "TripletLoss"),
        ("labeled-pairs", "ContrastiveLoss"),
        ("preferences", "MultipleNegativesRankingLoss"),
    ],
)
def test_sentence_transformers_trains_an_epoch_on_it(
    fw: Flywheel, kind: TrainingSet, loss: str, tmp_path: Path
) -> None:
    """The loss takes the columns by their order, and finds the label."""
    pytest.importorskip("accelerate", reason="needs accelerate")
    fw.export.training_set(kind, tmp_path / "set")
    rows = loaded(tmp_path / "set", tmp_path / "cache")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from sentence_transformers import (
            SentenceTransformerTrainer,
            SentenceTransformerTrainingArguments,
        )
        from sentence_transformers.sentence_transformer import losses

        import small_bert

        model = small_bert.made(tmp_path / "model")
        before = [p.clone() for p in model.parameters()]
        trainer = SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=str(tmp_path / "out"),
                num_train_epochs=1,
                per_device_train_batch_size=16,
                learning_rate=1e-3,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=rows["train"],
            eval_dataset=rows["dev"],
            loss=getattr(losses, loss)(model),
        )
        with torch.enable_grad():
            result = trainer.train()
    assert result.training_loss > 0.0
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_reranker_trains_on_labeled_pairs(fw: Flywheel, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="needs accelerate")
    fw.export.training_set("labeled-pairs", tmp_path / "set")
    rows = loaded(tmp_path / "set", tmp_path / "cache")["train"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from sentence_transformers.cross_encoder import (
            CrossEncoder,
            CrossEncoderTrainer,
            CrossEncoderTrainingArguments,
        )
        from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

        import small_bert

        small_bert.made(tmp_path / "model")
        model = CrossEncoder(str(tmp_path / "model"), num_labels=1, device="cpu")
        trainer = CrossEncoderTrainer(
            model=model,
            args=CrossEncoderTrainingArguments(
                output_dir=str(tmp_path / "out"),
                num_train_epochs=1,
                per_device_train_batch_size=16,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=rows,
            loss=BinaryCrossEntropyLoss(model),
        )
        with torch.enable_grad():
            result = trainer.train()
    assert result.training_loss > 0.0
