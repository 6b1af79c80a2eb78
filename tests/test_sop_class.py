"""SOP classes, their services and the registry; pynetdicom is the oracle for what belongs where."""

import copy
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pydicom
import pynetdicom.sop_class as peer
import pytest
from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID

from rxdicom import service_class, sop_class
from rxdicom.errors import ArgumentError
from rxdicom.service_class import (
    QueryRetrieveServiceClass,
    ServiceClass,
    StorageManagementServiceClass,
    StorageServiceClass,
    UnknownServiceClass,
)
from rxdicom.sop_class import (
    LazyUID,
    checked_uid,
    register_uid,
    sop_classes,
    standard_sop_classes,
    storage_sop_classes,
    uid_to_service_class,
    uid_to_sop_class,
)

ROOT = Path(sop_class.__file__).parents[1]
THEIRS: dict[str, dict[str, str]] = {
    **{service.__name__: group for service, group in vars(peer)["_SERVICE_TO_UID_GROUP"].items()},
    "InventoryQueryRetrieveServiceClass": vars(peer)["_INVENTORY_CLASSES"],
    "StorageManagementServiceClass": vars(peer)["_STORAGE_MANAGEMENT_CLASSES"],
}
COUNTS = {
    "VerificationServiceClass": 1,
    "StorageServiceClass": 170,
    "QueryRetrieveServiceClass": 13,
    "BasicWorklistManagementServiceClass": 1,
    "ColorPaletteQueryRetrieveServiceClass": 3,
    "DefinedProcedureProtocolQueryRetrieveServiceClass": 3,
    "HangingProtocolQueryRetrieveServiceClass": 3,
    "ImplantTemplateQueryRetrieveServiceClass": 9,
    "InventoryQueryRetrieveServiceClass": 3,
    "NonPatientObjectStorageServiceClass": 9,
    "ProtocolApprovalQueryRetrieveServiceClass": 3,
    "RelevantPatientInformationQueryServiceClass": 3,
    "SubstanceAdministrationQueryServiceClass": 2,
    "ApplicationEventLoggingServiceClass": 2,
    "DisplaySystemManagementServiceClass": 1,
    "InstanceAvailabilityNotificationServiceClass": 1,
    "MediaCreationManagementServiceClass": 1,
    "PrintManagementServiceClass": 11,
    "ProcedureStepServiceClass": 3,
    "RTMachineVerificationServiceClass": 2,
    "StorageCommitmentServiceClass": 1,
    "StorageManagementServiceClass": 1,
    "UnifiedProcedureStepServiceClass": 5,
}
pydicom_3_0 = pytest.mark.skipif(not pydicom.__version__.startswith("3.0"), reason="counts are of pydicom 3.0's PS3.6")


def service_named(name: str) -> ServiceClass:
    return getattr(service_class, name)


def in_new_python(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, timeout=30).stdout.strip()


@pytest.fixture(autouse=True)
def empty_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vars(sop_class)["_REGISTRY"], "entries", {})


def test_there_are_23_service_classes_each_under_its_name() -> None:
    found = {name for name, value in vars(service_class).items() if isinstance(value, ServiceClass)}
    assert found == {*COUNTS, "UnknownServiceClass"}
    assert all(service_named(name).name == name for name in found)
    assert len(COUNTS) == 23


@pytest.mark.parametrize("name", COUNTS)
def test_every_sop_class_of_the_peer_is_in_the_same_service(name: str) -> None:
    ours = {str(uid) for uid in sop_classes(service_named(name))}
    assert ours >= set(THEIRS[name].values())
    for keyword, uid in THEIRS[name].items():
        imported: sop_class.SOPClass = getattr(sop_class, keyword)
        assert imported == uid
        assert imported.service_class is service_named(name) is uid_to_service_class(uid)
        assert imported.name != uid
        assert getattr(sop_class, imported.keyword) == uid


@pydicom_3_0
@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_no_service_has_more_than_the_standard_gives_it(name: str, count: int) -> None:
    assert len(standard_sop_classes(service_named(name))) == count
    assert set(standard_sop_classes(service_named(name))) == set(THEIRS[name].values())


