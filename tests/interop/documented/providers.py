"""The examples that start servers, and what each of them is to do."""

import shutil
import ssl
import types
from collections.abc import Callable
from importlib import import_module
from typing import Any

from attrs import frozen
from pydicom import Dataset
from pydicom.tag import Tag

from tests.certificates import Certificates
from tests.interop.documented.pages import Key
from tests.interop.documented.peers import CT, Visitor, sop_class
from tests.interop.documented.play import Play
from tests.interop.documented.users import Given, image_file, nothing
from tests.support import read

Visit = Callable[[Play, Visitor], None]
PRIVATE_STORAGE = "1.2.246.352.70.1.70"
PATIENT_ROOT = "PatientRootQueryRetrieveInformationModel"


@frozen
class Provider:
    """What a SCP example does."""

    visits: tuple[Visit, ...]
    """What its servers are asked; where there are several, each while the example sleeps."""
    handlers: tuple[str, ...] = ()
    """Those that are called."""
    servers: int = 1
    given: Given = nothing


def _echoes(play: Play, visitor: Visitor) -> None:
    assert visitor.echo() == 0x0000


def _stores(status: int, name: str = "CTImageStorage") -> Visit:
    def visit(play: Play, visitor: Visitor) -> None:
        assert visitor.store(name) == status

    return visit


def stores_to_file(play: Play, visitor: Visitor) -> None:
    """The image arrives as the only file in the folder of the example."""
    assert visitor.store() == 0x0000
    (path,) = play.folder.iterdir()
    assert read(path) == read(CT)


def _gets_attributes(play: Play, visitor: Visitor) -> None:
    with visitor.associated("DisplaySystem") as assoc:
        status, attributes = assoc.send_n_get(
            [0x00080070], sop_class("DisplaySystem"), sop_class("DisplaySystemInstance")
        )
    assert (status.Status, attributes.Manufacturer) == (0x0000, "[(0008,0070)]")


def _own_code(**functions: Any) -> Given:
    def provide(play: Play) -> None:
        module = types.ModuleType("my_code")
        vars(module).update(functions)
        play.provide(module)

    return provide


def _list_of(tags: Any) -> Dataset:
    attributes = Dataset()
    attributes.Manufacturer = str([Tag(tag) for tag in ([tags] if isinstance(tags, int) else tags)])
    return attributes


def _performs(play: Play, visitor: Visitor) -> None:
    step = Dataset()
    step.PerformedProcedureStepStatus = "IN PROGRESS"
    done = Dataset()
    done.PerformedProcedureStepStatus = "COMPLETED"
    uid = sop_class("ModalityPerformedProcedureStep")
    with visitor.associated("ModalityPerformedProcedureStep") as assoc:
        status, created = assoc.send_n_create(step, uid, "1.2.3")
        assert (status.Status, created.SOPInstanceUID) == (0x0000, "1.2.3")
        assert assoc.send_n_create(step, uid, "1.2.3")[0].Status == 0x0111
        assert assoc.send_n_create(done, uid, "1.2.4")[0].Status == 0x0106
        status, changed = assoc.send_n_set(done, uid, "1.2.3")
        assert (status.Status, changed.PerformedProcedureStepStatus) == (0x0000, "COMPLETED")
        assert assoc.send_n_set(done, uid, "1.2.4")[0].Status == 0x0112


PATIENT = str(read(CT).PatientID)


def _query(level: str | None = "PATIENT", patient: str = PATIENT) -> Dataset:
    identifier = Dataset()
    identifier.PatientID = patient
    if level is not None:
        identifier.QueryRetrieveLevel = level
    return identifier


def _gets(play: Play, visitor: Visitor) -> None:
    received: list[Dataset] = []

    def on_store(event: Any) -> int:
        received.append(event.dataset)
        return 0x0000

    options = {
        "ext_neg": [visitor.stack.build_role(sop_class("CTImageStorage"), scp_role=True)],
        "evt_handlers": [(visitor.stack.evt.EVT_C_STORE, on_store)],
    }
    model = f"{PATIENT_ROOT}Get"
    with visitor.associated(model, "CTImageStorage", **options) as assoc:
        found = [status.Status for status, _ in assoc.send_c_get(_query(), sop_class(model))]
        refused = [status.Status for status, _ in assoc.send_c_get(_query(None), sop_class(model))]
    assert (found, received) == ([0xFF00, 0x0000], [read(CT)])
    # The original does not understand the failure that its own example yields first.
    assert refused == [0xC000 if play.package == "rxdicom" else 0xC413]


def _moves(play: Play, visitor: Visitor) -> None:
    play.names["get_known_aet"] = lambda: {"STORE_SCP": ("127.0.0.1", visitor.archive.port)}
    model = f"{PATIENT_ROOT}Move"
    with visitor.associated(model) as assoc:
        moved = [status.Status for status, _ in assoc.send_c_move(_query(), "STORE_SCP", sop_class(model))]
        unknown = [status.Status for status, _ in assoc.send_c_move(_query(), "UNKNOWN", sop_class(model))]
        refused = [status.Status for status, _ in assoc.send_c_move(_query(None), "STORE_SCP", sop_class(model))]
    assert (moved, unknown, visitor.archive.requests) == ([0xFF00, 0x0000], [0xA801], ["C_STORE"])
    assert refused == [0xC000 if play.package == "rxdicom" else 0xA801]


def _filled(instance: Dataset, identifier: Dataset) -> Dataset:
    return identifier


def _template(play: Play) -> None:
    image_file("one.dcm")(play)
    play.names["create_template"] = _filled


