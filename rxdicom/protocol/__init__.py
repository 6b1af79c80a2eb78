"""The protocol layer: state machine, negotiation, message assembly, and the sans-I/O :class:`Protocol` object.

Imports the wire layer only. Bytes and the time come in as arguments; bytes and notices go out as results.
"""