@pydicom_3_0
def test_storage_sop_classes() -> None:
    assert len(storage_sop_classes()) == 170
    assert all(uid.service_class is StorageServiceClass for uid in storage_sop_classes())


def test_the_four_that_pydicom_lacks_are_complete() -> None:
    for keyword, uid in (
        ("WaveformPresentationStateStorage", "1.2.840.10008.5.1.4.1.1.9.100.1"),
        ("WaveformAcquisitionPresentationStateStorage", "1.2.840.10008.5.1.4.1.1.9.100.2"),
        ("LabelMapSegmentationStorage", "1.2.840.10008.5.1.4.1.1.66.7"),
        ("HeightMapSegmentationStorage", "1.2.840.10008.5.1.4.1.1.66.8"),
    ):
        known: sop_class.SOPClass = getattr(sop_class, keyword)
        assert (known, known.keyword, known.type, known.is_private) == (uid, keyword, "SOP Class", False)
        assert known.name.replace(" ", "") == keyword


WELL_KNOWN = {
    "StorageCommitmentPushModelInstance": "1.2.840.10008.1.20.1.1",
    "StorageCommitmentPullModelInstance": "1.2.840.10008.1.20.2.1",  # retired
    "ProceduralEventLoggingInstance": "1.2.840.10008.1.40.1",
    "SubstanceAdministrationLoggingInstance": "1.2.840.10008.1.42.1",
    "PrinterInstance": "1.2.840.10008.5.1.1.17",
    "PrinterConfigurationRetrievalInstance": "1.2.840.10008.5.1.1.17.376",
    "PrintQueueInstance": "1.2.840.10008.5.1.1.25",  # retired
    "DisplaySystemInstance": "1.2.840.10008.5.1.1.40.1",
    "StorageManagementInstance": "1.2.840.10008.5.1.4.1.1.201.1.1",
    "UPSGlobalSubscriptionInstance": "1.2.840.10008.5.1.4.34.5",
    "UPSFilteredGlobalSubscriptionInstance": "1.2.840.10008.5.1.4.34.5.1",
    "HotIronPalette": "1.2.840.10008.1.5.1",
    "PETPalette": "1.2.840.10008.1.5.2",
    "HotMetalBluePalette": "1.2.840.10008.1.5.3",
    "PET20StepPalette": "1.2.840.10008.1.5.4",
    "SpringPalette": "1.2.840.10008.1.5.5",
    "SummerPalette": "1.2.840.10008.1.5.6",
    "FallPalette": "1.2.840.10008.1.5.7",
    "WinterPalette": "1.2.840.10008.1.5.8",
}
"""The instances that PS3.6 table A-1 has."""


@pytest.mark.parametrize(("keyword", "uid"), WELL_KNOWN.items())
def test_a_well_known_instance_can_be_imported(keyword: str, uid: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"from rxdicom.sop_class import {keyword}", namespace)
    instance: sop_class.SOPClass = namespace[keyword]
    assert (instance, instance.keyword, instance.type) == (uid, keyword, "Well-known SOP Instance")
    assert instance.service_class is UnknownServiceClass, "it is no SOP class"


@pydicom_3_0
def test_these_are_all_well_known_instances_and_those_of_the_peer_are_among_them() -> None:
    known = {uid for uid in map(uid_to_sop_class, UID_dictionary) if uid.type == "Well-known SOP Instance"}
    assert known == set(WELL_KNOWN.values())
    names = [name for name, value in vars(peer).items() if name.endswith("Instance") and isinstance(value, UID)]
    assert len(names) == 9
    assert [WELL_KNOWN[name] for name in names] == [getattr(peer, name) for name in names]


def test_a_sop_class_is_a_uid_with_more() -> None:
    ct: sop_class.SOPClass = sop_class.CTImageStorage
    assert type(ct) is sop_class.SOPClass
    assert isinstance(ct, UID)
    assert (ct, ct.name, ct.keyword, ct.type) == (
        "1.2.840.10008.5.1.4.1.1.2",
        "CT Image Storage",
        "CTImageStorage",
        "SOP Class",
    )
    assert not ct.is_transfer_syntax
    assert uid_to_sop_class("1.2.840.10008.1.2.4.50").is_compressed
    assert uid_to_sop_class("1.2.3").name == "1.2.3"


