"""Events, and what operators make of them, as JSON: for logs, message buses and files. Patient data is left out."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Set
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import attrs
from reactivex import operators as ops

from rxdicom.errors import DatasetError
from rxdicom.events.datasets import decode
from rxdicom.events.records import Event
from rxdicom.operators.core import Operator
from rxdicom.operators.filters import identity
from rxdicom.operators.records import Derived
from rxdicom.wire.dimse import Message
from rxdicom.wire.encoded import Encoded

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement

_OMITTED = frozenset({"assoc", "cancelled", "store", "associate", "reserved"})
"""Fields that are no data, or said elsewhere."""
_UNSAID = frozenset({"CommandField", "CommandGroupLength", "CommandDataSetType"})
"""Command elements that the name of a message and its dataset say already."""
_TAGS = frozenset({"OffendingElement", "AttributeIdentifierList"})
_INLINE = 1024
"""Characters of a binary element, in base64, up to which it is part of the JSON."""


def to_dict(record: Event | Derived | Any, *, phi: bool = False) -> dict[str, Any]:
    """An event, or a record of :mod:`rxdicom.operators`, as a dict that ``json.dumps`` takes.

    Without ``phi`` nothing of a dataset is in it, nor bytes of any kind: of these it tells how many there are. UIDs,
    AE titles, network addresses and the other command elements stay, and so does an error comment of the peer.

    With ``phi`` each message has its ``dataset`` in the DICOM JSON model (PS3.18 Annex F), which decodes it: on the
    thread that calls, once. Values above 768 bytes, such as pixels, stay out, with ``BulkDataURI`` telling how many
    bytes they have; an element that cannot be read has no value; of a dataset that cannot be decoded or is not there
    any more ``dataset_error`` tells why. The secrets of a user identity never appear.

    >>> to_dict(Message({"CommandField": 0x0030, "MessageID": 7}, 1))
    {'record': 'Message', 'name': 'C-ECHO-RQ', 'context_id': 1, 'MessageID': 7}
    """
    shown = _shown(record, phi)
    fields: dict[str, Any] = {**shown} if isinstance(shown, dict) else {"value": shown}
    if isinstance(record, Event):
        del fields["record"]
        return {"event": record.name, **_mapping(identity(record), phi), **fields}
    return {"record": type(record).__name__, **fields}


def to_jsonl(*, phi: bool = False) -> Operator[Any, str]:
    """Each event or record as one line of JSON, without the newline: :func:`to_dict` for streams.

    ::

        released      --Released----------------------------------------------------|
        to_jsonl()    --{"event": "EVT_RELEASED", "association": "STORE-1", …}------|
    """

    def line(record: Any) -> str:
        return json.dumps(to_dict(record, phi=phi), allow_nan=False)

    return ops.map(line)


def _shown(value: Any, phi: bool) -> Any:
    return next(show for types, show in _SHOWN if isinstance(value, types))(value, phi)


def _itself(value: Any, phi: bool) -> Any:
    del phi
    return value


def _int(value: int, phi: bool) -> int:
    del phi
    return int(value)


def _float(value: float, phi: bool) -> float | str:
    # JSON has no notation for infinities and what is not a number.
    del phi
    return value if math.isfinite(value) else str(value)


def _size(value: bytes, phi: bool) -> dict[str, int]:
    del phi
    return {"bytes": len(value)}


def _time(value: datetime, phi: bool) -> str:
    del phi
    return value.isoformat()


def _encoded(value: Encoded, phi: bool) -> dict[str, Any]:
    del phi
    return {"bytes": value.size, "transfer_syntax_uid": value.transfer_syntax}


def _mapping(value: Mapping[Any, Any], phi: bool) -> dict[str, Any]:
    return {str(key): _shown(each, phi) for key, each in value.items()}


def _sequence(value: Iterable[Any], phi: bool) -> list[Any]:
    return [_shown(each, phi) for each in value]


def _message(message: Message, phi: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"name": message.name, "context_id": message.context_id}
    for keyword, value in message.command.items():
        if keyword not in _UNSAID:
            said[keyword] = [f"{tag:08X}" for tag in value] if keyword in _TAGS else _shown(value, phi)
    if message.data is not None:
        said["data"] = _encoded(message.data, phi)
        if phi:
            said |= _dataset(message.data)
    return said


def _record(value: Any, phi: bool) -> Any:
    kind = cast("type[Any]", type(value))
    if not attrs.has(kind):
        # Its repr could tell anything.
        return kind.__name__
    # PDUs are named as in the standard, by their class.
    name = getattr(kind, "name", None)
    fields: list[str] = [field.name for field in attrs.fields(kind) if field.name not in _OMITTED]
    shown = {field: _shown(getattr(value, field), phi) for field in fields}
    return {"record": name if isinstance(name, str) else kind.__name__, **shown}


_SHOWN: tuple[tuple[Any, Callable[[Any, bool], Any]], ...] = (
    ((bool, type(None)), _itself),
    (int, _int),
    (float, _float),
    (str, _itself),
    ((bytes, bytearray, memoryview), _size),
    (datetime, _time),
    (Message, _message),
    (Encoded, _encoded),
    (Mapping, _mapping),
    ((list, tuple, Set), _sequence),
    (object, _record),
)
"""How values are shown, by the first type that fits."""


def _dataset(encoded: Encoded) -> dict[str, Any]:
    try:
        dataset = decode(encoded)
    except (DatasetError, OSError) as error:
        return {"dataset_error": str(error)}
    elements: dict[str, Any] = {}
    for tag in sorted(dataset.keys()):
        try:
            elements[f"{tag:08X}"] = _shown(dataset[tag].to_json_dict(_bulk_data_uri, _INLINE), True)
        except Exception:  # noqa: BLE001 - whatever pydicom makes of what a peer has sent
            elements[f"{tag:08X}"] = {"vr": "UN"}
    return {"dataset": elements}


def _bulk_data_uri(element: "DataElement") -> str:
    return f"about:blank#{len(element.value)}"
