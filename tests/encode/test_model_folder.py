"""Where a model is looked for, and which models are never loaded; the models here are empty shells."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rag_flywheel.encode.make import find_token_counter, make_encoder
from rag_flywheel.encode.model_folder import find_model, model_folder, require_plain
from rag_flywheel.errors import EncoderError, EncoderNotFoundError

TRANSFORMER = "sentence_transformers.models.Transformer"
POOLING = "sentence_transformers.models.Pooling"
BUNDLED = ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"]


def shell(folder: Path, modules: object = None, **files: str) -> Path:
    """A folder that looks like a model; modules: what modules.json lists; files: more of them."""
    folder.mkdir(parents=True)
    found = [{"path": "", "type": TRANSFORMER}, {"path": "1_Pooling", "type": POOLING}]
    (folder / "modules.json").write_text(json.dumps(found if modules is None else modules))
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"other weights")
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("name", BUNDLED)
def test_a_folder_of_the_models_name_does_not_win_over_the_checked_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    wanted = find_model(name)
    planted = shell(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert wanted is not None
    assert find_model(name) == wanted != planted
    counter = find_token_counter(f"sentence-transformers:{name}")
    assert counter is not None and counter.max_tokens == 256


@pytest.mark.parametrize("name", BUNDLED)
def test_a_cached_model_of_that_name_does_not_win_over_the_checked_one(
    tmp_path: Path, name: str
) -> None:
    hub = tmp_path / "hub" / "models--sentence-transformers--all-MiniLM-L6-v2"
    shell(hub / "snapshots" / ("0" * 40))
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("0" * 40)
    program = (
        "from huggingface_hub import try_to_load_from_cache as cached\n"
        "from rag_flywheel.encode.model_folder import find_model\n"
        "print(cached('sentence-transformers/all-MiniLM-L6-v2', 'modules.json'))\n"
        f"print(find_model({name!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    in_cache, found = done.stdout.splitlines()
    assert Path(in_cache).is_relative_to(hub)
    assert Path(found) == find_model(name)
    assert not Path(found).is_relative_to(tmp_path)


@pytest.mark.parametrize("name", ["house-model", "organisation/house-model"])
def test_a_folder_is_meant_by_a_path_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    planted = shell(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_model(name) is None
    with pytest.raises(EncoderNotFoundError, match=f"write ./{name} to mean that folder"):
        model_folder(name)
    with pytest.raises(EncoderNotFoundError, match=f"write ./{name} to mean that folder"):
        make_encoder(f"sentence-transformers:{name}")
    for path in (f"./{name}", str(planted), f"~/{name}", f"../{tmp_path.name}/{name}"):
        assert find_model(path) == planted
    monkeypatch.chdir(planted)
    assert find_model(".") == planted


@pytest.mark.parametrize(
    "name", ["a/b/c", "a b", ".hidden", "a/..", "a..b", "a\\b", "C:model", "ü", "a/", "-x", "a\n"]
)
def test_what_is_neither_a_name_nor_a_path_is_refused(name: str) -> None:
    with pytest.raises(EncoderNotFoundError, match=r"no model's name; expected NAME or"):
        find_model(name)


ROUTED = [{"path": "", "type": "sentence_transformers.models.Router"}]
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a class of its own": (
        lambda f: shell(f, [{"path": "", "type": "modeling_own.Model"}]),
        "names the class 'modeling_own.Model'",
    ),
    "a class of its own on the hub": (
        lambda f: shell(f, [{"path": "", "type": "someone/model--modeling_own.Model"}]),
        "names the class",
    ),
    "a function of the standard library": (
        lambda f: shell(f, [{"path": "", "type": "os.system"}]),
        r"names the class 'os\.system'",
    ),
    "a name that begins like the library": (
        lambda f: shell(f, [{"path": "", "type": "sentence_transformers_own.Model"}]),
        "names the class",
    ),
    "no class": (lambda f: shell(f, [{"path": ""}]), "names the class 'None'"),
    "a class in a router": (
        lambda f: shell(f, ROUTED, **{"router_config.json": '{"types": {"q": "own.Model"}}'}),
        r"names the class 'own\.Model'",
    ),
    "a class in an older router": (
        lambda f: shell(f, ROUTED, **{"config.json": '{"types": {"q": "own.Model"}}'}),
        r"names the class 'own\.Model'",
    ),
    "a class in a router's router": (
        lambda f: shell(
            f,
            ROUTED,
            **{
                "router_config.json": json.dumps({"types": {"q": ROUTED[0]["type"]}}),
                "q/router_config.json": '{"types": {"r": "own.Model"}}',
            },
        ),
        r"names the class 'own\.Model'",
    ),
    "a part above": (
        lambda f: shell(f, [{"path": "../other", "type": TRANSFORMER}]),
        "elsewhere",
    ),
    "a part anywhere": (lambda f: shell(f, [{"path": "/etc", "type": TRANSFORMER}]), "elsewhere"),
    "a route above": (
        lambda f: shell(
            f, ROUTED, **{"router_config.json": json.dumps({"types": {"../x": TRANSFORMER}})}
        ),
        "elsewhere",
    ),
    "pickled weights": (
        lambda f: shell(f).joinpath("model.safetensors").rename(f / "model.bin"),
        r"has pickled weights \(model\.bin\)",
    ),
    "a part with pickled weights": (
        lambda f: shell(
            f,
            [{"path": "", "type": TRANSFORMER}, {"path": "2_Dense", "type": POOLING}],
            **{"2_Dense/pytorch_model.bin": ""},
        ),
        r"has pickled weights \(pytorch_model\.bin\)",
    ),
    "an adapter": (lambda f: shell(f, **{"adapter_config.json": "{}"}), "adapter of another"),
    "no list": (lambda f: shell(f, {"0": "x"}), r"modules\.json of another shape"),
    "a list of names": (lambda f: shell(f, ["x"]), r"modules\.json of another shape"),
    "no JSON": (lambda f: (shell(f) / "modules.json").write_text("{"), "expected JSON"),
    "too deep": (
        lambda f: (shell(f) / "modules.json").write_text("[" * 200_000),
        "expected JSON",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_could_run_code_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    make, message = REFUSED[case]
    make(tmp_path / "planted")
    with pytest.raises(EncoderError, match=message):
        require_plain(tmp_path / "planted")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EncoderError, match=message):
        make_encoder("sentence-transformers:./planted")


def test_a_model_of_the_librarys_own_parts_passes(tmp_path: Path) -> None:
    require_plain(shell(tmp_path / "plain"))
    beside = shell(tmp_path / "trained", **{"training_args.bin": "", "optimizer.pt": ""})
    require_plain(beside)
    newer = "sentence_transformers.base.modules.transformer.Transformer"
    require_plain(shell(tmp_path / "newer", [{"path": "0", "type": newer}]))
    (tmp_path / "plain" / "modules.json").unlink()
    require_plain(tmp_path / "plain")
    routes = {"q": TRANSFORMER, "p": TRANSFORMER}
    require_plain(
        shell(tmp_path / "routed", ROUTED, **{"router_config.json": json.dumps({"types": routes})})
    )
