"""The information models of queries and retrievals: chosen, proposed with what is negotiated about them, accepted."""

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from rxdicom import Association, sop_class
from rxdicom.application_information import ApplicationInformation, QueryRetrieveInformation, RetrieveInformation
from rxdicom.apps.console import LOG
from rxdicom.errors import ArgumentError
from rxdicom.wire.items import SOPClassExtended

if TYPE_CHECKING:
    from pydicom import Dataset

FIND, MOVE, GET = "C-FIND", "C-MOVE", "C-GET"

_ROOTS = {"patient": "1.2.840.10008.5.1.4.1.2.1", "study": "1.2.840.10008.5.1.4.1.2.2"}
_PATIENT_STUDY_ONLY = "1.2.840.10008.5.1.4.1.2.3"
_LAST_NUMBER = {FIND: 1, MOVE: 2, GET: 3}
_WORKLIST = "1.2.840.10008.5.1.4.31"
_UPS_PULL = "1.2.840.10008.5.1.4.34.6.3"
# The lowest of the unique keys that an identifier has tells on which level it is (PS3.4 C.6).
_UNIQUE_KEYS = (
    ("IMAGE", "SOPInstanceUID"),
    ("SERIES", "SeriesInstanceUID"),
    ("STUDY", "StudyInstanceUID"),
    ("PATIENT", "PatientID"),
)

_QUERY_OPTIONS = {
    "relational": ("relational_queries", "keys of any level, without the unique keys of those above"),
    "date-time": ("date_time_matching", "a date and a time match as one"),
    "fuzzy": ("fuzzy_person_names", "person names match by their sound, or however the peer does it"),
    "timezone": ("timezone_adjustment", "TimezoneOffsetFromUTC of the query counts for its dates and times"),
    "multi-frame": ("multi_frame_conversion", "QueryRetrieveView chooses classic or enhanced multi-frame images"),
    "empty-value": ("empty_value_matching", 'the value "" matches attributes that have none'),
    "multiple-value": ("multiple_value_matching", "several values of a key match any of them"),
}
_RETRIEVE_OPTIONS = {
    "relational": ("relational_retrieval", _QUERY_OPTIONS["relational"][1]),
    "multi-frame": ("multi_frame_conversion", _QUERY_OPTIONS["multi-frame"][1]),
}


def add_model_options(parser: ArgumentParser, operation: str) -> None:
    """The information model, and what is negotiated about it; ``operation`` is one of FIND, MOVE, GET."""
    group = parser.add_argument_group(
        "information model (default: patient root on the level PATIENT; else study root, or patient root if the peer "
        "accepts only that)"
    )
    number = _LAST_NUMBER[operation]
    rows = [
        ("-P", "--patient", f"{_ROOTS['patient']}.{number}", "patient root"),
        ("-S", "--study", f"{_ROOTS['study']}.{number}", "study root"),
        ("-O", "--psonly", f"{_PATIENT_STUDY_ONLY}.{number}", "patient/study only (retired)"),
    ]
    if operation == FIND:
        rows += [
            ("-W", "--worklist", _WORKLIST, "modality worklist"),
            ("-U", "--ups", _UPS_PULL, "unified procedure steps (pull)"),
        ]
    exclusive = group.add_mutually_exclusive_group()
    for short, long, uid, meaning in rows:
        exclusive.add_argument(short, long, dest="model", action="store_const", const=uid, help=meaning)
    exclusive.add_argument("--model", metavar="SOPCLASS", help="any other, by its keyword or UID")
    negotiated = parser.add_argument_group("extended negotiation (told if the peer does not agree)")
    for flag, (_, meaning) in _options(operation).items():
        negotiated.add_argument(f"--{flag}", action="store_true", help=meaning)


def _options(operation: str) -> dict[str, tuple[str, str]]:
    return _QUERY_OPTIONS if operation == FIND else _RETRIEVE_OPTIONS