def _finds_relevant(play: Play, visitor: Visitor) -> None:
    model = "GeneralRelevantPatientInformationQuery"
    assert visitor.find(model, _query(None)) == [0xFF00, 0x0000]
    assert visitor.find(model, _query(None, "nobody")) == [0x0000]
    shutil.copy(CT, play.folder / "two.dcm")
    assert visitor.find(model, _query(None)) == [0xC100]


def _knows_one_user(play: Play, visitor: Visitor) -> None:
    def identity(name: bytes) -> Any:
        item = import_module(f"{visitor.stack.__name__}.pdu_primitives").UserIdentityNegotiation()
        item.user_identity_type = 1
        item.primary_field = name
        return item

    assert visitor.echo(ext_neg=[identity(b"somebody")]) == 0x0000
    assert visitor.is_rejected(ext_neg=[identity(b"nobody")])


def _known(event: Any) -> tuple[bool, None]:
    return event.primary_field == b"somebody", None


def _own_ae(play: Play) -> None:
    play.names["ae"] = play.stack.AE()
    play.names["ae"].add_supported_context(sop_class("Verification"))


def _has_title(play: Play, visitor: Visitor) -> None:
    assert play.listeners[0].server.ae_title == "STORE_SCP"
    _echoes(play, visitor)


def certificates(play: Play) -> None:
    """Those of a server and a client, and their keys."""
    for name in ("server", "client"):
        Certificates(play.folder, name)


def _echoes_by_tls(play: Play, visitor: Visitor) -> None:
    context = ssl.create_default_context(cafile=str(play.folder / "server.crt"))
    context.load_cert_chain(play.folder / "client.crt", play.folder / "client.key")
    assert visitor.echo(tls_args=(context, "127.0.0.1")) == 0x0000


def _logs(*texts: str) -> Visit:
    def visit(play: Play, visitor: Visitor) -> None:
        _echoes(play, visitor)
        assert all(play.logs(text) for text in texts)

    return visit


def _echoes_and_stores(play: Play, visitor: Visitor) -> None:
    assert (visitor.echo(), visitor.store()) == (0x0000, 0x0000)


def _offers_one_role(play: Play, visitor: Visitor) -> None:
    both = visitor.stack.build_role(sop_class("CTImageStorage"), scu_role=True, scp_role=True)
    with visitor.associated("CTImageStorage", ext_neg=[both]) as assoc:
        (context,) = assoc.accepted_contexts
        assert (context.as_scu, context.as_scp) == (True, False)


_ONE_IMAGE = image_file("one.dcm")
PROVIDERS: dict[Key, Provider] = {
    ("README", (1,)): Provider((_echoes,)),
    ("examples/display", (1,)): Provider(
        (_gets_attributes,), ("handle_get",), given=_own_code(create_attribute_list=_list_of)
    ),
    ("examples/mpps", (2,)): Provider((_performs,), ("handle_create",) * 3 + ("handle_set",) * 2),
    ("examples/qr_get", (2,)): Provider((_gets,), ("handle_get",) * 2, given=_ONE_IMAGE),
    ("examples/qr_move", (3,)): Provider((_moves,), ("handle_move",) * 3, given=_ONE_IMAGE),
    ("examples/relevant_patient", (2,)): Provider((_finds_relevant,), ("handle_find",) * 3, given=_template),
    ("examples/storage", (3,)): Provider((stores_to_file,), ("handle_store",)),
    ("examples/storage", (4,)): Provider((stores_to_file,), ("handle_store",)),
    ("examples/storage", (5,)): Provider((_stores(0x0000),), ("handle_store",)),
    ("examples/verification", (4,)): Provider((_echoes,), ("handle_echo",)),
    # Nothing is bound for C-STORE, which the page shows with its status.
    ("tutorials/create_scp", (0,)): Provider((_stores(0xC211),)),
    ("tutorials/create_scp", (1, 2, 3)): Provider((_stores(0xC211),)),
    ("tutorials/create_scp", (4,)): Provider((_stores(0x0000),), ("handle_store",)),
    ("tutorials/create_scp", (6,)): Provider((stores_to_file,), ("handle_store",)),
    # The handler uses a module that is not imported, and catches that.
    ("tutorials/create_scp", (7,)): Provider((_stores(0xC001),), ("handle_store",)),
    ("user/ae_scp", (0,)): Provider(
        (_knows_one_user,), ("handle_user_id",) * 2, given=_own_code(some_user_function=_known)
    ),
    ("user/association_accepting", (0,)): Provider((_echoes,)),
    ("user/association_accepting", (1,)): Provider((_echoes,), servers=2),
    ("user/association_accepting", (2,)): Provider((_has_title,), given=_own_ae),
    ("user/association_accepting", (3,)): Provider((_echoes,)),
    ("user/association_accepting", (4,)): Provider(
        (_logs("Connected", "'optional' and 'parameters'"),), ("handle_open", "handle_accepted")
    ),
    ("user/association_accepting", (5,)): Provider((_logs("Connected"), _logs("Disconnected")), ("handle_open",)),
    ("user/association_accepting", (6,)): Provider((_echoes_by_tls,), given=certificates),
    ("user/association_accepting", (7,)): Provider((_stores(0x0000),), ("handle_store",)),
    ("user/events_handlers", (0,)): Provider((_echoes_and_stores,), ("handle_echo", "handle_store")),
    ("user/presentation_acceptor", (0,)): Provider((_echoes,)),
    ("user/presentation_acceptor", (1,)): Provider((_echoes,)),
    ("user/presentation_acceptor", (2,)): Provider((_echoes,)),
    # The handler uses a name that is not there.
    ("user/presentation_private", (2, 3)): Provider((_stores(0xC211, PRIVATE_STORAGE),), ("handle_store",)),
    ("user/presentation_role_selection", (1,)): Provider((_offers_one_role,)),
}
