"""The examples that request associations, and what each of them is to do."""

import shutil
from collections.abc import Callable

from attrs import frozen

from tests.interop.documented.pages import Key
from tests.interop.documented.peers import CT, Archive, sop_class
from tests.interop.documented.play import Play
from tests.support import read

Given = Callable[[Play], None]
"""Provides what an example leaves to its reader."""


def nothing(play: Play) -> None:
    """The example has all that it needs."""


def _not_more(play: Play, archive: Archive) -> None:
    """What the other columns say is all."""


def image_file(path: str) -> Given:
    """A CT image in the folder of the example."""

    def provide(play: Play) -> None:
        (play.folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CT, play.folder / path)

    return provide


def _peer_address(play: Play) -> None:
    play.names |= {"addr": "127.0.0.1", "port": 11112}
    image_file("file-in.dcm")(play)


@frozen
class User:
    """What a SCU example does."""

    requests: tuple[str, ...] = ()
    """What arrives at its peer."""
    statuses: tuple[int, ...] = ()
    """What it prints."""
    associations: int = 1
    released: bool = True
    """Whether it releases the last one, or leaves it open."""
    is_destination: bool = False
    """Whether its C-MOVE goes to a server of its own."""
    given: Given = nothing
    check: Callable[[Play, Archive], None] = _not_more


def _exits_early(play: Play, archive: Archive) -> None:
    """The printer is ready, yet both branches leave: the original cannot get beyond its first request."""
    assert isinstance(play.error, SystemExit)
    play.error = None


def _saved(play: Play, archive: Archive) -> None:
    assert play.calls == ["handle_store"]
    assert read(play.folder / str(read(CT).SOPInstanceUID)) == read(CT)


def _stored(play: Play, archive: Archive) -> None:
    assert play.calls == ["handle_store"]


def _echoed(play: Play, archive: Archive) -> None:
    assert play.calls == ["handle_echo"]
    assert play.logs("Received C-ECHO")


def _called_another(play: Play, archive: Archive) -> None:
    assert [each.acceptor.ae_title for each in play.associations] == ["ANY-SCP", "STORE_SCP"]


def _identified(play: Play, archive: Archive) -> None:
    assert archive.users == [b"username"]
    assert len(play.associations[0].accepted_contexts) == 120


def _has_roles(play: Play, archive: Archive) -> None:
    roles = {str(each.abstract_syntax): (each.as_scu, each.as_scp) for each in play.associations[0].accepted_contexts}
    assert roles == {sop_class("CTImageStorage"): (True, True), sop_class("MRImageStorage"): (False, True)}


def _logged(*texts: str) -> Callable[[Play, Archive], None]:
    def check(play: Play, archive: Archive) -> None:
        assert all(play.logs(text) for text in texts)

    return check


FOUND = (0xFF00, 0x0000)
USERS: dict[Key, User] = {
    ("README", (0,)): User(("C_ECHO",), (0x0000,), given=_peer_address),
    ("README", (2,)): User(check=_echoed),
    ("README", (3,)): User(("C_STORE",), given=_peer_address),
    ("examples/basic_worklist", (0,)): User(("C_FIND",), FOUND),
    ("examples/display", (0,)): User(("N_GET",), (0x0000,)),
    ("examples/mpps", (0, 1)): User(("N_CREATE", "N_SET", "N_SET"), (0x0000,) * 3, 2),
    ("examples/print", (0,)): User(("N_GET",), given=image_file("path/to/file.dcm"), check=_exits_early),
    ("examples/qr_find", (0,)): User(("C_FIND",), FOUND),
    ("examples/qr_get", (0,)): User(("C_GET",), FOUND, check=_saved),
    ("examples/qr_move", (0,)): User(("C_MOVE", "C_STORE"), FOUND),
    ("examples/qr_move", (1,)): User(("C_MOVE",), FOUND, is_destination=True, check=_stored),
    ("examples/relevant_patient", (0,)): User(("C_FIND",), FOUND),
    ("examples/storage", (0,)): User(("C_STORE",), (0x0000,), given=image_file("path/to/dataset")),
    ("examples/storage", (2,)): User(associations=2),
    ("examples/verification", (1,)): User(("C_ECHO",), (0x0000,)),
    ("tutorials/create_scu", (0,)): User(),
    ("tutorials/create_scu", (1, 2, 3)): User(),
    ("tutorials/create_scu", (4,)): User(),
    ("tutorials/create_scu", (5,)): User(("C_ECHO",)),
    ("user/association_requesting", (0,)): User(),
    ("user/association_requesting", (0, 1)): User(associations=2, released=False, check=_called_another),
    ("user/association_requesting", (2,)): User(),
    ("user/association_requesting", (3,)): User(check=_identified),
    ("user/association_requesting", (4,)): User(check=_logged("Connected", "'optional' and 'parameters'")),
    ("user/association_requesting", (5,)): User(check=_logged("Connected", "Disconnected")),
    ("user/association_requesting", (7,)): User(),
    ("user/presentation_requestor", (0,)): User(released=False),
    ("user/presentation_requestor", (1,)): User(released=False),
    ("user/presentation_requestor", (2,)): User(released=False),
    ("user/presentation_role_selection", (0,)): User(released=False, check=_has_roles),
}
