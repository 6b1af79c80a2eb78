"""Stored instances, the studies that they make up, and the heads of datasets that tell which these are."""

import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence
from reactivex import Subject, compose
from reactivex import operators as ops

from rxdicom.errors import ArgumentError, DatasetError
from rxdicom.events import records
from rxdicom.events.datasets import decode, encode
from rxdicom.operators import CompletedStudy, Overflow, StoredInstance, completed_studies, stored_instances
from rxdicom.operators.heads import (
    HEAD_LIMIT,
    MODALITY,
    SERIES_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    head_of,
)
from rxdicom.wire.dimse import Command
from rxdicom.wire.encoded import Encoded
from rxdicom.wire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from tests.operators.support import (
    CT,
    Assoc,
    Elsewhere,
    Run,
    Timed,
    aborted,
    at,
    closed,
    dataset,
    received,
    released,
    run,
    sent,
    store,
    through,
)
from tests.support import dataset_bytes, storable_files

ONE, TWO = Assoc("STORE-1", "CT1"), Assoc("STORE-2", "MR1", "QR")
SYNTAXES = (
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
)
TAGS = (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, MODALITY)


# ---- stored instances


def test_a_stored_instance() -> None:
    request, response = store(ONE, 1, "1.1", "1.1.1", 5, status=0xB000)
    (instance,) = through(stored_instances(), request, response)
    assert instance == StoredInstance(
        association="STORE-1",
        calling_ae_title="CT1",
        called_ae_title="STORE",
        timestamp=at(5),
        study_instance_uid="1.1",
        series_instance_uid="2.1",
        modality="CT",
        sop_class_uid=CT,
        sop_instance_uid="1.1.1",
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        size=request.message.data.size if request.message.data else -1,
        status=0xB000,
    )
    assert "CITIZEN" not in repr(instance)


def test_what_is_not_stored() -> None:
    request, response = store(ONE, 1, "1.1", "1.1.1")
    refused = store(ONE, 2, "1.1", "1.1.2", status=0xA700)
    of_the_peer = (sent(Command.C_STORE_RQ, ONE, MessageID=3), received(Command.C_STORE_RSP, ONE, Status=0))
    assert through(stored_instances(), response, *refused, *of_the_peer) == []
    for end in (released(ONE), aborted(ONE), closed(ONE)):
        assert through(stored_instances(), request, end, response) == []


def test_without_a_dataset_it_is_of_no_study() -> None:
    request = received(Command.C_STORE_RQ, ONE, MessageID=1)
    (instance,) = through(stored_instances(), request, store(ONE, 1, None, "")[1])
    assert (instance.study_instance_uid, instance.size, instance.transfer_syntax_uid) == ("", 0, "")


def test_what_a_peer_calls_a_uid_is_not_kept_at_any_length() -> None:
    endless = "1." * 30_000
    request = received(
        Command.C_STORE_RQ,
        ONE,
        MessageID=1,
        AffectedSOPClassUID=endless,
        AffectedSOPInstanceUID=endless,
        data=dataset("1.1", series=endless[:2000]),
    )
    (instance,) = through(stored_instances(), request, store(ONE, 1, None, "")[1])
    assert (len(instance.sop_class_uid), len(instance.sop_instance_uid)) == (128, 128)
    assert (instance.study_instance_uid, instance.series_instance_uid) == ("1.1", "")


def test_the_path_is_where_the_handler_saved_what_was_received_into_a_file(tmp_path: Path) -> None:
    def received_into_a_file() -> tuple[Encoded, Any, Any]:
        spooled = tmp_path / "spooled"
        spooled.write_bytes(b"head" + (dataset("1.1").data or b""))
        data = Encoded(EXPLICIT_VR_LITTLE_ENDIAN, path=str(spooled), offset=4, size=1000, temporary=True)
        request = received(Command.C_STORE_RQ, ONE, MessageID=1, AffectedSOPInstanceUID="1.1.1", data=data)
        return data, request, store(ONE, 1, None, "")[1]

    data, request, response = received_into_a_file()
    (forgotten,) = through(stored_instances(), request, response)
    assert (forgotten.study_instance_uid, forgotten.path) == ("1.1", None)

    data, request, response = received_into_a_file()

    def save(event: Any) -> Any:
        if event is response:
            data.path, data.temporary = str(tmp_path / "saved"), False
        return event

    kept = through(compose(ops.map(save), stored_instances()), request, response)
    assert [each.path for each in kept] == [str(tmp_path / "saved")]


# ---- completed studies


