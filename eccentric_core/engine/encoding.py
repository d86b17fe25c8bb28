"""A function to differentiate as a text and numbers, which is what an operator of a compiled graph takes.

Numbers are arguments of the operator, so that another one compiles nothing anew. Classes are named by module and name,
so that a graph can be loaded by another process; a class without such a name (made by a function) has a number of its
own, for this process alone.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from eccentric_core.checks import is_number

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAMELESS: list[type] = []
_EXPECTED = "a kernel must be a plain object that holds numbers, texts, tuples and other such objects"


def encode(value: Any, numbers: list[Any]) -> tuple[Any, ...]:
    """The structure of a value; the floats in it are appended to the numbers, in order.

    The state of an object is what `vars` shows. Compilers trace this function.

    Raises:
        TypeError: something in the value is no number, text, tuple or such an object.
    """
    if value is None or isinstance(value, bool | int | str):
        return ("constant", value)
    if is_number(value):
        numbers.append(1.0 * value)
        return ("number",)
    if type(value) is tuple:  # not one with methods, which would be lost
        return ("tuple", *[encode(item, numbers) for item in value])
    if not hasattr(value, "__dict__"):
        raise TypeError(f"{_EXPECTED}, got {value!r}")
    parts = [(name, encode(item, numbers)) for name, item in value.__dict__.items()]
    return ("object", type(value), *parts)


def decode(text: str, numbers: list[float]) -> Any:
    """The value of the text of a structure and its numbers."""
    return _value_of(json.loads(text), iter(numbers))


def _value_of(structure: Any, numbers: Iterator[float]) -> Any:
    match structure[0]:
        case "number":
            return next(numbers)
        case "constant":
            return structure[1]
        case "tuple":
            return tuple(_value_of(item, numbers) for item in structure[1:])
    _, name, *parts = structure
    value = object.__new__(_class_named(name))
    value.__dict__.update({name: _value_of(part, numbers) for name, part in parts})
    return value


def text_of(structure: tuple[Any, ...]) -> str:
    """A structure as a text, for `decode`.

    Raises:
        TypeError: something in it has a state that `vars` does not show, as functions and tensors have.
    """
    return json.dumps(structure, default=_name_of)


def _name_of(kind: Any) -> str:
    try:
        object.__new__(kind)
    except TypeError as error:
        raise TypeError(f"{_EXPECTED}, got a {kind.__name__}") from error
    name = f"{kind.__module__}:{kind.__qualname__}"
    try:
        if _class_named(name) is kind:
            return name
    except (AttributeError, ImportError, KeyError):
        pass
    if kind not in _NAMELESS:
        _NAMELESS.append(kind)
    return f"{name}#{_NAMELESS.index(kind)}"


def _class_named(name: str) -> Any:
    name, _, number = name.partition("#")
    if number:
        return _NAMELESS[int(number)]
    module, _, path = name.partition(":")
    if module not in sys.modules:
        __import__(module)
    found: Any = sys.modules[module]
    for part in path.split("."):
        found = getattr(found, part)
    return found
