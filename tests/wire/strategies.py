"""Hypothesis strategies for every item, PDU and message that may be sent, and for damaged ones. Touches nothing."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from rxdicom.wire.dimse import COMMANDS, ELEMENTS, Command, Message, message
from rxdicom.wire.encoded import Encoded
from rxdicom.wire.items import (
    AsyncOperationsWindow,
    ImplementationClassUID,
    ImplementationVersionName,
    MaximumLength,
    PresentationContextAC,
    PresentationContextRQ,
    RoleSelection,
    SOPClassCommonExtended,
    SOPClassExtended,
    UserIdentity,
    UserIdentityResponse,
    UserItem,
)
from rxdicom.wire.pdu import PDU, PDV, Abort, AssociateAC, AssociateRJ, AssociateRQ, PDataTF, ReleaseRP, ReleaseRQ

REPEATABLE = settings(max_examples=30, deadline=None, derandomize=True, database=None)
"""The same examples in every run, as many as fit a quick suite, no clock."""
MANY = settings(REPEATABLE, max_examples=200)
"""For cheap properties that are searched for surprises."""

u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
blobs = st.binary(max_size=40)
uids = st.lists(st.integers(0, 10**30), min_size=1, max_size=3).map(
    lambda parts: ".".join(map(str, parts))[:64].strip(".")
)
context_ids = st.integers(0, 127).map(lambda index: 2 * index + 1)


def _text(size: int) -> SearchStrategy[str]:
    """Printable ASCII without the backslash (PS3.5 §6.2), its padding stripped."""
    letters = st.sampled_from([chr(code) for code in range(0x20, 0x7F) if chr(code) != "\\"])
    return st.text(letters, max_size=size).map(str.strip)


ae_titles = _text(16).filter(bool)

presentation_context_rq = st.builds(PresentationContextRQ, context_ids, uids, st.lists(uids, max_size=4).map(tuple))
presentation_context_ac = st.builds(PresentationContextAC, context_ids, st.integers(0, 4), uids)

USER_ITEMS: dict[type[UserItem], SearchStrategy[UserItem]] = {
    MaximumLength: st.builds(MaximumLength, u32),
    ImplementationClassUID: st.builds(ImplementationClassUID, uids),
    AsyncOperationsWindow: st.builds(AsyncOperationsWindow, u16, u16),
    RoleSelection: st.builds(RoleSelection, uids, st.booleans(), st.booleans()),
    ImplementationVersionName: st.builds(ImplementationVersionName, _text(16)),
    SOPClassExtended: st.builds(SOPClassExtended, uids, blobs),
    SOPClassCommonExtended: st.builds(SOPClassCommonExtended, uids, uids, st.lists(uids, max_size=3).map(tuple)),
    # pynetdicom misreads an empty primary field, which identifies nobody anyway.
    UserIdentity: st.builds(UserIdentity, st.integers(1, 5), st.booleans(), blobs.filter(bool), blobs),
    UserIdentityResponse: st.builds(UserIdentityResponse, blobs),
}
user_information = st.lists(st.one_of(*USER_ITEMS.values()), max_size=6).map(tuple)

_associate = {
    "called_ae_title": ae_titles,
    "calling_ae_title": ae_titles,
    "user_information": user_information,
    "application_context": uids,
    "protocol_version": u16,
    "reserved": st.binary(min_size=32, max_size=32),
}
pdvs = st.builds(PDV, u8, u8, blobs)

PDUS: dict[type[PDU], SearchStrategy[PDU]] = {
    AssociateRQ: st.builds(
        AssociateRQ,
        **_associate,
        presentation_contexts=st.lists(presentation_context_rq, max_size=4).map(tuple),
    ),
    AssociateAC: st.builds(
        AssociateAC,
        **_associate,
        presentation_contexts=st.lists(presentation_context_ac, max_size=4).map(tuple),
    ),
    AssociateRJ: st.builds(AssociateRJ, u8, u8, u8),
    PDataTF: st.builds(PDataTF, st.lists(pdvs, min_size=1, max_size=4).map(tuple)),
    ReleaseRQ: st.just(ReleaseRQ()),
    ReleaseRP: st.just(ReleaseRP()),
    Abort: st.builds(Abort, u8, u8),
}
pdus = st.one_of(*PDUS.values())

_BY_VR: dict[str, SearchStrategy[object]] = {
    "US": u16,
    "UL": u32,
    "UI": uids,
    "AE": ae_titles,
    "LO": _text(64),
    "AT": st.lists(u32, max_size=4).map(tuple),
}


def messages(kind: Command) -> SearchStrategy[Message]:
    """Messages of one command: all required elements, any of the optional ones, a dataset where there can be one."""
    required, optional, dataset = COMMANDS[kind]
    datasets = {
        "always": st.builds(Encoded, uids, blobs),
        "never": st.none(),
        "maybe": st.none() | st.builds(Encoded, uids, blobs),
    }
    elements = st.fixed_dictionaries(
        {keyword: _BY_VR[ELEMENTS[keyword].vr] for keyword in sorted(required)},
        optional={keyword: _BY_VR[ELEMENTS[keyword].vr] for keyword in sorted(optional)},
    )

    def build(context_id: int, data: Encoded | None, found: dict[str, object]) -> Message:
        return message(kind, context_id, data, **found)

    return st.builds(build, context_ids, datasets[dataset], elements)


any_message = st.sampled_from(Command).flatmap(messages)


@st.composite
def damaged(draw: st.DrawFn, whole: SearchStrategy[bytes]) -> bytes:
    """Valid bytes in which a few were overwritten, cut out or inserted, at places that Hypothesis chooses."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(data)