def stored(when: int, assoc: Any, number: int, study: str | None, **more: Any) -> list[Timed]:
    """Instance ``number`` of a study is stored, at a time of the virtual clock."""
    return [(when, event) for event in store(assoc, number, study, f"{study}.{number}", when, **more)]


def studies(items: list[Timed], quiet: float = 10, *, completed: int | None = None, **how: Any) -> Run:
    return run(lambda _: completed_studies(quiet, **how), items, completed=completed)


def told(done: Run) -> list[tuple[float, str, int, str]]:
    """When which studies were complete, with how many instances, and why."""
    return [
        (when, study.study_instance_uid, len(study.instances), study.completed_by)
        for when, study in done.items
        if isinstance(study, CompletedStudy)
    ]


def test_a_study_is_complete_after_a_quiet_time() -> None:
    items = [
        *stored(201, ONE, 1, "1.1"),
        *stored(205, TWO, 2, "1.1", series="2.2", modality="SR"),
        *stored(214, ONE, 3, "1.1", status=0xB000),
    ]
    done = studies(items)
    assert told(done) == [(224, "1.1", 3, "quiet")]
    study = done.items[0][1]
    sizes = [event.message.data.size for _, event in items[::2]]
    assert study == CompletedStudy(
        study_instance_uid="1.1",
        instances={"1.1.1": None, "1.1.2": None, "1.1.3": None},
        series={"2.1": 2, "2.2": 1},
        modalities={"CT": 2, "SR": 1},
        size=sum(sizes),
        calling_ae_titles=("CT1", "MR1"),
        called_ae_titles=("STORE", "QR"),
        first=at(201),
        last=at(214),
        completed_by="quiet",
    )
    assert "CITIZEN" not in repr(study)
    with pytest.raises(TypeError):
        study.instances["1.1.4"] = None


def test_studies_are_quiet_each_for_itself() -> None:
    items = [
        *stored(201, ONE, 1, "1.1"),
        *stored(203, ONE, 1, "1.2"),
        *stored(206, TWO, 2, "1.1"),
        *stored(212, TWO, 2, "1.2"),
    ]
    assert told(studies(items)) == [(216, "1.1", 2, "quiet"), (222, "1.2", 2, "quiet")]


def test_one_that_goes_on_is_emitted_again_with_what_came_then() -> None:
    items = [*stored(201, ONE, 1, "1.1"), *stored(220, ONE, 2, "1.1"), *stored(222, ONE, 3, "1.1")]
    assert told(studies(items)) == [(211, "1.1", 1, "quiet"), (232, "1.1", 2, "quiet")]


def test_an_instance_that_comes_again_counts_once_and_keeps_its_study_waiting() -> None:
    done = studies([*stored(201, ONE, 1, "1.1"), *stored(208, TWO, 1, "1.1")])
    assert told(done) == [(218, "1.1", 1, "quiet")]
    study = done.items[0][1]
    assert (study.series, study.modalities, study.calling_ae_titles) == ({"2.1": 1}, {"CT": 1}, ("CT1",))


def test_what_was_refused_or_has_no_study_does_not_count() -> None:
    items = [*stored(201, ONE, 1, "1.1"), *stored(205, ONE, 2, "1.1", status=0xA700), *stored(206, ONE, 3, None)]
    assert told(studies(items)) == [(211, "1.1", 1, "quiet")]


def test_at_the_release_of_the_association() -> None:
    items = [*stored(201, ONE, 1, "1.1"), *stored(202, ONE, 1, "1.2"), (205, released(ONE)), (206, closed(ONE))]
    assert told(studies(items, at_release=True)) == [(205, "1.1", 1, "release"), (205, "1.2", 1, "release")]
    assert told(studies(items)) == [(211, "1.1", 1, "quiet"), (212, "1.2", 1, "quiet")]


def test_at_the_release_of_the_last_association_that_brought_some_of_it() -> None:
    items = [
        *stored(201, ONE, 1, "1.1"),
        *stored(202, TWO, 2, "1.1"),
        *stored(203, TWO, 1, "1.2"),
        (205, released(ONE)),
        (208, released(TWO)),
    ]
    assert told(studies(items, at_release=True)) == [(208, "1.1", 2, "release"), (208, "1.2", 1, "release")]


def test_an_abort_leaves_the_quiet_time_to_come_again() -> None:
    items = [*stored(201, ONE, 1, "1.1"), (203, aborted(ONE)), (204, closed(ONE))]
    assert told(studies(items, at_release=True)) == [(211, "1.1", 1, "quiet")]
    again = [*items, *stored(206, TWO, 2, "1.1"), (208, released(TWO))]
    assert told(studies(again, at_release=True)) == [(208, "1.1", 2, "release")]


