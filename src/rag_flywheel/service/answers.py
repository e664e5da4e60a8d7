"""Answers as JSON, and the schemas of the library's records for OpenAPI."""

import dataclasses
import typing
from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib import import_module
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
import numpy as np
from fastapi import Response
from pydantic import BaseModel, create_model

from rag_flywheel import records

_JSON = "application/json"


def answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response of JSON. Records become objects, bytes become hexadecimal text."""
    content = encoded(value)
    return Response(content, status, headers=dict(headers or {}), media_type=_JSON)


def encoded(value: object) -> bytes:
    """JSON in UTF-8. Records become objects, bytes become hexadecimal text."""
    return msgspec.json.encode(_plain(value), enc_hook=_as_dict)


def _plain(value: Any) -> Any:
    """The value as msgspec encodes it: it would write bytes as base64."""
    if isinstance(value, bytes):
        return value.hex()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if not _holds_bytes(type(value)):
            return value  # which msgspec encodes itself, in a twentieth of the time
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def _as_dict(value: object) -> dict[str, object]:
    """A mapping inside a record; msgspec knows no other than dict."""
    if not isinstance(value, Mapping):
        raise TypeError(f"found {type(value).__name__} in an answer; expected what JSON can hold")
    return {str(key): each for key, each in value.items()}


@cache
def _holds_bytes(record: type) -> bool:
    """Whether a field of a record, or of a record in it, may be bytes."""
    return any(_may_be_bytes(hint) for hint in get_type_hints(record, _names(record)).values())


def _may_be_bytes(hint: Any) -> bool:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _holds_bytes(hint)
    return hint in (bytes, object, Any) or any(_may_be_bytes(part) for part in get_args(hint))


@cache
def schema_of(record: type) -> type[BaseModel]:
    """The model that describes a record in OpenAPI: its fields, those of the records in it, its docstring.

    Answers are not checked against it at run time; the tests do that.
    """
    hints = get_type_hints(record, _names(record))
    fields: dict[str, Any] = {
        field.name: (_described(hints[field.name]), ...) for field in dataclasses.fields(record)
    }
    return create_model(record.__name__, __doc__=record.__doc__, **fields)


def _names(record: type) -> dict[str, Any]:
    return {**vars(typing), **vars(records), **vars(import_module(record.__module__))}


def _described(hint: Any) -> Any:
    """The type of a field as OpenAPI shows it: metadata may be any JSON, bytes are text."""
    if hint is bytes:
        return str
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return schema_of(hint)
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (dict, Mapping):
        return dict[str, _described(inner[1])]  # type: ignore[misc]
    if origin in (tuple, list):
        return list[_described(inner[0])]  # type: ignore[misc]
    if origin in (Union, UnionType):
        if any(part in _METADATA for part in inner):
            return Any
        return Union[tuple(_described(part) for part in inner)]  # noqa: UP007
    return Any if isinstance(hint, str | typing.ForwardRef) else hint


_METADATA = (np.generic, date)
"""Where a type names one of these, it is what metadata may hold."""
