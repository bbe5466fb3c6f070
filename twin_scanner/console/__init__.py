"""The console: pages, FHIR and metrics over HTTP, login and audit; it knows no torch and no pynetdicom."""
