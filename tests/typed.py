"""Whether data has the keys and types that a TypedDict of ``moebench.formats`` says."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterator
from typing import Any


@functools.cache
def _hints(kind: type) -> tuple[dict[str, Any], set[str]]:
    """The types of a TypedDict's keys, and its optional keys."""
    hints = typing.get_type_hints(kind, include_extras=True)
    optional = {key for key, one in hints.items() if typing.get_origin(one) is typing.NotRequired}
    return hints, optional | kind.__optional_keys__  # type: ignore[attr-defined]


def mismatches(value: Any, hint: Any, where: str = "") -> Iterator[str]:
    """What of a value is otherwise than its type, a line each: a key too many, a key too few, another type."""
    if hint is Any or type(value) is hint:
        return
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if typing.is_typeddict(hint):
        if not isinstance(value, dict):
            yield f"{where}: {type(value).__name__} instead of {hint.__name__}"
            return
        hints, optional = _hints(hint)
        yield from (f"{where}.{key}: no key of {hint.__name__}" for key in value.keys() - hints.keys())
        yield from (f"{where}.{key}: missing" for key in hints.keys() - optional - value.keys())
        for key in value.keys() & hints.keys():
            yield from mismatches(value[key], hints[key], f"{where}.{key}")
    elif origin is typing.NotRequired:
        yield from mismatches(value, arguments[0], where)
    elif origin in (typing.Union, types.UnionType):
        if type(value) in arguments:
            return
        found = [list(mismatches(value, one, where)) for one in arguments]
        if all(found):
            yield from min(found, key=len)
    elif origin is dict:
        if not isinstance(value, dict):
            yield f"{where}: {type(value).__name__} instead of a mapping"
            return
        for key, inner in value.items():
            yield from mismatches(inner, arguments[1], f"{where}[{key}]")
    elif origin is list:
        if not isinstance(value, (list, tuple)):
            yield f"{where}: {type(value).__name__} instead of a list"
            return
        for number, inner in enumerate(value):
            yield from mismatches(inner, arguments[0], f"{where}[{number}]")
    elif not isinstance(value, (int, float) if hint is float else hint) or (hint is int and isinstance(value, bool)):
        yield f"{where}: {value!r} is no {getattr(hint, '__name__', hint)}"
