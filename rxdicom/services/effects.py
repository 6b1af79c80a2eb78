"""What a service asks its driver for, and what it is told: the whole vocabulary between services and runtimes."""

from collections.abc import Generator, Mapping
from typing import Any, TypeVar

from attrs import field, frozen

from rxdicom.wire.dimse import Message

_Result = TypeVar("_Result")


@frozen
class Call:
    """Call the handler of an intervention event; the reply is :class:`Value` or :class:`Raised`."""

    event: Any


@frozen
class Pull:
    """The next item of what the handler returned, which the driver holds, and closes when the service is over.

    The reply is :class:`Value`, :class:`Raised`, :class:`Done`, or :class:`Cancelled` once C-CANCEL has come.
    """


@frozen
class Send:
    """Send a response that is not the final one; there is no reply."""

    message: Message


@frozen
class Open:
    """Open the way to the destination of a C-MOVE; the reply is :class:`Value` or :class:`Raised`.

    Without it sub-operations go over the association of the request.
    """

    address: str
    port: int
    options: Mapping[str, Any] = field(factory=dict[str, Any])


@frozen
class SubStore:
    """Perform a C-STORE sub-operation; the reply is :class:`Value` with a :class:`SubOperation`."""

    instance: Any
    """A dataset, or the path of a file."""


@frozen
class SubOperation:
    """How a C-STORE sub-operation ended; one that could not be performed has a failure status."""

    status: int
    sop_instance_uid: str = ""
    cause: str = ""


@frozen
class Value:
    """What the handler returned, or gave as its next item."""

    value: Any


@frozen
class Raised:
    """What the handler raised."""

    error: Exception


@frozen
class Done:
    """The handler has no more items."""


@frozen
class Cancelled:
    """C-CANCEL has come; ``item`` is what the handler gave after that, None if it gave nothing."""

    item: Any = None


Effect = Call | Pull | Send | Open | SubStore
Called = Value | Raised
"""How a call of a handler ended."""
Reply = Called | Done | Cancelled | None
Service = Generator[Effect, Reply, _Result]
"""A service: yields effects, is sent replies, returns its result (a final response, or an answer to an association).

It never calls a handler itself, so that each runtime can do that where its handlers are to run. It yields nothing in a
``finally``: when the association is lost the driver closes it.
"""
