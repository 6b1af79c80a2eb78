"""The TLS contexts that the options of a program describe. Loaded, and ``ssl`` with it, for ``--tls`` only."""

import os
import ssl
from argparse import Namespace
from collections.abc import Callable

from rxdicom.apps.console import LOG, reason
from rxdicom.errors import ArgumentError


def client_context(args: Namespace) -> ssl.SSLContext:
    """That of a client. Raises :class:`~rxdicom.errors.ArgumentError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if args.insecure:
        LOG.warning("--insecure: whoever answers at %s is trusted, its certificate is not verified", args.host)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif args.ca:
        _load(context.load_verify_locations, "--ca", args.ca)
    else:
        context.load_default_certs()
    if args.cert:
        _load_certificate(context, args)
    return context


def server_context(args: Namespace) -> ssl.SSLContext:
    """That of a server. Raises :class:`~rxdicom.errors.ArgumentError`."""
    if not args.cert:
        raise ArgumentError("--tls needs --cert, the certificate of this server")
    if args.require_client_cert and not args.ca:
        raise ArgumentError("--require-client-cert needs --ca, to check certificates with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_certificate(context, args)
    if args.ca:
        _load(context.load_verify_locations, "--ca", args.ca)
        context.verify_mode = ssl.CERT_REQUIRED if args.require_client_cert else ssl.CERT_OPTIONAL
    return context


def _load_certificate(context: ssl.SSLContext, args: Namespace) -> None:
    option = "--key" if args.key and os.path.isfile(args.cert) else "--cert"

    def refuse_to_ask() -> str:
        # OpenSSL would stop and ask the terminal, which a server or a script has none of.
        raise ArgumentError(f"{args.key or args.cert}: the private key is encrypted; decrypt it into a file first")

    _load(context.load_cert_chain, option, args.cert, args.key, refuse_to_ask)


def _load(load: Callable[..., object], option: str, path: str, *more: object) -> None:
    """Load certificates; what is wrong with them is said with the option and the file."""
    try:
        load(path, *more)
    except ssl.SSLError as error:
        raise ArgumentError(f"{option}: {path}: {error.reason or 'no usable PEM file'}") from error
    except OSError as error:
        raise ArgumentError(f"{option}: {path}: {reason(error)}") from error
