"""Operators in the terms of DICOM, for ``.pipe(...)`` on event streams: see ``docs/operators.md``.

::

    from rxdicom.operators import activity, completed_studies

    activity(server.events).pipe(completed_studies(quiet=30)).subscribe(print)

Each is a pure function that returns an operator; what they emit are the frozen records of
:mod:`rxdicom.operators.records`.
"""

from rxdicom.operators.associations import summaries
from rxdicom.operators.bridges import AsyncEventIterator, EventIterator, to_async_iterator, to_iterator
from rxdicom.operators.buffers import buffered
from rxdicom.operators.core import Overflow
from rxdicom.operators.exchanges import failures, paired, progress
from rxdicom.operators.filters import (
    activity,
    ae_titles,
    from_ae,
    of_message,
    of_pdu,
    of_sop_class,
    of_status,
    to_ae,
)
from rxdicom.operators.flow import sampled, throughput
from rxdicom.operators.jsonl import to_dict, to_jsonl
from rxdicom.operators.records import (
    AssociationSummary,
    CompletedStudy,
    Failure,
    Operation,
    Progress,
    Rate,
    StoredInstance,
    Throughput,
)
from rxdicom.operators.studies import completed_studies, stored_instances

__all__ = [
    "AssociationSummary",
    "AsyncEventIterator",
    "CompletedStudy",
    "EventIterator",
    "Failure",
    "Operation",
    "Overflow",
    "Progress",
    "Rate",
    "StoredInstance",
    "Throughput",
    "activity",
    "ae_titles",
    "buffered",
    "completed_studies",
    "failures",
    "from_ae",
    "of_message",
    "of_pdu",
    "of_sop_class",
    "of_status",
    "paired",
    "progress",
    "sampled",
    "stored_instances",
    "summaries",
    "throughput",
    "to_ae",
    "to_async_iterator",
    "to_dict",
    "to_iterator",
    "to_jsonl",
]
