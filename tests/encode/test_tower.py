"""What of a model is taught, and the file of it: what is not this model's is named, never loaded."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from fakes import WordEncoder
from rag_flywheel.encode.tower import Tower, Weights, read_taught, require_tunable
from rag_flywheel.encode.tuned import TunedQueries
from rag_flywheel.errors import CorruptFileError, EncoderError
from teachable import TeachableEncoder

pytestmark = pytest.mark.slow  # torch alone takes seconds to load

TEXTS = ["thing1 sweet", "thing2 loud", "of course"]


class Deep(torch.nn.Module):
    """Five layers over an embedding, a buffer, and a smaller stack beside them."""

    def __init__(self, n: int = 5) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(7, 4)
        self.heads = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(6))
        self.body = torch.nn.Module()
        self.body.layer = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(n))
        self.register_buffer("places", torch.arange(7))


def tower() -> Tower:
    return TeachableEncoder(8).tower()


def moved(found: Tower, seed: int = 0) -> dict[str, Weights]:
    """Other weights that fit."""
    rng = np.random.default_rng(seed)
    return {n: w + rng.normal(0, 0.1, w.shape).astype(np.float32) for n, w in found.weights.items()}


def test_the_last_three_layers_are_taught_and_the_rest_is_shared() -> None:
    model = Deep()
    found = Tower(model, "base")
    layers = [f"body.layer.{i}.{kind}" for i in (2, 3, 4) for kind in ("weight", "bias")]
    assert sorted(found.taught) == sorted(layers)
    for name, parameter in found.model.named_parameters():
        other = model.get_parameter(name)
        assert (parameter.data_ptr() == other.data_ptr()) == (name not in layers)
        assert torch.equal(parameter, other)
    assert found.model.places.data_ptr() == model.places.data_ptr()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    found.take(moved(found))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    again = Tower(found.model, "again")  # of one that was taught
    assert again.weights.keys() == found.weights.keys()


def test_of_two_layers_both_are_taught() -> None:
    assert {name.split(".")[2] for name in Tower(Deep(2), "base").taught} == {"0", "1"}


@pytest.mark.parametrize("model", [torch.nn.Linear(3, 3), torch.nn.ModuleList([Deep(1).body])])
def test_a_model_without_a_stack_of_layers_cannot_be_taught(model: torch.nn.Module) -> None:
    with pytest.raises(EncoderError, match="has no stack of layers, so it cannot be tuned"):
        Tower(model, "base")


def test_an_encoder_without_a_tower_cannot_be_tuned() -> None:
    with pytest.raises(EncoderError, match=r"'words' cannot be tuned: it has no tower\(\)"):
        require_tunable(WordEncoder())
    encoder = TeachableEncoder()
    assert require_tunable(encoder) is encoder


def test_a_tower_answers_as_its_encoder_until_it_is_taught(tmp_path: Path) -> None:
    found, encoder = tower(), TeachableEncoder(8)
    before = encoder.encode_queries(TEXTS)
    np.testing.assert_allclose(found.vectors(TEXTS).detach().numpy(), before, atol=1e-6)
    found.take(moved(found))
    taught = found.vectors(TEXTS).detach().numpy()
    assert np.abs(taught - before).max() > 0.01
    np.testing.assert_allclose(np.linalg.norm(taught, axis=1), 1.0, atol=1e-6)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    found, other, path = tower(), tower(), tmp_path / "encoder" / "queries.safetensors"
    untaught = other.revision
    assert found.revision == untaught
    found.take(moved(found))
    assert found.revision != untaught
    found.save(path)
    other.load(path)
    assert other.revision == found.revision
    for name, value in found.weights.items():
        np.testing.assert_array_equal(other.weights[name], value)
    assert read_taught(path).keys() == read_taught(path, found.base).keys() == found.taught.keys()
    assert Tower(found.model, "another").revision != found.revision  # the base is part of the name


def test_a_file_of_weights_can_be_read_by_whoever_may_read_the_folder(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    tower().save(tmp_path / "queries.safetensors")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_no_place_for_a_file_of_weights_is_an_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "queries.safetensors").mkdir()
    with pytest.raises(IsADirectoryError):
        tower().save(tmp_path / "queries.safetensors")
    assert [p.name for p in tmp_path.rglob("*")] == ["queries.safetensors"]


def test_weights_that_are_handed_out_are_copies() -> None:
    found = tower()
    before = found.revision
    for value in found.weights.values():
        value += 1.0
    assert found.revision == before


def with_weights(change: Callable[[dict[str, Weights]], dict[str, Weights]]) -> Callable[..., None]:
    def damage(path: Path) -> None:
        save_file(change(load_file(path)), path, metadata={"base_revision": "1"})

    return damage


def first(value: Weights, number: float) -> Weights:
    found = value.copy()
    found[0, 0] = number
    return found


def of_another_base(path: Path) -> None:
    save_file(load_file(path), path, metadata={"base_revision": "2"})


def of_no_base(path: Path) -> None:
    save_file(load_file(path), path)


def in_bfloat16(path: Path) -> None:
    header: dict[str, object] = {"__metadata__": {"base_revision": "1"}}
    for i in range(2):
        header[f"layers.{i}.weight"] = {
            "dtype": "BF16",
            "shape": [8, 8],
            "data_offsets": [128 * i, 128 * (i + 1)],
        }
    said = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(said)) + said + b"\0" * 256)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


A, B = "layers.0.weight", "layers.1.weight"
DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "another base": (of_another_base, r"it began with revision '2'; the encoder is '1'"),
    "no base": (of_no_base, r"it began with revision None"),
    "one less": (
        with_weights(lambda w: {A: w[A]}),
        rf"not fit.* {B} is missing; expected \(8, 8\)",
    ),
    "one more": (with_weights(lambda w: w | {"x": w[A]}), r"x is \(8, 8\); expected none"),
    "another name": (with_weights(lambda w: {"x": w[A], B: w[B]}), "do not fit"),
    "another shape": (
        with_weights(lambda w: w | {B: w[B][:4].copy()}),
        rf"{B} is \(4, 8\); expected \(8, 8\)",
    ),
    "another width": (with_weights(lambda w: w | {A: w[A].ravel()}), rf"{A} is \(64,\)"),
    "halves": (with_weights(lambda w: w | {B: w[B].astype(np.float16)}), "not finite float32"),
    "doubles": (with_weights(lambda w: w | {B: w[B].astype(np.float64)}), "not finite float32"),
    "bfloat16": (in_bfloat16, "holds no usable encoder|not finite float32"),
    "nan": (with_weights(lambda w: w | {B: first(w[B], np.nan)}), rf"{B} are not finite"),
    "infinity": (with_weights(lambda w: w | {B: first(w[B], np.inf)}), rf"{B} are not finite"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-9]) and None, "no usable encoder"),
    "cut in the header": (lambda path: path.write_bytes(path.read_bytes()[:40]) and None, "usable"),
    "something behind": (
        lambda path: path.write_bytes(path.read_bytes() + b"x") and None,
        "usable",
    ),
    "empty": (lambda path: path.write_bytes(b"") and None, "no usable encoder"),
    "no safetensors": (lambda path: path.write_bytes(b"{}" * 99) and None, "no usable encoder"),
    "a pickle": (lambda path: torch.save({A: torch.zeros(3)}, path), "no usable encoder"),
    "gone": (Path.unlink, "no usable encoder"),
    "a folder": (a_folder, "no usable encoder"),
}


@pytest.mark.parametrize(("damage", "said"), [pytest.param(*d, id=k) for k, d in DAMAGE.items()])
def test_a_file_of_other_weights_is_refused_and_changes_nothing(
    damage: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    found, path = tower(), tmp_path / "queries.safetensors"
    taught = tower()
    taught.take(moved(taught))
    taught.save(path)
    damage(path)
    before = found.revision
    with pytest.raises(CorruptFileError, match=said) as caught:
        found.load(path)
    assert str(caught.value).startswith(str(path))
    assert "`rag-flywheel rollback` to another version" in str(caught.value)
    assert len(str(caught.value)) < 600
    assert found.revision == before


def test_weights_that_come_to_another_revision_are_refused(tmp_path: Path) -> None:
    found, path = tower(), tmp_path / "queries.safetensors"
    found.take(moved(found))
    found.save(path)
    queries = TunedQueries(TeachableEncoder(8), path, "0123456789abcdef")
    for _ in range(2):
        with pytest.raises(CorruptFileError, match=f"holds revision {found.revision}; its version"):
            queries.encode_queries(TEXTS)
        assert not queries.loaded
    right = TunedQueries(TeachableEncoder(8), path, found.revision)
    np.testing.assert_allclose(
        right.encode_queries(TEXTS), found.vectors(TEXTS).detach().numpy(), atol=1e-6
    )
    assert right.loaded


def test_a_tower_that_is_needed_is_made_once_and_not_before(tmp_path: Path) -> None:
    encoder, path = TeachableEncoder(8), tmp_path / "queries.safetensors"
    encoder.tower().save(path)
    queries = TunedQueries(encoder, path, encoder.tower().revision)
    assert (encoder.n_towers, queries.loaded) == (2, False)
    for _ in range(3):
        queries.encode_queries(TEXTS)
    assert encoder.n_towers == 3


def test_an_encoder_of_the_same_name_without_a_tower_says_so(tmp_path: Path) -> None:
    path = tmp_path / "queries.safetensors"
    tower().save(path)
    with pytest.raises(EncoderError, match="cannot be tuned"):
        TunedQueries(WordEncoder(8), path, "1").encode_queries(TEXTS)