@frozen
class Models:
    """The models to be proposed for an operation, the most wanted first, and what is to be agreed about them."""

    operation: str
    uids: tuple[str, ...]
    options: tuple[str, ...] = ()
    """The flags of extended negotiation that were given."""

    def items(self) -> list[SOPClassExtended]:
        """The items of extended negotiation; none if there is nothing to be agreed."""
        return [self._information(uid).item(uid) for uid in self.uids] if self.options else []

    def _information(self, uid: str) -> ApplicationInformation:
        table = _options(self.operation)
        chosen: Any = {table[flag][0]: True for flag in self.options}
        if self.operation != FIND:
            return RetrieveInformation(**chosen)
        fixed = QueryRetrieveInformation() if _has_levels(uid) else QueryRetrieveInformation.worklist()
        return evolve(fixed, **chosen)

    def accepted(self, assoc: Association) -> str:
        """The model to be used; the first if none was accepted, so that the request says so.

        Options that the peer does not agree to are warnings in the log.
        """
        usable = {context.abstract_syntax for context in assoc.accepted_contexts}
        model = next((uid for uid in self.uids if uid in usable), self.uids[0])
        items = [item for item in assoc.acceptor.user_information if isinstance(item, SOPClassExtended)]
        answers = {item.sop_class_uid: item.application_information for item in items}
        agreed = type(self._information(model)).decode(answers.get(model, b""))
        table = _options(self.operation)
        for flag in self.options:
            if not getattr(agreed, table[flag][0]):
                LOG.warning("the peer does not agree to --%s; it may answer as if that were not given", flag)
        return model


def choose(args: Namespace, operation: str, identifier: "Dataset") -> Models:
    """The models that the options and the level of the identifier ask for; a level that lacks is added to it.

    Raises :class:`~rxdicom.errors.ArgumentError`.
    """
    options = tuple(flag for flag in _options(operation) if getattr(args, flag.replace("-", "_")))
    if args.model is not None:
        model = _resolved(args.model, operation)
        if _has_levels(model):
            _settle_level(identifier, operation)
        return Models(operation, (model,), options)
    level = _settle_level(identifier, operation)
    roots = ("patient",) if level == "PATIENT" else ("study", "patient")
    return Models(operation, tuple(f"{_ROOTS[root]}.{_LAST_NUMBER[operation]}" for root in roots), options)


def _has_levels(uid: str) -> bool:
    return uid.rpartition(".")[0] in (*_ROOTS.values(), _PATIENT_STUDY_ONLY)


def _resolved(model: str, operation: str) -> str:
    """The UID of a model that was named by its UID or keyword."""
    uid = named_uid("--model", model)
    only = sop_class.uid_to_sop_class(uid).dimse_msg_type
    if only not in ("", operation):
        raise ArgumentError(f"--model: {sop_class.uid_to_sop_class(uid).name} is for {only}, and not for {operation}")
    return uid


def named_uid(option: str, name: str) -> str:
    """The UID that an option names, by itself or by the keyword of a SOP class or transfer syntax.

    Raises :class:`~rxdicom.errors.ArgumentError`.
    """
    uid: Any = name
    if not name[:1].isdigit():
        import pydicom.uid

        uid = getattr(sop_class, name, None) or getattr(pydicom.uid, name, None)
        if not isinstance(uid, str):
            raise ArgumentError(f"{option}: nothing has the keyword {name}; give the UID")
    return str(sop_class.checked_uid(uid, option))


def _settle_level(identifier: "Dataset", operation: str) -> str:
    """The Query/Retrieve Level. An identifier without gets that of its lowest unique key.

    A query without unique keys, or that of the patient alone, asks for studies: it mostly is a list of a patient's.
    """
    if not identifier.get("QueryRetrieveLevel"):
        default, lowest = ("STUDY", _UNIQUE_KEYS[:-1]) if operation == FIND else ("", _UNIQUE_KEYS)
        level = next((level for level, key in lowest if key in identifier), default)
        if not level:
            keys = ", ".join(key for _, key in _UNIQUE_KEYS)
            raise ArgumentError(f"there is nothing to retrieve; give one of {keys} with -k")
        identifier.QueryRetrieveLevel = level
    return str(identifier.QueryRetrieveLevel)
