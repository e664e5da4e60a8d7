"""Records from the JSON of the service, by the types of their fields."""

import dataclasses
import math
import typing
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from rag_flywheel import records
from rag_flywheel.errors import ServiceError, quoted


def decoded(kind: Any, value: Any) -> Any:
    """The value of this type that JSON stands for: a record, or a list, mapping or scalar of some.

    Fields that this release does not know are left out; those of an earlier service have their defaults.
    Raises ServiceError for what is no such value.
    """
    try:
        return _decoded(kind, value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        name = getattr(kind, "__name__", str(kind))
        raise ServiceError(
            f"the service answered {quoted(value)}, of which no {name} can be made; "
            "expected the answer of a rag-flywheel service of this release"
        ) from error


def _decoded(kind: Any, value: Any) -> Any:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _record(kind, value)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _optional(inner, value)
    if origin in (list, tuple):
        made = [_decoded(inner[0], each) for each in _of(list, value)]
        return made if origin is list else tuple(made)
    if origin in (dict, Mapping):
        key, each = inner
        return {_key(key, k): _decoded(each, v) for k, v in _of(dict, value).items()}
    if kind is bytes:
        return bytes.fromhex(value)
    if kind is float:  # JSON has no NaN
        return math.nan if value is None else float(_of((int, float), value))
    return _of(kind, value) if kind in (str, int, bool, NoneType) else value


def _record(kind: Any, value: Any) -> Any:
    hints, given = hints_of(kind), _of(dict, value)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    return kind(
        **{n: _decoded(hints[n], given[n]) for n, f in fields.items() if n in given or _needed(f)}
    )


def _needed(field: "dataclasses.Field[Any]") -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _optional(kinds: tuple[Any, ...], value: Any) -> Any:
    """A value that may be None; metadata, which may be of many types, are plain JSON."""
    others = [kind for kind in kinds if kind is not NoneType]
    if value is None or len(others) != 1:
        return value
    return _decoded(others[0], value)


def _key(kind: Any, text: str) -> Any:
    return int(text) if kind is int else text


def _of(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(kind)
    return value


@cache
def hints_of(kind: type) -> dict[str, Any]:
    """The types of a record's fields."""
    names = {**vars(typing), **vars(records), **vars(import_module(kind.__module__))}
    return get_type_hints(kind, names)
