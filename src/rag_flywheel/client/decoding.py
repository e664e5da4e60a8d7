"""Records from the JSON of the service, by the types of their fields."""

import dataclasses
import math
import typing
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib import import_module
from types import NoneType, UnionType
from typing import Any, TypeAlias, Union, get_args, get_origin, get_type_hints

from rag_flywheel import records
from rag_flywheel.errors import ServiceError, quoted

Reader: TypeAlias = Callable[[Any], Any]


def decoded(kind: Any, value: Any) -> Any:
    """The value of this type that JSON stands for: a record, or a list, mapping or scalar of some.

    Fields that this release does not know are left out; those of an earlier service have their defaults.
    Raises ServiceError for what is no such value.
    """
    try:
        return _reader(kind)(value)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        name = getattr(kind, "__name__", str(kind))
        raise ServiceError(
            f"the service answered {quoted(value)}, of which no {name} can be made; "
            "expected the answer of a rag-flywheel service of this release"
        ) from error


@cache
def _reader(kind: Any) -> Reader:
    """What makes a value of this type from JSON; a type is looked at once, not for each value."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return partial(_record, kind)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _optional(inner)
    if origin in (list, tuple):
        each = _reader(inner[0])
        return lambda value: origin(map(each, _of(list, value)))
    if origin in (dict, Mapping):
        key, each = int if inner[0] is int else str, _reader(inner[1])
        return lambda value: {key(k): each(v) for k, v in _of(dict, value).items()}
    if kind is bytes:
        return bytes.fromhex
    if kind is float:  # JSON has no NaN
        return lambda value: math.nan if value is None else float(_of((int, float), value))
    return partial(_of, kind) if kind in (str, int, bool, NoneType) else _as_it_is


def _record(kind: Any, value: Any) -> Any:
    given = _of(dict, value)
    return kind(**{n: read(given[n]) for n, read, needed in _fields(kind) if needed or n in given})


@cache
def _fields(kind: Any) -> list[tuple[str, Reader, bool]]:
    """(name, what reads it, whether it has no default) of each field of a record."""
    hints = hints_of(kind)
    return [(f.name, _reader(hints[f.name]), _needed(f)) for f in dataclasses.fields(kind)]


def _needed(field: "dataclasses.Field[Any]") -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _optional(kinds: tuple[Any, ...]) -> Reader:
    """Of a value that may be None; metadata, which may be of many types, are plain JSON."""
    others = [kind for kind in kinds if kind is not NoneType]
    if len(others) != 1:
        return _as_it_is
    read = _reader(others[0])
    return lambda value: None if value is None else read(value)


def _as_it_is(value: Any) -> Any:
    return value


def _of(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(kind)
    return value


@cache
def hints_of(kind: type) -> dict[str, Any]:
    """The types of a record's fields."""
    names = {**vars(typing), **vars(records), **vars(import_module(kind.__module__))}
    return get_type_hints(kind, names)
