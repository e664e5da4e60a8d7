"""The open indexes of the service, by name."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rag_flywheel.errors import UnknownIdError, quoted

if TYPE_CHECKING:
    from rag_flywheel.service.observed import Observed


class Indexes:
    """Flywheels by name; the first is the default one. They are opened at once, and closed together."""

    def __init__(self, opened: Mapping[str, "Observed"]) -> None:
        self._opened = dict(opened)

    @classmethod
    def open(cls, folders: Mapping[str, Path], kind: "type[Observed]") -> "Indexes":
        """Open every folder; none is made. Raises what `Flywheel.open` does, and leaves none open then."""
        opened: dict[str, Observed] = {}
        try:
            for name, folder in folders.items():
                opened[name] = kind.opened(folder, name)
        except BaseException:
            for each in opened.values():
                each.close()
            raise
        return cls(opened)

    def __iter__(self) -> Iterator[tuple[str, "Observed"]]:
        return iter(self._opened.items())

    @property
    def default(self) -> str:
        """The name of the first index."""
        return next(iter(self._opened))

    def __getitem__(self, name: str) -> "Observed":
        """Raises UnknownIdError."""
        try:
            return self._opened[name]
        except KeyError:
            names = ", ".join(self._opened)
            message = f"found no index {quoted(name)}; expected one of {names}"
            raise UnknownIdError(message) from None

    def close(self) -> None:
        """Close all of them."""
        for each in self._opened.values():
            each.close()
