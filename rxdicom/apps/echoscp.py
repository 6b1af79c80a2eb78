"""``rxdicom echoscp``: C-ECHO as a provider."""

from argparse import ArgumentParser, Namespace

from rxdicom.apps.options import add_server_options, make_ae
from rxdicom.apps.serving import serve
from rxdicom.wire.uids import VERIFICATION


def add_arguments(parser: ArgumentParser) -> None:
    """The options of this program."""
    add_server_options(parser, "ECHOSCP")


def run(args: Namespace) -> int:
    """Serve until told to stop."""
    ae = make_ae(args)
    ae.add_supported_context(VERIFICATION)
    return serve(ae, args, "answers C-ECHO")
