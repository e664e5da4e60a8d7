"""A model with the encoder's name lies in the current directory, and models bring code: neither acts,
wherever an encoder is loaded."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from rag_flywheel import EncoderError, EncoderMismatchError, Flywheel, Passage, restore
from rag_flywheel.encode.model_folder import find_model
from rag_flywheel.encode.sentence_encoder import SentenceEncoder
from small_bert import made

pytestmark = pytest.mark.model
NAMES = ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"]
PASSAGES = [
    Passage("reset", "To get a new password, open Settings and choose Reset."),
    Passage("refund", "Refunds are paid within 30 days."),
]


@pytest.fixture(scope="module")
def published() -> SentenceEncoder:
    """By its path, so that no name decides."""
    folder = find_model("all-MiniLM-L6-v2")
    assert folder is not None
    return SentenceEncoder.load(str(folder))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of other weights."""
    folder = tmp_path_factory.mktemp("other") / "saved"
    made(folder.with_name("parts")).save(str(folder))
    return folder


@pytest.fixture
def planted(tmp_path: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with the other model under each name of the encoder."""
    for name in NAMES:
        shutil.copytree(other, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_a_name_loads_the_checked_model_and_a_path_the_planted_one(
    planted: Path, published: SentenceEncoder, name: str
) -> None:
    found = SentenceEncoder.load(name)
    assert (found.name, found.revision, found.dim) == (NAMES[0], published.revision, 384)
    assert found.tower().base == published.revision
    meant = SentenceEncoder.load(f"./{name}")
    assert (meant.name, meant.dim) == (NAMES[0], 32)
    assert meant.revision != published.revision


def test_an_index_is_made_tuned_reopened_and_restored_with_the_checked_model(
    planted: Path, published: SentenceEncoder
) -> None:
    with Flywheel.open("kb") as fw:
        fw.add(PASSAGES)
        fw.refresh(tune=True)
    with Flywheel.open("kb") as fw:  # a second process would load the encoder by its name
        assert fw.retrieve("when is my money back?").hits[0].passage_id == "refund"
        fw.backup("copy")
    assert restore("copy", "again") is not None
    with Flywheel.open("again") as fw:
        fw.add([Passage("hours", "The desk is open from 8 to 18.")])
        assert fw.retrieve("when is the desk open?").hits[0].passage_id == "hours"
    with (
        Flywheel.open("again", encoder="sentence-transformers:./all-MiniLM-L6-v2") as fw,
        pytest.raises(EncoderMismatchError, match=published.revision),
    ):
        fw.add([Passage("more", "more")])


def shell(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "rag_flywheel", *arguments],  # the current directory is searched
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    return done.stdout + done.stderr


def test_the_shell_loads_the_checked_model(planted: Path, published: SentenceEncoder) -> None:
    (planted / "desk.md").write_text("# Desk\n\nThe desk is open from 8 to 18.\n")
    assert "added 1" in shell("add", "--index", "kb", "desk.md")
    found = json.loads(shell("retrieve", "--index", "kb", "--json", "when is the desk open?"))
    assert found["hits"][0]["relevance"] > 0.5
    named = SentenceEncoder(published.model, name=NAMES[0], revision=published.revision, bf16=True)
    with Flywheel.open("kb", encoder=named) as fw:  # or it would be refused
        assert fw.retrieve("when is the desk open?").hits


CODE = "import pathlib\npathlib.Path('it-ran').touch()\n"


def brings_a_class(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "modeling_own.Own"
    (folder / "modules.json").write_text(json.dumps(modules))


def brings_an_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "modeling_own.Own"}}
    config["trust_remote_code"] = True
    (folder / "config.json").write_text(json.dumps(config))


def asks_to_be_trusted(folder: Path) -> None:
    brings_an_architecture(folder)
    trusting = {"trust_remote_code": True}
    for name in ("model_args", "config_args", "model_kwargs", "config_kwargs"):
        path = folder / "sentence_bert_config.json"
        settings = json.loads(path.read_text())
        path.write_text(json.dumps({**settings, name: trusting}))
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **trusting}))


class Runs:
    def __reduce__(self) -> Any:
        return exec, (CODE,)


def has_a_setting_of_trust(folder: Path) -> None:
    path = folder / "sentence_bert_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "trust_remote_code": True}))


def has_pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Runs()))


@pytest.mark.parametrize(
    "change",
    [
        brings_a_class,
        brings_an_architecture,
        asks_to_be_trusted,
        has_a_setting_of_trust,
        has_pickled_weights,
    ],
)
def test_no_code_of_a_model_runs(
    tmp_path: Path, other: Path, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    folder = Path(shutil.copytree(other, tmp_path / "own"))
    change(folder)
    for where in (folder, tmp_path):
        (where / "modeling_own.py").write_text(CODE + "class Own: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(EncoderError, match="own"):
        SentenceEncoder.load("./own")
    with pytest.raises(EncoderError, match="own"):
        Flywheel.open("kb", encoder="sentence-transformers:./own")
    settings = tmp_path / "kb" / "flywheel.toml"
    settings.parent.mkdir()
    settings.write_text('format_version = 1\nencoder = "sentence-transformers:./own"\n')
    assert "own" in shell("add", "--index", "kb", "own/README.md")
    with settings.open("a") as file:
        file.write("trust_remote_code = true\n")
    assert "trust_remote_code" in shell(
        "add", "--index", "kb", "own/README.md"
    )  # no setting of ours
    assert not (tmp_path / "it-ran").exists()


def test_pickled_weights_beside_safetensors_are_not_read(
    tmp_path: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(other, tmp_path / "own"))
    weights = load_file(folder / "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Runs()))
    monkeypatch.chdir(tmp_path)
    found = SentenceEncoder.load("./own")
    assert not (tmp_path / "it-ran").exists()
    assert len(weights) > 30
    assert found.revision == SentenceEncoder.load(str(other)).revision