@pytest.mark.parametrize(
    ("keyword", "operation"),
    [
        ("StudyRootQueryRetrieveInformationModelFind", "C-FIND"),
        ("StudyRootQueryRetrieveInformationModelMove", "C-MOVE"),
        ("CompositeInstanceRetrieveWithoutBulkDataGet", "C-GET"),
        ("RepositoryQuery", "C-FIND"),
        ("ModalityWorklistInformationFind", "C-FIND"),
        ("GeneralRelevantPatientInformationQuery", "C-FIND"),
        ("UnifiedProcedureStepQuery", "C-FIND"),
        ("UnifiedProcedureStepPush", ""),
        ("CTImageStorage", ""),
        ("Verification", ""),
    ],
)
def test_the_one_operation_of_a_sop_class(keyword: str, operation: str) -> None:
    assert getattr(sop_class, keyword).dimse_msg_type == operation


@pytest.mark.parametrize(
    ("uid", "service"),
    [
        ("1.2.840.10008.4.2", "StorageServiceClass"),
        ("1.2.840.10008.5.1.4.34.6", "UnifiedProcedureStepServiceClass"),
        ("1.2.840.10008.5.1.4.1.1.5", "StorageServiceClass"),  # retired
        ("1.2.840.10008.5.1.1.29", "StorageServiceClass"),  # retired
        ("1.2.840.10008.5.1.4.1.1.501.1", "StorageServiceClass"),  # DICOS
        ("1.2.840.10008.5.1.4.1.1.999.1", "StorageServiceClass"),  # not assigned yet
        ("1.2.840.10008.5.1.4.1.1.200.2", "StorageServiceClass"),
        ("1.2.840.10008.5.1.4.1.1.201.1.1", "UnknownServiceClass"),  # an instance
        ("1.2.840.10008.5.1.4.1.1.", "UnknownServiceClass"),
        ("1.2.840.10008.1.3.10", "UnknownServiceClass"),  # media, not network
        ("1.2.840.10008.1.1.1", "UnknownServiceClass"),
        ("1.2.840.10008.1.2", "UnknownServiceClass"),
        ("1.2.840.10008x1.1", "UnknownServiceClass"),
        ("1.1", "UnknownServiceClass"),
        ("", "UnknownServiceClass"),
        ("1.2.840.10008." + "1" * 100_000, "UnknownServiceClass"),
    ],
)
def test_the_service_of_other_uids(uid: str, service: str) -> None:
    assert uid_to_service_class(uid) is service_named(service)


def test_retired_and_foreign_storage_is_storable_but_not_proposed() -> None:
    everything, current = (set(standard_sop_classes(StorageServiceClass, obsolete)) for obsolete in (True, False))
    assert {"1.2.840.10008.5.1.4.1.1.5", "1.2.840.10008.5.1.4.1.1.501.1"} <= everything - current
    assert current < everything


def test_unknown_keywords_are_attribute_and_import_errors() -> None:
    with pytest.raises(AttributeError, match="register_uid"):
        _: Any = sop_class.NoSuchStorage
    with pytest.raises(ImportError):
        exec("from rxdicom.sop_class import NoSuchStorage")
    assert not hasattr(sop_class, "__path__")


def test_star_import_and_dir_have_every_keyword() -> None:
    namespace: dict[str, Any] = {}
    exec("from rxdicom.sop_class import *", namespace)
    wanted = {keyword for group in THEIRS.values() for keyword in group} | {"PrinterInstance", "SOPClass"}
    assert wanted <= set(namespace)
    assert wanted - {"SOPClass"} <= set(dir(sop_class))


def test_sop_and_service_classes_survive_copies_and_pickles() -> None:
    ct = sop_class.CTImageStorage
    for other in (copy.copy(ct), copy.deepcopy(ct), pickle.loads(pickle.dumps(ct))):
        assert type(other) is type(ct)
        assert other.service_class is StorageServiceClass
    for again in (copy.deepcopy(StorageServiceClass), pickle.loads(pickle.dumps(StorageServiceClass))):
        assert again is StorageServiceClass


