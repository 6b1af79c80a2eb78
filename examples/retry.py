"""Retry with back-off: an association is opened anew by Rx operators, each time after twice as long."""

import socket

import reactivex
from reactivex import Observable
from reactivex import operators as ops

from rxdicom import AE, AssociationServer, ConnectionFailed
from rxdicom.sop_class import Verification


def echo(ae: AE, port: int) -> int:
    with ae.association("127.0.0.1", port) as assoc:
        return assoc.send_c_echo()


def with_backoff(ae: AE, port: int, delay: float, attempts: int) -> Observable[int]:
    """The status, once the peer can be reached; its last failure after so many attempts."""

    def again(error: Exception, _: Observable[int]) -> Observable[int]:
        if not isinstance(error, ConnectionFailed) or attempts == 1:
            return reactivex.throw(error)
        print(f"{type(error).__name__}, once more in {delay} s")
        later = with_backoff(ae, port, 2 * delay, attempts - 1)
        return reactivex.timer(delay).pipe(ops.flat_map(lambda _: later))

    return reactivex.from_callable(lambda: echo(ae, port)).pipe(ops.catch(again))


def main() -> None:
    ae = AE(ae_title="ME")
    ae.add_requested_context(Verification)
    ae.add_supported_context(Verification)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    servers: list[AssociationServer] = []
    # The peer comes up while we are trying.
    starting = reactivex.timer(0.15).pipe(ops.map(lambda _: ae.start_server(("127.0.0.1", port), block=False)))
    starting.subscribe(servers.append)
    print(f"answered 0x{with_backoff(ae, port, 0.1, attempts=10).run():04X}")
    ae.shutdown()


if __name__ == "__main__":
    main()
