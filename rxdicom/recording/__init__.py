"""Record the events of associations to a file, and replay them, or a packet capture, as the same event streams.

::

    from rxdicom.recording import record, replay

    with record(server, "today.rxd"):
        server.serve_forever()

    recording = replay("today.rxd")
    recording.events.dimse_recv.subscribe(print)
    recording.run()

A recording holds what was transferred, patient data among it, unless it was made ``without_datasets``: see
``docs/recording.md``.
"""

from rxdicom.recording.associations import RecordedAssociation
from rxdicom.recording.entries import InvalidRecording
from rxdicom.recording.recorder import ACTIVITY_KINDS, ALL_KINDS, Recorder, record
from rxdicom.recording.replaying import Replay, replay

__all__ = [
    "ACTIVITY_KINDS",
    "ALL_KINDS",
    "InvalidRecording",
    "RecordedAssociation",
    "Recorder",
    "Replay",
    "record",
    "replay",
]