def test_service_classes_are_immutable_and_have_a_table_for_each_operation() -> None:
    with pytest.raises(AttributeError):
        StorageServiceClass.name = "other"  # pyright: ignore[reportAttributeAccessIssue]
    for name in COUNTS:
        service = service_named(name)
        assert service.operations
        assert set(service.by_operation) <= set(service.operations)
        assert all(0x0000 in service.status_table(operation) for operation in service.operations)
    for service in (QueryRetrieveServiceClass, service_class.InventoryQueryRetrieveServiceClass):
        assert 0xA801 in service.status_table("C-MOVE")
        assert 0xA801 not in service.status_table("C-GET")
        assert 0xFF01 in service.status_table("C-FIND")
    assert repr(StorageServiceClass) == "<StorageServiceClass>"


def test_there_is_one_sop_class_type_even_if_threads_ask_together() -> None:
    code = """
import sys, threading
from rxdicom import sop_class
import pydicom.uid
sys.setswitchinterval(1e-6)
barrier, kinds = threading.Barrier(8), []
def ask():
    barrier.wait()
    kinds.append(sop_class.SOPClass)
threads = [threading.Thread(target=ask) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(kinds), len(set(kinds)))
"""
    assert in_new_python(code) == "8 1"


def test_importing_and_asking_for_services_loads_nothing() -> None:
    code = """
import sys
from rxdicom import sop_class
sop_class.uid_to_service_class("1.2.840.10008.5.1.4.1.1.2")
sop_class.checked_uid("1.2.840.10008.1.1", "uid")
hasattr(sop_class, "__wrapped__")
print({"pydicom", "reactivex", "numpy"} & set(sys.modules))
"""
    assert in_new_python(code) == "set()"


# Registering


def test_a_registered_keyword_can_be_imported_and_has_its_service() -> None:
    code = """
from rxdicom.sop_class import register_uid
from rxdicom.service_class import StorageServiceClass
register_uid("1.2.246.352.70.1.70", "FooStorage", StorageServiceClass)
from rxdicom.sop_class import FooStorage, storage_sop_classes
print(FooStorage, FooStorage.service_class, FooStorage.keyword, FooStorage.name, FooStorage in storage_sop_classes())
"""
    assert in_new_python(code) == "1.2.246.352.70.1.70 <StorageServiceClass> FooStorage FooStorage True"


@pytest.mark.parametrize("name", COUNTS)
def test_private_classes_of_every_service_can_be_registered(name: str) -> None:
    before = sop_classes(service_named(name))
    register_uid("1.2.3.4", "PrivateThing", service_named(name), "C-MOVE")
    assert uid_to_service_class("1.2.3.4") is service_named(name)
    assert sop_classes(service_named(name)) == (*before, "1.2.3.4")
    assert sop_class.PrivateThing.dimse_msg_type == "C-MOVE"
    assert "1.2.3.4" not in standard_sop_classes(service_named(name))


def test_registering_again_replaces() -> None:
    register_uid("1.2.3.4", "FirstName", StorageServiceClass)
    register_uid("1.2.3.4", "SecondName", StorageManagementServiceClass)
    assert sop_class.SecondName.service_class is StorageManagementServiceClass
    assert not hasattr(sop_class, "FirstName")
    register_uid("1.2.3.4", "SecondName", StorageServiceClass)
    assert sop_class.SecondName.service_class is StorageServiceClass


def test_a_standard_uid_can_be_given_another_service() -> None:
    register_uid("1.2.840.10008.10.1", "VideoEndoscopicImageRealTimeCommunication", StorageServiceClass)
    assert sop_class.VideoEndoscopicImageRealTimeCommunication.service_class is StorageServiceClass


@pytest.mark.parametrize("keyword", ["CTImageStorage", "SOPClass", "register_uid", "OtherStorage", "PrinterInstance"])
def test_a_keyword_that_is_taken_is_refused(keyword: str) -> None:
    register_uid("1.2.3.5", "OtherStorage", StorageServiceClass)
    with pytest.raises(ArgumentError, match="already; choose another"):
        register_uid("1.2.3.4", keyword, StorageServiceClass)
    assert uid_to_service_class("1.2.3.4") is UnknownServiceClass


