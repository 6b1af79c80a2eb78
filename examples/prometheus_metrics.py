"""Metrics for Prometheus, made of the event streams of a server: operations, failures, connections, bytes stored.

Needs ``pip install rxdicom[prometheus]``.
"""

from pathlib import Path
from urllib.request import urlopen

import pydicom
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from rxdicom import AE, evt
from rxdicom.events.records import CStore
from rxdicom.events.streams import EventStreams
from rxdicom.operators import Operation, activity, failures, paired, stored_instances
from rxdicom.sop_class import CTImageStorage

CT = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"


def measure(events: EventStreams, registry: CollectorRegistry) -> None:
    """Peers choose their AE titles: as labels these would be series without a bound, and so they are none."""
    seconds = Histogram("dicom_operation_seconds", "From request to response", ["name", "status"], registry=registry)
    stored = Counter("dicom_stored_bytes", "Bytes of the datasets that were stored", registry=registry)
    failed = Counter("dicom_failures", "Rejections, aborts and bad statuses", ["kind", "by"], registry=registry)
    connections = Gauge("dicom_connections", "Connections that are open now", registry=registry)

    def observe(operation: Operation) -> None:
        seconds.labels(operation.name, operation.status.category).observe(operation.duration)

    happened = activity(events)
    happened.pipe(paired()).subscribe(observe)
    happened.pipe(stored_instances()).subscribe(lambda instance: stored.inc(instance.size))
    happened.pipe(failures()).subscribe(lambda failure: failed.labels(failure.kind, failure.by).inc())
    events.conn_open.subscribe(lambda _: connections.inc())
    events.conn_close.subscribe(lambda _: connections.dec())


def on_store(_: CStore) -> int:
    return 0x0000


def main() -> None:
    ae, registry = AE(ae_title="STORE"), CollectorRegistry()
    ae.add_requested_context(CTImageStorage)
    ae.add_supported_context(CTImageStorage)
    exporter, _ = start_http_server(0, "127.0.0.1", registry)
    with ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)]) as server:
        measure(server.events, registry)
        with ae.associate(*server.address) as assoc:
            assoc.send_c_store(CT)
    page = urlopen(f"http://127.0.0.1:{exporter.server_port}/metrics").read().decode()
    shown = ("dicom_operation_seconds_count", "dicom_stored_bytes_total", "dicom_connections")
    print(*(line for line in page.splitlines() if line.startswith(shown)), sep="\n")


if __name__ == "__main__":
    main()
