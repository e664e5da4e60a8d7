"""The part of a sentence-transformers model that tuning may change, its last layers, and their file.

Embeddings and lower layers never change, and are shared with the model that encodes passages.
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from rag_flywheel.disk import version_file_errors
from rag_flywheel.encode.revision import revision_of
from rag_flywheel.encoder import Encoder, QueryEncoder
from rag_flywheel.errors import CorruptFileError, EncoderError

FILE_NAME = "encoder/queries.safetensors"
TAUGHT = 3  # layers
_BASE = "base_revision"
Weights = npt.NDArray[np.float32]


class Tower:
    """A copy of a model whose last three layers can be tuned.

    base: the revision it starts from; model: the copy, a torch module; taught: the parameters of its
    last layers, by name.
    """

    def __init__(self, model: Any, base: str) -> None:
        names = _last_layers(model)
        own = {id(p) for name, p in model.named_parameters() if name in names}
        shared = [*model.parameters(), *model.buffers()]
        memo = {id(tensor): tensor for tensor in shared if id(tensor) not in own}
        self.base = base
        self.model = copy.deepcopy(model, memo)
        self.taught = {n: p for n, p in self.model.named_parameters() if n in names}

    def vectors(self, texts: Sequence[str]) -> Any:
        """A torch tensor (n, dim) of unit rows: as `encode_queries`, but with gradients."""
        import torch

        model = self.model
        name = "query" if "query" in model.prompts else model.default_prompt_name
        features = model.preprocess(list(texts), prompt=model.prompts.get(name))
        found = model.forward(features, task="query")["sentence_embedding"]
        return torch.nn.functional.normalize(found.float(), dim=1)

    @property
    def revision(self) -> str:
        """A hash over the revision that tuning started from and every tuned weight."""
        taught = {name: value.detach().numpy() for name, value in self.taught.items()}
        return revision_of(taught, base=self.base)

    @property
    def weights(self) -> dict[str, Weights]:
        """A copy of the tuned weights, by name."""
        return {name: p.detach().numpy().copy() for name, p in self.taught.items()}

    def save(self, path: Path) -> None:
        """Write the tuned weights in the safetensors format. Raises OSError."""
        from safetensors.numpy import save  # its save_file hides errno, and the file from others

        path.parent.mkdir(exist_ok=True)
        path.write_bytes(save(self.weights, {_BASE: self.base}))

    def load(self, path: Path) -> None:
        """Use the weights that `save` wrote. Raises CorruptFileError when they are not of this model."""
        self.take(read_taught(path, self.base), f"{path}: taught weights")

    def take(self, tensors: Mapping[str, Weights], name: str = "taught weights") -> None:
        """Use the given weights, all or none; name: how an error refers to them.

        Raises CorruptFileError when they do not fit.
        """
        import torch

        shapes = {key: tuple(p.shape) for key, p in self.taught.items()}
        require_fitting(tensors, shapes, name)
        with torch.no_grad():
            for key, parameter in self.taught.items():
                parameter.copy_(torch.from_numpy(tensors[key]))


def require_fitting(
    tensors: Mapping[str, Weights], expected: Mapping[str, tuple[int, ...]], name: str
) -> None:
    """Raises CorruptFileError unless there are finite float32 weights of these names and shapes."""
    found = {key: tuple(t.shape) for key, t in tensors.items()}
    if found != expected:
        wrong = min(dict(found.items() ^ expected.items()))
        raise CorruptFileError(
            f"{name} do not fit the encoder: {wrong} is {found.get(wrong, 'missing')}; expected "
            f"{expected.get(wrong, 'none')}. Run `rag-flywheel rollback` to another version"
        )
    for key, given in sorted(tensors.items()):
        if given.dtype != np.float32 or not np.isfinite(given).all():
            raise CorruptFileError(
                f"{name} {key} are not finite float32 numbers. Run `rag-flywheel rollback` to "
                "another version"
            )


def read_taught(path: Path, base: str | None = None) -> dict[str, Weights]:
    """The weights in a file of tuned weights, by name; base: the revision that tuning must have
    started from. Raises CorruptFileError."""
    from safetensors import SafetensorError, safe_open

    errors = (OSError, ValueError, TypeError, SafetensorError)  # TypeError: no such number in numpy
    with (
        version_file_errors(path, "holds no usable encoder", of=errors),
        safe_open(str(path), framework="np") as file,
    ):
        began = (file.metadata() or {}).get(_BASE)
        if base is not None and began != base:
            raise ValueError(f"it began with revision {began!r}; the encoder is {base!r}")
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _last_layers(model: Any) -> frozenset[str]:
    """Names of the parameters of the last layers of a transformer. Raises EncoderError."""
    import torch

    stacks = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) > 1
    ]
    if not stacks:
        raise EncoderError(
            f"{type(model).__name__} has no stack of layers, so it cannot be tuned; expected a "
            "transformer such as all-MiniLM-L6-v2"
        )
    prefix, stack = max(stacks, key=lambda found: sum(p.numel() for p in found[1].parameters()))
    first = max(len(stack) - TAUGHT, 0)
    return frozenset(
        f"{prefix}.{i}.{name}"
        for i in range(first, len(stack))
        for name, _ in stack[i].named_parameters()
    )


@runtime_checkable
class TunableEncoder(Encoder, Protocol):
    """An Encoder whose side of queries can be tuned to votes; its passages never change."""

    def tower(self) -> Tower:
        """A copy of the untuned encoder of queries, ready for tuning."""

    def with_tower(self, tower: Tower) -> "QueryEncoder":
        """An encoder of queries by a tuned tower."""


@runtime_checkable
class TaughtEncoder(Protocol):
    """An encoder that may not need a tower to encode queries by tuned weights."""

    def with_taught(self, taught: Mapping[str, Weights], name: str) -> "QueryEncoder | None":
        """An encoder of queries by these weights, None where a tower is needed; name: how an error
        refers to them. Raises CorruptFileError when they do not fit."""


def require_tunable(encoder: Encoder) -> TunableEncoder:
    """The encoder, if it can be tuned. Raises EncoderError."""
    if not isinstance(encoder, TunableEncoder):
        raise EncoderError(
            f"encoder {encoder.name!r} cannot be tuned: it has no tower(); expected a "
            "sentence-transformers model, or an encoder with the TunableEncoder protocol. Refresh "
            "without tuning"
        )
    return encoder