@pytest.mark.parametrize("keyword", ["", "1st", "with space", "class", "__all__", "_hidden"])
def test_a_keyword_that_cannot_be_imported_is_refused(keyword: str) -> None:
    with pytest.raises(ValueError, match="not a Python identifier"):
        register_uid("1.2.3.4", keyword, StorageServiceClass)


@pytest.mark.parametrize("uid", ["", "abc", "1..2", "1.2.3.4 5", "1." + "2" * 70])
def test_a_bad_uid_is_refused(uid: str) -> None:
    with pytest.raises(ArgumentError, match="not a UID"):
        register_uid(uid, "PrivateThing", StorageServiceClass)


def test_query_retrieve_needs_to_know_the_operation() -> None:
    for bad in ("", "C-STORE", "C-CANCEL"):
        with pytest.raises(ArgumentError, match="C-FIND, C-GET or C-MOVE"):
            register_uid("1.2.3.4", "PrivateFind", QueryRetrieveServiceClass, bad)
    register_uid("1.2.3.4", "PrivateFind", QueryRetrieveServiceClass, dimse_msg_type="C-FIND")
    assert sop_class.PrivateFind.dimse_msg_type == "C-FIND"


def test_a_keyword_gives_no_operation_that_its_service_does_not_have() -> None:
    register_uid("1.2.3.4", "PrivateGet", StorageServiceClass)
    register_uid("1.2.3.5", "PrivatePaletteGet", service_class.ColorPaletteQueryRetrieveServiceClass)
    assert (sop_class.PrivateGet.dimse_msg_type, sop_class.PrivatePaletteGet.dimse_msg_type) == ("", "C-GET")


@pytest.mark.parametrize("service", ["StorageServiceClass", None, ServiceClass])
def test_only_a_service_class_is_one(service: ServiceClass) -> None:
    with pytest.raises(TypeError, match=r"rxdicom\.service_class"):
        register_uid("1.2.3.4", "PrivateThing", service)


def test_nothing_is_lost_when_threads_register_together() -> None:
    barrier = threading.Barrier(8)

    def register(number: int) -> None:
        barrier.wait(10)
        for index in range(20):
            register_uid(f"1.2.3.{number}.{index}", f"Private{number}x{index}", StorageServiceClass)

    threads = [threading.Thread(target=register, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(storage_sop_classes()) - len(standard_sop_classes(StorageServiceClass)) == 160


# UIDs that load nothing


def test_a_lazy_uid_is_text_that_answers_as_a_uid() -> None:
    uid = LazyUID("1.2.840.10008.5.1.4.1.1.2")
    assert (uid, hash(uid), repr(uid)) == (str(uid), hash(str(uid)), repr(str(uid)))
    assert LazyUID("1.2.840.10008.1.2.2").is_little_endian is False
    assert (LazyUID("1.2.840.10008.1.1").name, LazyUID("1.2.3").is_private) == ("Verification SOP Class", True)
    with pytest.raises(AttributeError):
        _ = uid.no_such_thing
    for other in (copy.deepcopy(uid), pickle.loads(pickle.dumps(uid))):
        assert (type(other), other.keyword) == (LazyUID, "CTImageStorage")


def test_a_lazy_uid_keeps_a_private_encoding() -> None:
    uid = LazyUID("1.2.3.4")
    uid.set_private_encoding(True, True)
    assert (uid.is_transfer_syntax, uid.is_implicit_VR, UID(uid).is_implicit_VR) == (True, True, True)


def test_a_lazy_uid_of_junk_has_a_name_and_warns_nobody(recwarn: pytest.WarningsRecorder) -> None:
    assert LazyUID("junk" * 50).name == "junk" * 50
    assert [str(warning.message) for warning in recwarn] == []


def test_checked_uids() -> None:
    assert checked_uid(b"1.2.840.10008.1.1\0", "uid") == "1.2.840.10008.1.1"
    assert checked_uid(" 1.2.3 ", "uid") == "1.2.3"
    assert checked_uid("1.02.3", "uid") == "1.02.3"
    private = UID("1.2.3.4")
    assert checked_uid(private, "uid") is private
    with pytest.raises(TypeError, match="uid must be a UID as str or bytes, not int"):
        checked_uid(12, "uid")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ArgumentError, match="'CTImageStorage' is not a UID"):
        checked_uid("CTImageStorage", "uid")
