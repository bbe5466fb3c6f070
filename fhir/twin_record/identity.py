"""Whose record this is: the guard against the wrong patient, before any work and before anything is written."""

from collections.abc import Iterable

from twin_record.endpoint import BundleEndpoint
from twin_record.found import person_found
from twin_record.names import names_agree
from twin_record.patient_identity import PatientIdentity
from twin_record.person import Person, followed, keys_of_person, records_of, whole_identifiers
from twin_record.resources.codes import DICOM_UID_SYSTEM, MODEL_SYSTEM
from twin_record.resources.content import Resource, held_if_invalid, is_literal, literal_of, short_reference
from twin_record.resources.imaging_study import study_value
from twin_record.resources.patient import new_patient, patient_key
from twin_record.search import read_all, search
from twin_record.update import TwinSite
from twin_scanner.errors import Held

WRONG_PATIENT = "this may be the wrong patient, so nothing was recorded"


def check_identity(
    identity: PatientIdentity, study_uid: str, site: TwinSite, endpoint: BundleEndpoint
) -> tuple[str, ...]:
    """Whether a study may be recorded as this patient's; see TwinTarget.

    One batch asks for each type of the record, so a server that does not let us read one says so before any work.
    """
    key = patient_key(identity.patient_id, identity.issuer_of_patient_id, site)
    keys = keys_of_person(key) | {
        "ImagingStudy": (DICOM_UID_SYSTEM, study_value(study_uid)),
        "Device": (MODEL_SYSTEM, "none"),
    }
    found = search(endpoint, keys)
    person, _ = person_found(found["Patient"], keys["Patient"], endpoint)
    studies = [study for study in found["ImagingStudy"] if study.get("status") != "entered-in-error"]
    records = records_of(person, keys["List"], found["List"], endpoint)
    return check_person(person, identity, site, [*studies, *records], endpoint)


def check_person(
    person: Person, identity: PatientIdentity, site: TwinSite, owned: Iterable[Resource], endpoint: BundleEndpoint
) -> tuple[str, ...]:
    """Compare whom the record knows by the CT's patient id with the CT, and with whom the `owned` resources name.

    Returns remarks. Raises Held where something contradicts, where nothing but the identifier can be compared and the
    site does not accept that, and where the record knows nobody and none may be created.
    """
    remarks: tuple[str, ...] = ()
    owned = list(owned)
    with held_if_invalid([person.patient, *owned]):
        if person.patient is not None:
            ours, alone = new_patient(identity, site), site.accept_identifier_alone
            remarks = check_same_person(person.patient, ours, identifier_alone=alone)
        elif site.unknown_patient == "hold":
            raise Held(
                "The FHIR server knows no Patient with the CT's patient id in the configured identifier system: "
                "correct the CT, the system in [twin] or the server, or set twin.unknown_patient; then release the job."
            )
        for resource in owned:
            _check_subject(resource, person, site, endpoint)
    return remarks


def check_same_person(theirs: Resource, ours: Resource, *, identifier_alone: bool) -> tuple[str, ...]:
    """Compare two Patients with the same identifier; ``identifier_alone`` says whether that is enough. Remarks.

    Raises Held where birth date, sex or name contradict each other, or where none of them can be compared.
    """
    ids = [value for _, value in whole_identifiers(ours)]
    compared = {
        "birth date": _dates_agree(theirs.get("birthDate"), ours.get("birthDate")),
        "sex": _sexes_agree(theirs.get("gender"), ours.get("gender")),
        "name": names_agree(ours.get("name", []), theirs.get("name", []), ids),
    }
    contradicting = " and the ".join(name for name, agrees in compared.items() if agrees is False)
    if contradicting:
        raise Held(
            f"The {contradicting} in the CT contradicts the Patient with the same identifier on the FHIR server: "
            f"{WRONG_PATIENT}; correct the one that is wrong, then release the job."
        )
    if any(compared.values()):
        return ()
    if not identifier_alone:
        raise Held(
            "The CT and the Patient with the same identifier on the FHIR server share no birth date, sex or name that "
            f"could be compared: {WRONG_PATIENT}; complete one of them and release the job, or set "
            "twin.accept_identifier_alone."
        )
    return ("The Patient was found by the identifier alone: there is nothing else to compare with the CT.",)


def _dates_agree(theirs: str | None, ours: str | None) -> bool | None:
    """A partial date (R4: YYYY, YYYY-MM) is compared as far as it goes."""
    if not theirs or not ours:
        return None
    shared = min(len(theirs), len(ours))
    return theirs[:shared] == ours[:shared]


def _sexes_agree(theirs: str | None, ours: str | None) -> bool | None:
    if not theirs or not ours or "unknown" in (theirs, ours):
        return None
    return theirs == ours


def _check_subject(theirs: Resource, person: Person, site: TwinSite, endpoint: BundleEndpoint) -> None:
    """Raise Held where the resource belongs to somebody else; a Patient that does not exist owns nothing."""
    is_ours = _is_subject(theirs, person, endpoint)
    if is_ours or (is_ours is None and site.accept_identifier_alone):
        return
    what = "belongs to another Patient than" if is_ours is False else "names a patient who cannot be compared with whom"
    raise Held(
        f"The {theirs['resourceType']} on the FHIR server {what} the CT's patient id leads to: {WRONG_PATIENT}; "
        "correct the patient there, in the CT, or the configured identifier system, then release the job."
    )


def _is_subject(theirs: Resource, person: Person, endpoint: BundleEndpoint) -> bool | None:
    """Whether the person is the resource's subject; None where nothing says so or otherwise."""
    subject = theirs.get("subject", {})
    reference = short_reference(subject.get("reference", ""))
    if is_literal(reference):
        if reference in person.literals:
            return True
        found = read_all(endpoint, [reference])[0]
        if found:
            return _lives_on(found[0], person, endpoint)
        if "identifier" not in subject:
            return True
    contained = [one for one in theirs.get("contained", []) if reference == f"#{one.get('id')}"]
    named = [identifier for one in contained for identifier in whole_identifiers(one)]
    named += whole_identifiers({"identifier": [subject["identifier"]]}) if "identifier" in subject else []
    answers = [_is_identifier(identifier, person, endpoint) for identifier in named]
    if False in answers:
        return False
    return True if True in answers else None


def _is_identifier(identifier: tuple[str, str], person: Person, endpoint: BundleEndpoint) -> bool | None:
    """Whether a logical reference means the person, who may have several identifiers; None where nobody has this."""
    if identifier in person.identifiers:
        return True
    if identifier[0] in person.systems:
        return False
    found = search(endpoint, {"Patient": identifier})["Patient"]
    return _lives_on(found[0], person, endpoint) if found else None


def _lives_on(patient: Resource, person: Person, endpoint: BundleEndpoint) -> bool:
    return patient["resourceType"] == "Patient" and literal_of(followed(patient, endpoint)[-1]) in person.literals


def owned_by(theirs: Resource, subject: Resource) -> Resource:
    """Theirs with our Patient as subject where theirs was merged, is gone, or was known by identifier alone.

    `check_person` has seen to it that it is the same person.
    """
    known = theirs.get("subject", {})
    reference = known.get("reference")
    if "reference" not in subject or (reference and short_reference(reference) == subject["reference"]):
        return theirs
    if reference and not is_literal(short_reference(reference)):
        return theirs
    return {**theirs, "subject": {**({} if reference else known), **subject}}
