"""The identifier systems, codes and extension addresses that the resources share."""

import uuid

DICOM_UID_SYSTEM = "urn:dicom:uid"
URI_SYSTEM = "urn:ietf:rfc:3986"
DCM_SYSTEM = "http://dicom.nema.org/resources/ontology/DCM"
MODEL_SYSTEM = "urn:twin-scanner:model-hash"
SEGMENTER_SYSTEM = "urn:twin-scanner:segmenter-hash"
NODE_SYSTEM = "urn:twin-scanner:device-serial-number"
RECORD_SYSTEM = "urn:twin-scanner:twin-record"
MEASUREMENT_SYSTEM = "urn:twin-scanner:measurement"
UCUM_SYSTEM = "http://unitsofmeasure.org"
CODE_SYSTEM = "urn:twin-scanner:codes"
AIAST = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}
INLINE_LABELS = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
    "code": "PROCESSINLINELABEL",
    "display": "process inline security label",
}
INLINE_LABEL_EXTENSION = "http://hl7.org/fhir/uv/security-label-ds4p/StructureDefinition/extension-inline-sec-label"
TARGET_PATH_EXTENSION = "http://hl7.org/fhir/StructureDefinition/targetPath"
AI_DEVICE = {
    "system": "http://hl7.org/fhir/uv/aitransparency/CodeSystem/AIdeviceTypeCS",
    "code": "Artificial-Intelligence",
    "display": "All kinds of Artificial Intelligence",
}
PARTICIPANT_SYSTEM = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
PRODUCT = "twin-scanner"
NAMESPACE = uuid.UUID("5d2d6f6e-6a0a-5c57-9a3e-0f8c2b7f4b11")
"""The namespace of every identifier derived here; changing it would double the records of every site."""
NAME_SYSTEM = "urn:twin-scanner:name"
"""The tag by which a resource without an identifier is found on a server that gives out its own ids."""
SOURCE = "urn:twin-scanner"
"""The meta.source of what we created: no other resource is ever joined with another."""
