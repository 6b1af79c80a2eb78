"""The wire layer: PDUs, user-information items and DIMSE messages as frozen records, and codecs to and from bytes.

Imports the standard library and attrs only, does no I/O, knows UIDs as ``str``.
"""
