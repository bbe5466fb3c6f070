"""The twin record: FHIR resources, the transaction, the client of a FHIR server and the embedded store."""
