"""``rxdicom echoscu``: C-ECHO as a user; says whether the peer answers, and how fast."""

import time
from argparse import ArgumentParser, Namespace

from rxdicom import Status
from rxdicom.apps.console import complain, escaped
from rxdicom.apps.options import add_client_options, connector, make_ae, positive
from rxdicom.wire.uids import VERIFICATION


def add_arguments(parser: ArgumentParser) -> None:
    """The options of this program."""
    parser.add_argument("--repeat", metavar="N", type=positive, default=1, help="send so many requests (default 1)")
    add_client_options(parser, "ECHOSCU")


def run(args: Namespace) -> int:
    """Send the requests; 0 if all were answered with success."""
    ae = make_ae(args)
    ae.add_requested_context(VERIFICATION)
    latencies: list[float] = []
    status = Status.SUCCESS
    with connector(ae, args)(None) as assoc:
        while status == Status.SUCCESS and len(latencies) < args.repeat:
            sent = time.perf_counter()
            status = assoc.send_c_echo()
            latencies.append(time.perf_counter() - sent)
    if status != Status.SUCCESS:
        complain("echoscu", f"the peer answers 0x{status:04X} {status.description}")
        return 1
    if not args.quiet:
        print(f"{escaped(args.called_aet)} at {escaped(args.host)}:{args.port} answers: {_summary(latencies)}")
    return 0


def _summary(latencies: list[float]) -> str:
    milliseconds = sorted(1000 * each for each in latencies)
    if len(milliseconds) == 1:
        return f"{milliseconds[0]:.2f} ms"
    median = milliseconds[len(milliseconds) // 2]
    spread = f"{milliseconds[0]:.2f} to {milliseconds[-1]:.2f} ms, median {median:.2f} ms"
    return f"{len(milliseconds)} times in {sum(latencies):.2f} s, {spread}"
