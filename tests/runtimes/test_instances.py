"""What is found in a batch of paths and datasets, and which contexts are proposed for it."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from rxdicom.errors import ArgumentError, InvalidFile
from rxdicom.runtimes.instances import (
    AHEAD,
    AHEAD_IN_MEMORY,
    FileInstance,
    Instance,
    Lookahead,
    Unsendable,
    batch_of,
    presentation_contexts,
    scan,
)
from rxdicom.sop_class import CTImageStorage
from rxdicom.wire.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tests.apps.support import SECONDARY_CAPTURE, dicom_file, read

JPEG = "1.2.840.10008.1.2.4.50"
UNCOMPRESSED = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)


# ---- what is found


def found(*paths: Path) -> dict[str, str]:
    """What is found at paths: by name, "" for an instance, else why not, "!" in front for a failure."""
    told: dict[str, str] = {}
    for each in scan(map(str, paths)):
        why = f"{'!' * each.is_failure}{each.reason}" if isinstance(each, Unsendable) else ""
        told[os.path.basename(str(each.given))] = why
    return told


def test_folders_are_searched_in_order_and_to_the_bottom(tmp_path: Path):
    names = ["b/2.dcm", "b/1", "a/z/9.dcm", "a/3.dcm", "0.dcm", "c.d/x"]
    for name in names:
        dicom_file(tmp_path / name)
    order = [os.path.relpath(str(each.given), tmp_path) for each in scan([tmp_path])]
    assert order == ["0.dcm", "a/3.dcm", "a/z/9.dcm", "b/1", "b/2.dcm", "c.d/x"]


def test_what_is_skipped_and_what_fails(tmp_path: Path):
    image = dicom_file(tmp_path / "image.dcm")
    whole = image.read_bytes()
    dicom_file(tmp_path / ".hidden")
    dicom_file(tmp_path / ".git" / "object")
    (tmp_path / "letter.txt").write_text("Dear colleague, " * 50)
    (tmp_path / "empty").touch()
    (tmp_path / "cut.dcm").write_bytes(whole[:-60])
    dicom_file(tmp_path / "DICOMDIR", sop_class="1.2.840.10008.1.3.10")
    dicom_file(tmp_path / "long.dcm", sop_class="1.2." + "3" * 70)
    (tmp_path / "bare").write_bytes(whole[whole.index(b"\x08\x00\x16\x00") :])
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link.dcm").symlink_to(image)
    (tmp_path / "loop").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    reasons = found(tmp_path)
    starts = {
        "image.dcm": "",
        "link.dcm": "",
        "bare": "",
        ".hidden": "hidden",
        ".git": "hidden",
        "letter.txt": "not a DICOM file",
        "empty": "an empty file",
        "DICOMDIR": "a DICOMDIR",
        "loop": "a link to a folder",
        "pipe": "not a regular file",
        "cut.dcm": "!cut off within the data set",
        "long.dcm": "!the SOP Class UID '1.2.33",
        "dangling": "!No such file",
    }
    assert set(reasons) == set(starts)
    for name, start in starts.items():
        assert reasons[name].startswith(start), (name, reasons[name])
        assert bool(reasons[name]) == bool(start)
    # The same that are named are failures, all of them.
    for name in ("letter.txt", "empty", "DICOMDIR", "pipe", "cut.dcm"):
        assert found(tmp_path / name)[name].startswith("!")
    assert found(tmp_path / ".hidden") == {".hidden": ""}
    assert found(Path("no\0path"))["no\0path"].startswith("!")


def test_a_folder_that_cannot_be_read_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", refuse)
    (each,) = scan([tmp_path])
    assert isinstance(each, Unsendable)
    assert (each.path, each.reason, each.is_failure) == (str(tmp_path), "Permission denied", True)


def test_a_head_beyond_the_first_read_is_found(tmp_path: Path):
    path = dicom_file(tmp_path / "image.dcm")
    whole = path.read_bytes()
    at = whole.index(b"\x08\x00\x16\x00")
    private = b"\x08\0\x01\0UN\0\0" + (100_000).to_bytes(4, "little") + bytes(100_000)
    path.write_bytes(whole[:at] + private + whole[at:])
    (each,) = scan([str(path)])
    assert isinstance(each, FileInstance)
    assert (each.path, each.head.offset, each.head.sop_class_uid) == (str(path), at, SECONDARY_CAPTURE)


def test_paths_folders_datasets_and_what_was_found_before_are_mixed(tmp_path: Path):
    path = dicom_file(tmp_path / "1.dcm", syntax=EXPLICIT_VR_LITTLE_ENDIAN)
    dicom_file(tmp_path / "folder" / "2.dcm", syntax=JPEG)
    made = Dataset()
    made.SOPClassUID = CTImageStorage
    earlier = Instance("3.dcm", "1.2.3", JPEG)
    unsendable = Unsendable("4.dcm", InvalidFile("4.dcm: hidden"), is_failure=False)
    stored = read(path)
    given: list[Any] = [path, tmp_path / "folder", made, earlier, unsendable, stored, Dataset(), 17]
    first, second, third, *others, no_class, no_dataset = scan(given)
    assert isinstance(first, Instance)
    assert isinstance(second, Instance)
    assert isinstance(third, Instance)
    assert first.given is path
    assert first.context == (SECONDARY_CAPTURE, (EXPLICIT_VR_LITTLE_ENDIAN,))
    assert (second.given, second.context) == (str(tmp_path / "folder" / "2.dcm"), (SECONDARY_CAPTURE, (JPEG,)))
    assert third.given is made
    assert third.context == (CTImageStorage, UNCOMPRESSED)
    assert others[:2] == [earlier, unsendable]
    assert isinstance(others[2], Instance)
    assert others[2].context == (SECONDARY_CAPTURE, (EXPLICIT_VR_LITTLE_ENDIAN,))
    for each in (no_class, no_dataset):
        assert isinstance(each, Unsendable)
        assert each.is_failure
        assert isinstance(each.error, ArgumentError)
        assert "SOPClassUID" in str(each.error)


def test_a_single_one_is_a_batch_of_one(tmp_path: Path):
    made = Dataset()
    for single in ("a.dcm", tmp_path, made):
        (only,) = batch_of(single)
        assert only is single
    several = iter(["a.dcm"])
    assert batch_of(several) is several


# ---- what is proposed


def instances(kinds: Sequence[tuple[str, str | None]], given: Any = None) -> Iterator[Instance]:
    for number, (sop_class, syntax) in enumerate(kinds):
        yield Instance(f"{number}.dcm" if given is None else given, sop_class, syntax)


def test_a_context_for_each_kind_and_one_to_convert_to():
    kinds = [("1.1", JPEG), ("1.2", EXPLICIT_VR_LITTLE_ENDIAN), ("1.1", "1.2.3"), ("1.1", JPEG), ("1.3", None)]
    queue = Lookahead(instances(kinds))
    assert queue.contexts(convert=True) == [
        ("1.1", (JPEG,)),
        ("1.1", UNCOMPRESSED),
        ("1.2", (EXPLICIT_VR_LITTLE_ENDIAN,)),
        ("1.2", UNCOMPRESSED),
        ("1.1", ("1.2.3",)),
        ("1.3", UNCOMPRESSED),
    ]
    assert queue.contexts(convert=False) == [
        ("1.1", (JPEG,)),
        ("1.2", (EXPLICIT_VR_LITTLE_ENDIAN,)),
        ("1.1", ("1.2.3",)),
        ("1.3", UNCOMPRESSED),
    ]
    (first, *_) = presentation_contexts(queue.contexts(convert=True))
    assert (first.abstract_syntax, first.transfer_syntax) == ("1.1", [JPEG])


@pytest.mark.parametrize(("convert", "associations"), [(True, [128, 128, 44]), (False, [128, 22])])
def test_no_association_has_more_than_128_contexts_and_every_instance_has_its_turn(
    convert: bool, associations: list[int]
):
    queue = Lookahead(instances([(f"1.2.{number}", JPEG) for number in range(150)]))
    sizes: list[int] = []
    sent: list[object] = []
    while queue.first() is not None:
        contexts = queue.contexts(convert=convert)
        sizes.append(len(contexts))
        while queue.next_for(contexts) is not None:
            sent.append(queue.take().given)
    assert sizes == associations
    assert sent == [f"{number}.dcm" for number in range(150)]


def test_what_is_put_back_comes_first_and_in_its_order():
    queue = Lookahead(instances([("1.2", JPEG)] * 4))
    one, two = queue.take() if queue.holds(2) else None, queue.take()
    assert one is not None
    assert queue.first_again() is None
    again = [Instance(each.given, each.sop_class_uid, each.transfer_syntax_uid, attempts=1) for each in (one, two)]
    queue.put_back(again)
    assert queue.first_again() is again[0]
    taken = [queue.take().given for _ in range(4) if queue.first() is not None]
    assert taken == ["0.dcm", "1.dcm", "2.dcm", "3.dcm"]
    assert not queue.holds(1)


@pytest.mark.parametrize(("given", "ahead"), [(None, AHEAD), (Dataset(), AHEAD_IN_MEMORY)])
def test_a_hundred_thousand_are_known_only_some_way_ahead(given: object, ahead: int):
    drawn = 0

    def many() -> Iterator[Instance]:
        nonlocal drawn
        for each in instances([("1.2.840", JPEG)] * 100_000, given):
            drawn += 1
            yield each

    queue = Lookahead(many())
    for taken in range(ahead + 10):
        if taken < 10:
            queue.contexts(convert=True)
        assert queue.first() is not None
        queue.take()
        assert drawn == max(ahead + min(taken, 9), taken + 1)
