"""Print management with DCMTK, all N services but N-EVENT-REPORT: our SCU to its printer, its print SCU to ours."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from rxdicom import AE, Association, evt
from rxdicom.events.bindings import EventHandler
from rxdicom.events.records import NAction, NCreate, NDelete, NGet, NSet
from rxdicom.sop_class import (
    BasicFilmBox,
    BasicFilmSession,
    BasicGrayscaleImageBox,
    BasicGrayscalePrintManagementMeta,
    PresentationLUT,
    Printer,
    PrinterInstance,
)
from tests.interop.archives import Printers, dcmprscp
from tests.interop.memory import identifier
from tests.ports import free_port

pytestmark = pytest.mark.peer

META = str(BasicGrayscalePrintManagementMeta)
PIXELS = bytes(range(16))


@pytest.fixture(scope="module")
def our_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def printers(tmp_path_factory: pytest.TempPathFactory, our_port: int) -> Generator[Printers]:
    with dcmprscp(tmp_path_factory.mktemp("print"), our_port) as printers:
        yield printers


@pytest.fixture(scope="module")
def stored_print(printers: Printers) -> Path:
    """A film that their printer printed for us."""
    with printing(printers) as assoc:
        print_film(assoc)
    return printers.printed[0]


def printing(printers: Printers) -> Association:
    ae = AE()
    ae.add_requested_context(META)
    ae.add_requested_context(PresentationLUT)
    return ae.associate("127.0.0.1", printers.port, ae_title="PRINTER")


def reference(sop_class: str, instance: str | None) -> list[Dataset]:
    return [identifier(ReferencedSOPClassUID=str(sop_class), ReferencedSOPInstanceUID=instance)]


def image() -> Dataset:
    return identifier(
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=4,
        Columns=4,
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        PixelData=PIXELS,
    )


def print_film(assoc: Association) -> tuple[str, str]:
    """A session with a film of one image, printed; the session and the film."""
    session, attributes = assoc.send_n_create(identifier(NumberOfCopies="1"), BasicFilmSession, meta_uid=META)
    assert (session, attributes and attributes.NumberOfCopies) == (0x0000, 1)
    film = identifier(ImageDisplayFormat="STANDARD\\1,1", FilmOrientation="PORTRAIT", FilmSizeID="8INX10IN")
    film.ReferencedFilmSessionSequence = reference(BasicFilmSession, session.AffectedSOPInstanceUID)
    box, attributes = assoc.send_n_create(film, BasicFilmBox, meta_uid=META)
    assert box == 0x0000
    assert attributes is not None
    image_box = attributes.ReferencedImageBoxSequence[0].ReferencedSOPInstanceUID
    content = identifier(ImageBoxPosition=1, BasicGrayscaleImageSequence=[image()])
    assert assoc.send_n_set(content, BasicGrayscaleImageBox, image_box, meta_uid=META)[0] == 0x0000
    films = str(box.AffectedSOPInstanceUID)
    assert assoc.send_n_action(None, 1, BasicFilmBox, films, meta_uid=META)[0] == 0x0000
    return str(session.AffectedSOPInstanceUID), films


# ---- their printer


def test_the_printer(printers: Printers) -> None:
    """The attributes that were asked for, and no others; a class that the meta SOP class has not."""
    with printing(printers) as assoc:
        status, attributes = assoc.send_n_get([0x21100010], Printer, PrinterInstance, meta_uid=META)
        refused = assoc.send_n_delete(Printer, PrinterInstance, meta_uid=META)
    assert (status, attributes) == (0x0000, identifier(PrinterStatus="NORMAL"))
    assert refused.category == "Failure"


def test_a_film(printers: Printers) -> None:
    before = len(printers.printed)
    with printing(printers) as assoc:
        session, film = print_film(assoc)
        lut, _ = assoc.send_n_create(identifier(PresentationLUTShape="IDENTITY"), PresentationLUT)
        assert lut == 0x0000
        assert [
            assoc.send_n_delete(PresentationLUT, str(lut.AffectedSOPInstanceUID)),
            assoc.send_n_delete(BasicFilmBox, film, meta_uid=META),
            assoc.send_n_delete(BasicFilmSession, session, meta_uid=META),
        ] == [0x0000] * 3
        assert assoc.send_n_delete(BasicFilmSession, session, meta_uid=META) == 0x0112
    assert len(printers.printed) == before + 1


# ---- our printer


class OurPrinter:
    """The handlers of a printer that keeps what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        """Name and SOP class of each request."""
        self.instances: dict[str, Dataset] = {}
        self.printed: list[bytes] = []

    def _note(self, event: Any) -> str:
        sop_class = str(event.request.AffectedSOPClassUID or event.request.RequestedSOPClassUID)
        self.calls.append((event.name.removeprefix("EVT_"), sop_class))
        return sop_class

    def create(self, event: NCreate) -> tuple[int, Dataset]:
        sop_class = self._note(event)
        made = event.attribute_list
        made.AffectedSOPInstanceUID = f"1.2.3.{len(self.instances) + 1}"
        self.instances[made.AffectedSOPInstanceUID] = made
        if sop_class == BasicFilmBox:
            uid = f"{made.AffectedSOPInstanceUID}.1"
            self.instances[uid] = Dataset()
            made.ReferencedImageBoxSequence = reference(BasicGrayscaleImageBox, uid)
        return 0x0000, made

    def get(self, event: NGet) -> tuple[int, Dataset]:
        self._note(event)
        return 0x0000, identifier(PrinterStatus="NORMAL", PrinterStatusInfo="NORMAL")

    def set(self, event: NSet) -> tuple[int, Dataset | None]:
        self._note(event)
        self.instances[event.request.RequestedSOPInstanceUID or ""].update(event.modification_list)
        return 0x0000, None

    def act(self, event: NAction) -> tuple[int, Dataset | None]:
        self._note(event)
        assert event.action_type == 1
        boxes = [each for each in self.instances.values() if "BasicGrayscaleImageSequence" in each]
        self.printed += [box.BasicGrayscaleImageSequence[0].PixelData for box in boxes]
        return 0x0000, None

    def delete(self, event: NDelete) -> int:
        self._note(event)
        del self.instances[event.request.RequestedSOPInstanceUID or ""]
        return 0x0000

    @property
    def handlers(self) -> list[EventHandler]:
        return [
            (evt.EVT_N_CREATE, self.create),
            (evt.EVT_N_GET, self.get),
            (evt.EVT_N_SET, self.set),
            (evt.EVT_N_ACTION, self.act),
            (evt.EVT_N_DELETE, self.delete),
        ]


def test_a_film_for_us(printers: Printers, our_port: int, stored_print: Path) -> None:
    """All of it comes under the SOP classes of the meta SOP class, whose context carries them."""
    printer = OurPrinter()
    ae = AE("RXPRINTER")
    ae.add_supported_context(META)
    ae.add_supported_context(PresentationLUT)
    with ae.start_server(("127.0.0.1", our_port), block=False, evt_handlers=printer.handlers):
        printers.send(stored_print)
    assert printer.calls == [
        ("N_GET", Printer),
        ("N_CREATE", PresentationLUT),
        ("N_CREATE", BasicFilmSession),
        ("N_CREATE", BasicFilmBox),
        ("N_SET", BasicGrayscaleImageBox),
        ("N_ACTION", BasicFilmBox),
        ("N_DELETE", BasicFilmBox),
        ("N_DELETE", BasicFilmSession),
        ("N_DELETE", PresentationLUT),
    ]
    # It sends pixels of 12 bits.
    assert printer.printed == [b"".join((each << 4).to_bytes(2, "little") for each in PIXELS)]
