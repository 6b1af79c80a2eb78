"""An alert when there are three failures within a minute: rejections, aborts and bad statuses of a server together."""

from contextlib import suppress

from reactivex import operators as ops

from rxdicom import AE, AssociationRejected, evt
from rxdicom.events.records import CEcho
from rxdicom.operators import Failure, activity, failures
from rxdicom.sop_class import Verification


def within_a_minute(several: list[Failure]) -> bool:
    """Of records alone, so that it can be tested without waiting."""
    return (several[-1].timestamp - several[0].timestamp).total_seconds() <= 60


def alert(several: list[Failure]) -> None:
    print(f"ALERT: {len(several)} failures within a minute")
    for failure in several:
        print(f"  {failure.calling_ae_title}: {failure.kind}: {failure.cause}")


def on_echo(_: CEcho) -> int:
    return 0x0122


def main() -> None:
    ae = AE(ae_title="ME")
    ae.add_requested_context(Verification)
    ae.add_supported_context(Verification)
    ae.require_called_aet = True
    with ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_ECHO, on_echo)]) as server:
        of_three = activity(server.events).pipe(failures(), ops.buffer_with_count(3, 1))
        of_three.pipe(ops.filter(lambda several: len(several) == 3 and within_a_minute(several))).subscribe(alert)
        with ae.associate(*server.address, ae_title="ME") as assoc:
            assoc.send_c_echo()
        ae.associate(*server.address, ae_title="ME").abort()
        with suppress(AssociationRejected):
            ae.associate(*server.address, ae_title="SOMEBODY")


if __name__ == "__main__":
    main()
