"""The twin record: FHIR resources, the transaction, the server client and the embedded store."""
