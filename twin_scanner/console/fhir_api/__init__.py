"""The twin record over HTTP, read only: what a FHIR client may read and search of the embedded store."""