def test_a_release_of_another_association_is_none() -> None:
    items = [*stored(201, ONE, 1, "1.1"), (203, released(TWO))]
    assert told(studies(items, at_release=True)) == [(211, "1.1", 1, "quiet")]


def test_the_end_of_the_stream_completes_what_is_left() -> None:
    items = [*stored(201, ONE, 1, "1.1"), *stored(202, ONE, 1, "1.2")]
    done = studies(items, completed=205)
    assert told(done) == [(205, "1.1", 1, "end"), (205, "1.2", 1, "end")]
    assert done.ending == (205, None)


def test_too_many_studies_the_one_that_was_quiet_for_the_longest_goes_first() -> None:
    items = [
        *stored(201, ONE, 1, "1.1"),
        *stored(202, ONE, 1, "1.2"),
        *stored(203, ONE, 2, "1.1"),
        *stored(204, ONE, 1, "1.3"),
        *stored(205, ONE, 1, "1.4"),
    ]
    assert told(studies(items, limit=2)) == [
        (204, "1.2", 1, "limit"),
        (205, "1.1", 2, "limit"),
        (214, "1.3", 1, "quiet"),
        (215, "1.4", 1, "quiet"),
    ]


def test_too_many_instances_in_one_study_and_in_several() -> None:
    one = [each for number in range(5) for each in stored(201 + number, ONE, number, "1.1")]
    assert told(studies(one, instance_limit=2)) == [(203, "1.1", 3, "limit"), (215, "1.1", 2, "quiet")]
    several = [*stored(201, ONE, 1, "1.1"), *stored(202, ONE, 1, "1.2"), *stored(203, ONE, 2, "1.2")]
    assert told(studies(several, instance_limit=2)) == [(203, "1.1", 1, "limit"), (213, "1.2", 2, "quiet")]


def test_there_is_no_timer_for_each_instance() -> None:
    items = [each for number in range(60) for each in stored(201 + number, ONE, number, f"1.{number % 7}")]
    done = studies(items)
    assert sum(len(study.instances) for _, study in done.items) == 60
    assert len(done.clock.ran) < 30


@pytest.mark.parametrize("how", [{"quiet": 0}, {"quiet": 5, "limit": 0}, {"quiet": 5, "instance_limit": -1}])
def test_times_and_bounds_are_positive(how: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="more than 0"):
        completed_studies(**how)


def test_memory_is_bounded() -> None:
    """Four thousand instances, of which a hundred may wait."""
    limit = 100
    bound = 100 * 4096
    emitted = 0

    def count(study: CompletedStudy) -> None:
        nonlocal emitted
        emitted += len(study.instances)

    source = Subject[records.Event]()
    source.pipe(completed_studies(3600, limit=limit, instance_limit=limit)).subscribe(count)
    encoded = {study: dataset(f"1.{study}") for study in range(1000)}

    def bring(first: int, last: int) -> None:
        for number in range(first, last):
            data = encoded[number % 1000]
            source.on_next(
                received(Command.C_STORE_RQ, ONE, MessageID=1, AffectedSOPInstanceUID=str(number), data=data)
            )
            source.on_next(sent(Command.C_STORE_RSP, ONE, MessageIDBeingRespondedTo=1, Status=0))

    bring(0, 1000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        bring(1000, 4000)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < bound
    assert peak - before < bound
    assert emitted == 4000 - limit
    source.on_completed()
    assert emitted == 4000


def test_an_observer_that_holds_up_too_many_studies_ends_the_pipeline() -> None:
    with Elsewhere() as elsewhere:
        items = elsewhere.hold_up(completed_studies(0.001, at_release=True, limit=3), store(ONE, 1, "0", "0.1"))
        for number in range(1, 5):
            for event in (*store(TWO, 1, f"{number}", f"{number}.1"), released(TWO)):
                elsewhere.source.on_next(event)
        elsewhere.go_on()
        assert [study.study_instance_uid for study in items] == ["0", "1", "2", "3"]
        (error,) = elsewhere.errors
        assert isinstance(error, Overflow)
        assert error.bound == 3


# ---- heads


@pytest.mark.parametrize("path", storable_files(), ids=lambda path: path.name)
def test_heads_of_real_files_are_those_that_pydicom_reads(path: Path) -> None:
    head = storable_files()[path]
    encoded = Encoded(head.transfer_syntax_uid, dataset_bytes(path))
    on_disk = Encoded(head.transfer_syntax_uid, path=str(path), offset=head.offset, size=encoded.size)
    assert head_of(on_disk, *TAGS) == head_of(encoded, *TAGS)
    try:
        whole = decode(encoded)
    except DatasetError:
        return
    expected = tuple(str(whole.get(keyword, "")) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "Modality"))
    assert head_of(encoded, *TAGS) == expected


