"""rxdicom for programs on an event loop: ``from rxdicom.aio import AE``.

The words are those of :mod:`rxdicom`; what waits for the network there is awaited here. See ``docs/asyncio.md``.
"""

from rxdicom.runtimes.aio.ae import AE
from rxdicom.runtimes.aio.association import Association
from rxdicom.runtimes.aio.responses import Responses
from rxdicom.runtimes.aio.sending import Transfer
from rxdicom.runtimes.aio.server import AssociationServer
from rxdicom.runtimes.aio.spreading import Delivery

__all__ = ["AE", "Association", "AssociationServer", "Delivery", "Responses", "Transfer"]
