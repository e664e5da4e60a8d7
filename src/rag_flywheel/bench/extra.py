"""Checks that the packages of the extra `bench` are installed, before any work is done."""

from importlib.util import find_spec

from rag_flywheel.errors import FlywheelError

_PACKAGES = ("ir_measures", "matplotlib")


def require_bench_extra(packages: tuple[str, ...] = _PACKAGES) -> None:
    """Raises FlywheelError when one of the packages is not installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise FlywheelError(
            f"{missing[0]} is not installed; expected the packages of the extra bench: "
            "pip install 'rag-flywheel[bench]'"
        )
