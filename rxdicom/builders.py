"""Mutable builders with checked attributes: what presentation contexts and negotiation items are filled in with.

Attributes are checked when they are set. Importing this loads no record of the wire.
"""

from collections.abc import Callable, Iterable
from types import NoneType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from rxdicom.errors import ArgumentError
from rxdicom.sop_class import checked_uid

if TYPE_CHECKING:
    from pydicom.uid import UID

    from rxdicom.wire.items import UserItem

Given = TypeVar("Given")
Kept = TypeVar("Kept")


class Attribute(Generic[Given, Kept]):
    """One attribute of a :class:`Builder`: ``check(value, name)`` turns what is given into what is kept, or raises."""

    def __init__(self, check: Callable[[Given, str], Kept], default: Any = None) -> None:
        self.check = check
        self.default = default
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, builder: None, owner: type) -> Self: ...
    @overload
    def __get__(self, builder: object, owner: type) -> Kept: ...
    def __get__(self, builder: object, owner: type) -> Self | Kept:
        if builder is None:
            return self
        values = vars(builder)
        if self.name not in values:
            values[self.name] = self.check(self.default, self.name)
        return values[self.name]

    def __set__(self, builder: object, value: Given) -> None:
        vars(builder)[self.name] = self.check(value, self.name)


class Builder:
    """Named attributes, equal when all are equal; a name that it does not have cannot be set, so that typos show."""

    secrets: tuple[str, ...] = ()
    """Attributes that the repr does not show."""

    @classmethod
    def attribute_names(cls) -> tuple[str, ...]:
        """The attributes that can be set."""
        values = ((name, value) for kind in reversed(cls.__mro__) for name, value in vars(kind).items())
        return tuple(name for name, value in values if isinstance(value, Attribute))

    def __setattr__(self, name: str, value: object) -> None:
        if name not in self.attribute_names():
            raise AttributeError(f"{type(self).__name__} has no {name}, only {', '.join(self.attribute_names())}")
        super().__setattr__(name, value)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.attribute_names())

    __hash__: Any = None

    def freeze(self) -> "UserItem":
        """The immutable record that goes on the wire, if this builds a negotiation item."""
        raise ArgumentError(f"{type(self).__name__} is no negotiation item; give it where contexts are given")

    def __repr__(self) -> str:
        shown = (
            f"{name}={'…' if name in self.secrets and getattr(self, name) else repr(getattr(self, name))}"
            for name in self.attribute_names()
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def _given(self, name: str) -> Any:
        value = getattr(self, name)
        if value in (None, "", b""):
            raise ArgumentError(f"{type(self).__name__} lacks {name}; set it before associating or listening")
        return value


def expect(value: object, kinds: type | tuple[type, ...], name: str, wanted: str) -> None:
    """Raise :class:`TypeError` for a value of another type."""
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {wanted}, not {type(value).__name__}")


def optional_uid(value: str | bytes | None, name: str) -> "UID | None":
    """A UID, or None for "not set", which an empty one also means."""
    return None if value is None or value in ("", b"") else checked_uid(value, name)


def uids(value: Iterable[str | bytes], name: str) -> "list[UID]":
    """A list of UIDs without empty ones and repetitions, in the order given."""
    expect(value, (list, tuple), name, "a list of UIDs")
    return list(dict.fromkeys(checked_uid(uid, name) for uid in value if uid))


def optional_bool(value: bool | None, name: str) -> bool | None:
    """A bool, or None for "not set"."""
    expect(value, (bool, NoneType), name, "a bool or None")
    return value


def optional_int(value: int | None, name: str) -> int | None:
    """A number, or None for "not set"."""
    expect(value, (int, NoneType), name, "an int or None")
    return value
