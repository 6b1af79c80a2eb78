"""What a service asks its driver for, and what it is told: the whole vocabulary between services and runtimes."""

from collections.abc import Generator
from typing import Any, TypeVar

from attrs import frozen

_Result = TypeVar("_Result")


@frozen
class Call:
    """Call the handler of an intervention event; the reply is :class:`Value` or :class:`Raised`."""

    event: Any


@frozen
class Value:
    """What the handler returned."""

    value: Any


@frozen
class Raised:
    """What the handler raised."""

    error: Exception


Effect = Call
Reply = Value | Raised
Service = Generator[Effect, Reply, _Result]
"""A service: yields effects, is sent replies, returns its result (a final response, or an answer to an association).

It never calls a handler itself, so that each runtime can do that where its handlers are to run.
"""