def nested(*, undefined: bool, items: int = 1) -> Dataset:
    """A dataset with the UIDs of another study in a sequence before its own."""
    inner, made = Dataset(), Dataset()
    inner.StudyInstanceUID, inner.Modality = "9.9", "XX"
    inner.is_undefined_length_sequence_item = undefined
    made.ReferencedStudySequence = Sequence([inner] * items)
    made["ReferencedStudySequence"].is_undefined_length = undefined
    made.Modality, made.StudyInstanceUID, made.SeriesInstanceUID, made.PatientComments = "CT", "1.1", "2.1", "x" * 400
    return made


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("items", [1, 2000])
def test_sequences_are_stepped_over(syntax: str, undefined: bool, items: int, tmp_path: Path) -> None:
    data = encode(nested(undefined=undefined, items=items), syntax)
    assert head_of(Encoded(syntax, data), *TAGS) == ("1.1", "2.1", "CT")
    file = tmp_path / "spooled"
    file.write_bytes(b"head" + data)
    assert head_of(Encoded(syntax, path=str(file), offset=4, size=len(data)), *TAGS) == ("1.1", "2.1", "CT")


def test_implicit_vr_where_explicit_was_agreed_on() -> None:
    data = encode(nested(undefined=False), IMPLICIT_VR_LITTLE_ENDIAN)
    assert head_of(Encoded(EXPLICIT_VR_LITTLE_ENDIAN, data), *TAGS) == ("1.1", "2.1", "CT")


@pytest.mark.parametrize(
    "encoded",
    [
        None,
        Encoded(EXPLICIT_VR_LITTLE_ENDIAN, b""),
        Encoded(EXPLICIT_VR_LITTLE_ENDIAN, b"\0" * 7),
        Encoded(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, b"not deflated"),
        Encoded(EXPLICIT_VR_LITTLE_ENDIAN, path="/nowhere/at/all", size=10),
        Encoded(EXPLICIT_VR_LITTLE_ENDIAN),
        Encoded(EXPLICIT_VR_LITTLE_ENDIAN, b"", error=OSError("disk full")),
        Encoded(EXPLICIT_VR_LITTLE_ENDIAN, b"\x20\0\x0d\0UI\xff\xff1.1"),
        Encoded(IMPLICIT_VR_LITTLE_ENDIAN, b"\x20\0\x0d\0\xff\xff\xff\x7f1.1"),
    ],
)
def test_what_cannot_be_read_tells_nothing(encoded: Encoded | None) -> None:
    assert head_of(encoded, *TAGS) == ("", "", "")


def test_a_head_is_looked_at_up_to_a_limit() -> None:
    padding = b"\x08\0\x01\0UI\0\0" * (HEAD_LIMIT // 8)
    study = b"\x20\0\x0d\0UI\x04\x001.1\0"
    assert head_of(Encoded(EXPLICIT_VR_LITTLE_ENDIAN, padding[:-16] + study), STUDY_INSTANCE_UID) == ("1.1",)
    assert head_of(Encoded(EXPLICIT_VR_LITTLE_ENDIAN, padding + study), STUDY_INSTANCE_UID) == ("",)
    bomb = zlib.compress(padding * 4 + study, 9, -zlib.MAX_WBITS)
    assert head_of(Encoded(DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, bomb), STUDY_INSTANCE_UID) == ("",)


@given(st.binary(max_size=300), st.sampled_from(SYNTAXES))
def test_no_bytes_make_it_raise(data: bytes, syntax: str) -> None:
    assert len(head_of(Encoded(syntax, data), *TAGS)) == 3


@given(st.data())
def test_no_cut_makes_it_raise_or_guess(data: st.DataObject) -> None:
    syntax = data.draw(st.sampled_from(SYNTAXES))
    whole = encode(nested(undefined=True), syntax)
    cut = data.draw(st.integers(0, len(whole)))
    for value, full in zip(head_of(Encoded(syntax, whole[:cut]), *TAGS), ("1.1", "2.1", "CT"), strict=True):
        assert value in ("", full)
