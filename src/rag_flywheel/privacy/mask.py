"""Masks what users write before it is embedded or stored, by a function of the application."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from rag_flywheel.errors import ConfigError, InputError
from rag_flywheel.records import Candidate, Filter, Retrieval, Vote

MaskFunction = Callable[[str], str]
T = TypeVar("T")


def mask_by_name(name: str) -> MaskFunction:
    """The mask that the settings name: "pii", "pii:DE,US" with the countries whose telephone numbers are
    found without a +, "presidio", or "module:function".

    Raises ConfigError when it cannot be had, so that nothing is stored unmasked instead.
    """
    module, _, rest = name.partition(":")
    if module == "pii":
        from rag_flywheel.privacy.pii import pii_mask

        return pii_mask([each.strip() for each in rest.split(",") if each.strip()])
    if name == "presidio":
        from rag_flywheel.privacy.presidio import presidio_mask

        return presidio_mask()
    try:
        found: object = getattr(importlib.import_module(module), rest)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"mask {name!r} cannot be had ({error}); expected 'pii', 'pii:DE,US', 'presidio' or "
            "'module:function'"
        ) from error
    if not callable(found):
        raise ConfigError(f"mask {name!r} is {type(found).__name__}; expected a function")
    return cast(MaskFunction, found)


@dataclass(frozen=True)
class Mask:
    """mask: returns a text without what must not be stored; None: texts are stored as they are."""

    mask: MaskFunction | None = None

    def text(self, given: T) -> T:
        """A text, masked; what is no string stays, for others to refuse. Raises InputError."""
        if self.mask is None or not isinstance(given, str):
            return given
        try:
            masked: Any = self.mask(given)
        except Exception as error:
            kind = type(error).__name__  # its message may quote the text
            raise InputError(f"mask raised {kind}; expected the text, masked") from None
        if not isinstance(masked, str):
            raise InputError(f"mask returned {type(masked).__name__}; expected the text, masked")
        return cast(T, masked)

    def vote(self, vote: Vote) -> Vote:
        """A vote with its reason masked."""
        return vote if self.mask is None else replace(vote, reason=self.text(vote.reason))

    def filter(self, where: Filter | None, *, but: str | None) -> Filter | None:
        """A filter, in the types of JSON, with its strings masked; but: the key whose values stay."""
        if self.mask is None or where is None:
            return where
        return {
            key: wanted if key == but else self._values(wanted, but)
            for key, wanted in where.items()
        }

    def candidates(self, given: list[Candidate]) -> list[Candidate]:
        """An application's own candidates with texts, titles and metadata masked. Raises InputError."""
        if self.mask is None:
            return given
        return [
            replace(
                each,
                text=self.text(each.text),
                title=self.text(each.title),
                metadata=self._values(dict(each.metadata), None),
            )
            for each in given
        ]

    def _values(self, value: Any, but: str | None) -> Any:
        if isinstance(value, dict):
            return {k: v if k == but else self._values(v, but) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._values(each, but) for each in value]
        return self.text(value)


def unmasked(found: Retrieval, given: Sequence[Candidate]) -> Retrieval:
    """A reranked answer with the candidates as they were given."""
    by_id = {each.passage_id: each for each in given}
    hits = [(hit, by_id[hit.passage_id]) for hit in found.hits]
    return replace(
        found,
        hits=tuple(
            replace(hit, text=own.text, title=own.title, metadata=own.metadata) for hit, own in hits
        ),
    )
