"""Retrieval that gets better from the people who use it, safely.

The public names load when first asked for, so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag_flywheel.config import Config
    from rag_flywheel.encoder import Encoder
    from rag_flywheel.errors import FlywheelError
    from rag_flywheel.flywheel import Flywheel
    from rag_flywheel.records import Candidate, Hit, Passage, Retrieval, Vote

__all__ = [
    "Candidate",
    "Config",
    "Encoder",
    "Flywheel",
    "FlywheelError",
    "Hit",
    "Passage",
    "Retrieval",
    "Vote",
]
_HOMES = {
    "Config": "config",
    "Encoder": "encoder",
    "Flywheel": "flywheel",
    "FlywheelError": "errors",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'records')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
