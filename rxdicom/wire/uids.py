"""The UIDs that the core itself needs, as plain ``str``: everything else comes from pydicom's dictionary, later."""

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

UNCOMPRESSED = (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)
DEFAULT_TRANSFER_SYNTAXES = (
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
)

IMPLEMENTATION_CLASS_UID = "2.25.77250340891803609320882522114968820657"
IMPLEMENTATION_VERSION_NAME = "RXDICOM_010"


def clean_uid(raw: bytes) -> str:
    """A UID as received: trailing NULs and spaces dropped, other junk kept visible (PS3.5 §9.1 pads with one NUL).

    >>> clean_uid(b"1.2.840.10008.1.1\\x00")
    '1.2.840.10008.1.1'
    """
    return raw.rstrip(b"\0 ").lstrip(b" ").decode("ascii", "backslashreplace")
